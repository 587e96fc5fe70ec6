"""The folder of chips that `aftermap chips` writes: its passes singly, averaged or stacked, its labels by pixel or by chip.

Density classes are those of methods.md B3, after the concentration map of Hurricane Maria (Bessette-Kirton et al. 2017).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aftermap import chipfolder, plain
from aftermap.chips import F32, UNKNOWN, Chip
from aftermap.datasets import pixels
from aftermap.datasets.dataset import Dataset, Facts, Member
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.sensors import SAR_UNITS, convert
from aftermap.tiles import Window

COMBINE, TARGETS = ("mean", "stack"), ("", "presence", "density")
EDGES = (0.0, 25.0)
"""Heads per km2 up to which a chip is of each class but the last."""
_PASS = re.compile(r"(before|after)(?:-(\d+))?$")


@dataclass(frozen=True)
class Use:
    """What of a folder is used."""

    passes: int = 1
    """Of each side, from the event outward; 0: all."""
    combine: str = "mean"
    """"mean" of power, or "stack": each pass has bands of its own."""
    target: str = ""
    """"presence" or "density": a label of the whole chip in place of the mask. Folders without masks have presence anyway."""
    edges: tuple[float, ...] = EDGES
    present_only: bool = False
    """Whether chips without a landslide are left out, as methods.md B2 does."""

    def __post_init__(self) -> None:
        if self.combine not in COMBINE:
            raise UnknownNameError("setting", self.combine, COMBINE)
        if self.target not in TARGETS:
            raise UnknownNameError("setting", self.target, TARGETS[1:])
        if self.passes < 0 or not self.edges or list(self.edges) != sorted(set(self.edges)) or self.edges[0] < 0:
            raise UsageError(
                f"passes is {self.passes} and edges {self.edges}", repair="passes of 0 or more; edges of 0 or more that rise"
            )


def is_written(folder: Path) -> bool:
    """Whether chipfolder.py wrote it."""
    return (folder / chipfolder.FACTS).is_file() and (folder / chipfolder.INDEX).is_file()


@dataclass(frozen=True)
class _Reading:
    """How one folder's chips become those of its data set."""

    use: Use
    groups: Mapping[str, list[int]]
    """Band that comes out -> places of those it is made of."""
    units: tuple[str, ...]
    """Of what comes out."""
    codes: Mapping[float, int]

    @property
    def unit(self) -> str | tuple[str, ...]:
        """One for all bands, or one for each."""
        return self.units[0] if len(set(self.units)) == 1 else self.units

    def __call__(self, member: Member) -> Chip:
        row, masked = member.place, "mask" in member.files and not self.use.target
        chip = pixels.chip(
            member, _combined(pixels.image(member.files["image"]), list(self.groups.values()), self.units),
            pixels.mask(member.files["mask"], self.codes) if masked else None, bands=tuple(self.groups), unit=self.unit,
            domain=row["domain"], window=Window(*(int(row[k]) for k in Window._fields)), target=self._label(row),
        )  # fmt: skip
        return replace(chip, event=member.event)

    def _label(self, row: Mapping[str, str]) -> int | tuple[int, ...] | None:
        if self.use.target == "density":
            return density_class(float(row["points_per_km2"]), self.use.edges)
        return (int(_present(row)),) if self.use.target else None


def open_written(folder: Path, usual: Facts, use: Use) -> Dataset:
    """The chips of such a folder. Raises InputRefusedError ("too-few-passes", "split-altered"), UsageError."""
    said = plain.read_toml(folder / chipfolder.FACTS)
    held, unit, own = tuple(said["bands"]), said["unit"], tuple(said["classes"])
    units = (unit,) * len(held) if isinstance(unit, str) else tuple(unit)
    rows = _rows(folder)
    use = _settled(folder, rows, use)
    groups = _groups(folder, held, use)
    codes = {float(k): k for k in range(len(own))} | {float(UNKNOWN): UNKNOWN}
    reading = _Reading(use, groups, tuple(units[at[0]] for at in groups.values()), codes)
    keep = {n: r for n, r in rows.items() if not use.present_only or _present(r)}
    files = {n: {k: folder / r[k] for k in ("image", "mask") if r[k]} for n, r in keep.items()}
    members = {n: Member(n, r["split"] or "all", r["event"], files[n], r) for n, r in keep.items()}
    absent = tuple(str(p.relative_to(folder)) for f in files.values() for p in f.values() if not p.exists())
    cautions = (said["caution"],) if "caution" in said else ()
    facts = Facts(said.get("title", usual.title), said.get("licence", "your own"), "", "", cautions=cautions)
    return Dataset("folder", folder, facts, tuple(groups), reading.unit, _classes(own, use), members, reading, absent)


