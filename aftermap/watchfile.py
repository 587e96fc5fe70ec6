"""What a watch was asked, the grid of its maps, and what became of each pass: watch.json, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from aftermap import plain
from aftermap.acquisitions import Acquisition
from aftermap.errors import InputRefusedError
from aftermap.journal import write_json
from aftermap.stacfacts import stamp

STATE = "watch.json"
_SAME = timedelta(hours=1)
"""Slices of one pass come to a catalog one by one; the next pass of the same orbit is days later."""


@dataclass(frozen=True)
class Pass:
    """A pass that is mapped, or to be mapped; its item file and its map are named `folder`."""

    folder: str
    kind: str
    """Of stacfacts.IMAGES."""
    platform: str
    direction: str
    orbit: int | None
    acquired: str
    """ISO 8601, of its first item."""
    coverage: float
    """Share of the area, in [0, 1]."""
    mapped: bool = False
    refused: str = ""
    """Why it could not be mapped when that was last tried."""

    @classmethod
    def of(cls, one: Acquisition) -> Pass:
        """Of what a catalog holds."""
        direction, orbit = one.orbit
        named = [f"{one.when:%Y%m%dT%H%M%SZ}", direction, "" if orbit is None else f"{orbit:03d}"]
        acquired = stamp(one.when)
        return cls("-".join(filter(None, named)), one.kind, one.platform, direction, orbit, acquired, round(one.coverage, 4))

    def same(self, other: Pass) -> bool:
        """Whether both are one pass, of which more or less has come to the catalog."""
        alike = all(getattr(self, n) == getattr(other, n) for n in ("kind", "platform", "direction", "orbit"))
        return alike and abs(self.when - other.when) <= _SAME

    @property
    def when(self) -> datetime:
        """Of its first item."""
        return datetime.fromisoformat(self.acquired)


@dataclass
class State:
    """Of one watch; `write` after each change."""

    path: Path
    asked: Mapping[str, Any]
    grid: Mapping[str, Any] | None = None
    """crs, shape and transform of every map; None until the catalog showed an image."""
    passes: dict[str, Pass] = field(default_factory=dict)
    """By folder."""
    skipped: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Folder that a pass would have -> when it was acquired, and why it is not mapped."""

    @classmethod
    def read(cls, out: Path, asked: Mapping[str, Any]) -> State:
        """Of the watch in `out`, a new one where there is none; `asked` of the file counts. Raises InputRefusedError."""
        path = out / STATE
        if not path.exists():
            return cls(path, asked)
        try:
            said = plain.read_json(path)
            passes = {one["folder"]: Pass(**one) for one in said["passes"]}
            skipped = {one["folder"]: (str(one["acquired"]), str(one["why"])) for one in said["skipped"]}
            return cls(path, dict(said["asked"]), said["grid"], passes, skipped)
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"{path} does not say what was watched: {error!r}"
            raise InputRefusedError(what, repair="begin again with another -o", code="damaged") from error

    def write(self) -> None:
        """Whole or not at all."""
        skipped = sorted((acquired, folder, why) for folder, (acquired, why) in self.skipped.items())
        write_json(self.path, {
            "asked": self.asked, "grid": self.grid, "passes": [asdict(p) for p in self.ordered],
            "skipped": [{"folder": folder, "acquired": acquired, "why": why} for acquired, folder, why in skipped],
        })  # fmt: skip

    def known(self, one: Pass) -> Pass | None:
        """What is known of a pass that is to be mapped or is mapped."""
        return next((p for p in self.passes.values() if p.same(one)), None)

    def put(self, one: Pass, **more: Any) -> None:
        """Keeps what is now known of a pass."""
        self.passes[one.folder] = replace(one, **more)
        self.skipped.pop(one.folder, None)

    @property
    def newest(self) -> datetime | None:
        """When the last pass was that the catalog showed."""
        times = [p.acquired for p in self.passes.values()] + [acquired for acquired, _ in self.skipped.values()]
        return max(map(datetime.fromisoformat, times), default=None)

    @property
    def ordered(self) -> list[Pass]:
        """Passes by time."""
        return sorted(self.passes.values(), key=lambda p: (p.acquired, p.folder))


def placed(grid: GeoBox) -> dict[str, Any]:
    """A grid as watch.json has it."""
    return {"crs": str(grid.crs), "shape": [int(n) for n in grid.shape], "transform": [float(v) for v in list(grid.affine)[:6]]}
