"""A folder of images that nobody labelled to a folder of chips: each image is a scene and an event of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aftermap.cutting import Cut, Progress, cut_each
from aftermap.errors import InputRefusedError, UsageError

IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".zip")
"""What an image's name ends in, capitals or not; a folder NAME.SAFE is one too."""
_DATES = ("after", "before")


@dataclass(frozen=True)
class Found:
    """Scenes of a folder by name, with their files by date; and what in it is none."""

    scenes: Mapping[str, Mapping[str, tuple[Path, ...]]]
    aside: tuple[str, ...]


def find(folder: Path) -> Found:
    """Images of a folder, and folders in it with after.tif and perhaps before.tif, as `aftermap simulate` writes them.

    Raises InputRefusedError ("missing-file", "no-chips"), UsageError where two would have one name.
    """
    if not folder.is_dir():
        raise InputRefusedError(f"there is no folder {folder}", repair="check the path", code="missing-file")
    scenes: dict[str, Mapping[str, tuple[Path, ...]]] = {}
    aside: list[str] = []
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        if not (files := _files(path)):
            aside.append(path.name)
            continue
        name = path.stem if path.is_file() or path.suffix == ".SAFE" else path.name
        if name in scenes:
            raise UsageError(f"{folder} holds two scenes called {name}", repair="rename one of them")
        scenes[name] = files
    if not scenes:
        what = f"{folder} holds no image ({', '.join(IMAGES)}) and no folder with after.tif"
        raise InputRefusedError(what, repair="name the folder that has them", code="no-chips")
    return Found(scenes, tuple(aside))


def _files(path: Path) -> dict[str, tuple[Path, ...]]:
    if path.suffix == ".SAFE" or (path.is_file() and path.suffix.lower() in IMAGES):
        return {"after": (path,)}
    held: dict[str, tuple[Path, ...]] = {d: (path / f"{d}.tif",) for d in _DATES if (path / f"{d}.tif").is_file()}
    return held if "after" in held else {}


def cut_scenes(out: Path, folder: Path, what: Cut, *, progress: Progress | None = None) -> dict[str, Any]:
    """Writes chips of every scene, cut as `what` says (`count` of each); returns as cutting.cut, with "events" and "aside"."""
    found = find(folder)
    events = [replace(what, event=n, after=of["after"], before=of.get("before", ())) for n, of in found.scenes.items()]
    told = cut_each(out, events, title=folder.resolve().name, progress=progress)
    return {**told, "events": len(events), "aside": found.aside}
