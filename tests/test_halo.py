"""The halo of a network, as it is measured: of the widths that are tried the least that is as wide as its scores look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from aftermap.engine import Network
from aftermap.halo import HALOS, measured

F32 = npt.NDArray[np.float32]


@dataclass
class Spread:
    """Scores 1 as far as `px` from any spike of its image."""

    px: int

    def probabilities(self, pixels: F32) -> F32:
        reach = (1, 1, 2 * self.px + 1, 2 * self.px + 1)
        return np.asarray(ndimage.maximum_filter(pixels, reach, mode="constant", cval=0.0))


@pytest.mark.parametrize(("px", "halo"), [(0, 32), (31, 32), (44, 48), (60, 64), (90, HALOS[-1])])
def test_what_is_left_out_is_as_wide_as_the_network_looks(px: int, halo: int) -> None:
    rng = np.random.default_rng(0)
    chips = [np.asarray(rng.random((1, 96, 96)) < 1e-4, np.float32) for _ in range(50)]
    network: Any = Spread(px)
    assert measured(cast(Network, network), chips) == halo


def test_chips_of_any_size_and_number_will_do() -> None:
    network: Any = Spread(0)
    for shape in ((2, 30, 50), (1, 700, 600)):
        assert measured(network, [np.ones(shape, np.float32)]) == HALOS[0]