def _rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / chipfolder.INDEX).open(newline="", encoding="utf-8") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    chipfolder.check_split(folder, {name: row["split"] for name, row in rows.items()})
    return rows


def _settled(folder: Path, rows: Mapping[str, Mapping[str, str]], use: Use) -> Use:
    """What to use, its target known. Raises UsageError where it asks for points that were not counted."""
    masked = all(row["mask"] for row in rows.values())
    counted = {c for c in ("points", "points_per_km2") if all(row.get(c, "") != "" for row in rows.values())}
    if not masked and not use.target and "points" in counted:
        use = replace(use, target="presence")
    needed = "points_per_km2" if use.target == "density" else "points" if not masked and (use.target or use.present_only) else ""
    if needed and needed not in counted:
        raise UsageError(
            f"{folder} does not say how many landslides lie in each chip",
            repair="cut it with --points from georeferenced images, or leave target and present_only out",
        )
    return use


def _present(row: Mapping[str, str]) -> bool:
    """By the mask, where the chip has one, else by the points in it."""
    if row["mask"]:
        return any(float(v) > 0 for k, v in row.items() if k.startswith("share_") and k != "share_0")
    return int(row["points"]) > 0


def _classes(own: tuple[str, ...], use: Use) -> tuple[str, ...]:
    if use.target == "density":
        named = ["none" if edge == 0 else f"up to {edge:g} per km2" for edge in use.edges]
        return (*named, f"over {use.edges[-1]:g} per km2")
    return own if not use.target else own[-1:] if len(own) <= len(("absent", "present")) else ("present",)


def density_class(per_km2: float, edges: Sequence[float] = EDGES) -> int:
    """How many of the edges a density lies above: with those of B3 0 for none, 1 for up to 25 per km2, 2 for more."""
    return int(sum(per_km2 > edge for edge in edges))


def _groups(folder: Path, bands: Sequence[str], use: Use) -> dict[str, list[int]]:
    """Band that comes out -> places of those it is made of: each pass in use by itself, or all of a side together."""
    held: dict[str, int] = {}
    groups: dict[str, list[int]] = {}
    for place, band in enumerate(bands):
        layer, dot, own = band.rpartition(".")
        match = _PASS.match(layer if dot else "after")
        side, number = (match.group(1), int(match.group(2) or 1)) if match else (layer, 1)
        if match:
            held[side] = max(held.get(side, 1), number)
        if match and use.passes and number > use.passes:
            continue
        name = band if use.combine == "stack" or number == 1 else own if side == "after" else f"{side}.{own}"
        groups.setdefault(name, []).append(place)
    if short := [side for side, count in held.items() if count < use.passes]:
        raise InputRefusedError(
            f"{folder.name} has {held[short[0]]} passes {short[0]} the event; {use.passes} are asked for",
            repair="ask for fewer, or cut the chips with more",
            code="too-few-passes",
        )
    return groups


def _combined(found: F32, groups: Sequence[Sequence[int]], units: Sequence[str]) -> F32:
    """Bands (band, y, x), each the mean of its group: of power where they are radar; NaN where one did not see."""
    return np.stack(
        [_mean(found[list(at)], unit) if len(at) > 1 else found[at[0]] for at, unit in zip(groups, units, strict=True)]
    )


def _mean(of_passes: F32, unit: str) -> F32:
    radar = unit in SAR_UNITS
    power = convert(of_passes, unit, "power") if radar else of_passes
    mean = np.asarray(power.mean(axis=0, dtype=np.float64), np.float32)
    return convert(mean, "power", unit) if radar else mean
