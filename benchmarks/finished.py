"""Trainings of a benchmark, each made once: the folder of one that is finished says what it was, in about.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aftermap import experiment
from aftermap.journal import write_json

ABOUT = "about.json"


def find(out: Path, about: Mapping[str, Any]) -> Path | None:
    """The folder below `out` of the training that is so; None where there is none."""
    wanted = json.loads(json.dumps(about))
    own = (path for path in sorted(out.glob(f"*/{ABOUT}")) if json.loads(path.read_text(encoding="utf-8")) == wanted)
    return next((path.parent for path in own), None)


def train(
    recipe: str | Path, data: Path, out: Path, about: Mapping[str, Any], *, seed: int, overrides: Sequence[str],
    pretrain_on: Path | None = None, then: Callable[[Path], None] = lambda _: None,
) -> Path:  # fmt: skip
    """Its folder, trained where it is not there; `then` does in it what belongs to it, before it counts as finished."""
    if (known := find(out, about)) is not None:
        return known
    (row,) = experiment.run(recipe, data, out, seeds=[seed], overrides=overrides, pretrain_on=pretrain_on)
    rows = (path.parent for path in out.glob(f"*-seed{seed}-*/row.json"))
    found = next(one for one in rows if _weights(one) == row["weights_sha256"])
    then(found)
    write_json(found / ABOUT, about)
    return found


def _weights(folder: Path) -> str:
    return str(json.loads((folder / "row.json").read_text(encoding="utf-8"))["weights_sha256"])
