"""Chips as a folder that other tools open: images/ and masks/ as GeoTIFF, index.csv, and facts.toml that says what they are.

Where chips were split, split.json says by which protocol, and its hash holds who is on which side.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from aftermap import plain, raster
from aftermap.chips import UNKNOWN, Chip, counts
from aftermap.errors import InputRefusedError, UsageError
from aftermap.journal import write_json
from aftermap.splits import digest
from aftermap.tiles import Window

INDEX, FACTS, SPLIT = "index.csv", "facts.toml", "split.json"


def write(
    folder: Path,
    chips: Iterable[tuple[Chip, str, GeoBox | None]],
    *,
    classes: Sequence[str],
    facts: Mapping[str, Any],
    beside: Callable[[Chip], Mapping[str, Any]] = lambda _: {},
    protocol: Mapping[str, Any] | None = None,
) -> int:
    """Writes chips with their split and grid (None: pixel space) and returns how many; `index.csv` appears last, whole.

    `facts` (strings, numbers, and lists of them or of flat tables) go into facts.toml beside bands, unit and classes. `beside`
    gives further columns of index.csv; `protocol` says how chips were split, and is written with the sides to split.json. Raises
    UsageError ("other-run") where the folder already holds chips, and where chips differ in bands or unit.
    """
    if (folder / INDEX).exists():
        raise UsageError(f"{folder} already holds chips", repair="choose another -o", code="other-run")
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    first: Chip | None = None
    with tempfile.TemporaryDirectory(dir=folder, prefix=".chips-") as scratch:
        for chip, split, grid in chips:
            first = first or chip
            if (chip.bands, chip.unit) != (first.bands, first.unit):
                raise UsageError(
                    f"{chip.name} has {chip.bands} in {chip.unit}, {first.name} has {first.bands} in {first.unit}",
                    repair="write chips of one kind into one folder",
                )
            rows.append({**_write_one(folder, chip, split, grid, classes, Path(scratch)), **beside(chip)})
    if first is not None:
        unit = first.unit if isinstance(first.unit, str) else list(first.unit)
        _write_facts(folder / FACTS, {"bands": list(first.bands), "unit": unit, "classes": list(classes), **facts})
        if protocol is not None:
            sides = {row["name"]: row["split"] for row in rows}
            write_json(folder / SPLIT, {**protocol, "sides": sides, "sha256": digest(sides)})
        _write_index(folder / INDEX, rows)
    return len(rows)


def check_split(folder: Path, sides: Mapping[str, str]) -> None:
    """Raises InputRefusedError ("split-altered") where chips are on other sides than split.json says, or that was altered."""
    if not (folder / SPLIT).is_file():
        return
    said = plain.read_json(folder / SPLIT)
    if said["sides"] != sides or said["sha256"] != digest(sides):
        raise InputRefusedError(
            f"{folder / SPLIT} and {INDEX} do not say the same sides, or the hash is not theirs",
            repair=f"restore both as they were written; or remove {SPLIT}, and {INDEX} alone holds",
            code="split-altered",
        )


def _write_one(
    folder: Path, chip: Chip, split: str, grid: GeoBox | None, classes: Sequence[str], scratch: Path
) -> dict[str, Any]:
    grid = grid or GeoBox(chip.shape, raster.PIXEL_SPACE, None)
    image, mask = f"images/{chip.name}.tif", f"masks/{chip.name}.tif"
    unit = chip.unit if isinstance(chip.unit, str) else ""
    _geotiff(folder / image, chip.pixels, grid, chip.bands, scratch, nodata=float("nan"), unit=unit)
    row: dict[str, Any] = {
        "name": chip.name,
        "image": image,
        "mask": "",
        "event": chip.event,
        "domain": chip.domain,
        "split": split,
    }
    if chip.truth is not None:
        _geotiff(folder / mask, chip.truth[None], grid, ("class",), scratch, nodata=UNKNOWN, unit="")
        row["mask"] = mask
    window = chip.window or Window(0, 0, *chip.shape)
    row |= {**window._asdict(), "valid": f"{chip.valid.mean():.6f}", "labelled": f"{chip.labelled.mean():.6f}"}
    of_class = counts(chip, len(classes))
    known = max(int(of_class.sum()), 1)
    return row | {f"share_{k}": f"{n / known:.9f}" if chip.truth is not None else "" for k, n in enumerate(of_class)}


def _geotiff(path: Path, pixels: Any, grid: GeoBox, bands: Sequence[str], scratch: Path, *, nodata: float, unit: str) -> None:
    rough = scratch / "chip.tif"
    out = raster.Writer(rough, grid, dtype=str(pixels.dtype), descriptions=bands, nodata=nodata, unit=unit)
    out.write(pixels, Window(0, 0, *pixels.shape[1:]))
    out.finish(path, overview="nearest")


def _write_index(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)


def _write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Flat TOML: Python's library reads it and writes none. A JSON string, number or list of these is one of TOML."""
    tables = {k: v for k, v in facts.items() if isinstance(v, list) and v and isinstance(v[0], Mapping)}
    lines = [f"{k} = {_toml(v)}" for k, v in facts.items() if k not in tables]
    for name, rows in tables.items():
        for row in rows:
            lines += ["", f"[[{name}]]", *(f"{k} = {_toml(v)}" for k, v in row.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
