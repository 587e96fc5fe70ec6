"""One scene for all faults."""

from __future__ import annotations

import pytest

from tests.faults import rig as rigs


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> rigs.Rig:
    """With the map of the undisturbed run."""
    return rigs.make(tmp_path_factory.mktemp("rig"))
