"""Further acquisitions of one event, on the grid of after: before-2 the last pass but one before it, after-2 the second after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np

from aftermap.chips import F32
from aftermap.errors import BandError, InputRefusedError, UsageError
from aftermap.layer import Declared, Layer
from aftermap.scene import Scene, open_scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window

SIDES = ("before", "after")
_DAY = len("2024-05-03")


@dataclass(frozen=True, eq=False)
class Pass:
    """One further pass, as a source of bands that a Cutter stacks: "before-2.VV"."""

    name: str
    layer: Layer
    _scene: Scene = field(repr=False)
    """That of `after`, whose date before is this pass: so it is warped and checked as any pair."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Own names, the pass in front."""
        return tuple(f"{self.name}.{band}" for band in self._own)

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of each band."""
        return tuple(self.layer.unit_of(band) for band in self._own)

    @property
    def _own(self) -> tuple[str, ...]:
        return tuple(b for i, b in enumerate(self.layer.bands) if not self.layer.is_class(i))

    def read(self, window: Window) -> F32:
        """Pixels (band, y, x) of a window, NaN where not observed."""
        each = (self._scene.read(LayerBands("before", (b,), self.layer.unit_of(b)), window) for b in self._own)
        return np.concatenate(list(each))


def open_passes(
    scene: Scene, after: Sequence[Path], files: Mapping[str, Sequence[Path]], declared: Mapping[str, Declared]
) -> tuple[Pass, ...]:
    """The further passes of `files` (side -> one file each, from the event outward) of a scene whose date after is `after`.

    Raises BandError where bands or unit are not those of the side's first pass, InputRefusedError ("pass-order") where times of
    acquisition contradict the order, UsageError for a side without a first pass.
    """
    found = []
    for side in SIDES:
        if files.get(side) and not scene.images(side):
            raise UsageError(f"--{side}-pass is given without --{side}", repair=f"give the pass nearest the event as --{side}")
        for k, path in enumerate(files.get(side, ()), 2):
            both = {"after": declared["after"], "before": declared[side]}
            of_pair = open_scene({"after": after, "before": [path]}, hazard=scene.hazard, declared=both)
            layer = of_pair.layers["before"]
            _refuse_unlike(f"{side}-{k}", layer, scene.layers[side])
            found.append(Pass(f"{side}-{k}", layer, of_pair))
    _refuse_disorder(scene, found)
    return tuple(found)


def _refuse_unlike(name: str, layer: Layer, first: Layer) -> None:
    if layer.bands != first.bands:
        raise BandError(
            f"{name} has {', '.join(layer.bands)} and {first.name} has {', '.join(first.bands)}",
            repair="give passes of one sensor with the same bands in the same order",
            code="band-missing",
        )
    if layer.unit != first.unit:
        raise BandError(
            f"{name} is in {layer.unit}, {first.name} in {first.unit}",
            repair="convert one, or declare its true unit in its tags",
            code="unit-mismatch",
        )


def _refuse_disorder(scene: Scene, further: Sequence[Pass]) -> None:
    """Raises InputRefusedError where two passes that state their times do not follow one another as they were given."""
    times = {side: scene.layers[side].acquired for side in SIDES if side in scene.layers}
    times |= {one.name: one.layer.acquired for one in further}
    outward = {side: [n for n in times if n.partition("-")[0] == side] for side in SIDES}
    known = [(name, time) for name in (*outward["before"][::-1], *outward["after"]) if (time := times[name]) and _time(time)]
    for (one, earlier), (other, later) in pairwise(known):
        if not _precedes(earlier, later):
            raise InputRefusedError(
                f"{one} ({earlier}) is not earlier than {other} ({later})",
                repair="give passes from the event outward: --before and --after nearest to it, then each farther one",
                code="pass-order",
            )


def _precedes(earlier: str, later: str) -> bool:
    """Whether a time comes first, as far as both are known: where one is a day alone, two passes of it may be in either order."""
    one, other = _time(earlier), _time(later)
    assert one is not None
    assert other is not None
    if min(len(earlier), len(later)) <= _DAY:
        return one.date() <= other.date()
    return one < other


def _time(said: str) -> datetime | None:
    """UTC where no zone is said; None where a tag is no ISO 8601 time."""
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
