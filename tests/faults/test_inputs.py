"""An input that is replaced, cut off or taken away while it is read is refused, and no pixel of it stays in the work folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil

import aftermap as am
from aftermap import repeated
from aftermap.errors import InputRefusedError, JobInterruptedError, UsageError
from aftermap.journal import SEAL
from aftermap.witness import Witness
from tests.conftest import flood_pair, grid, write
from tests.faults.rig import SHAPE, Rig, products
from tests.networks import toy


def _other(path: Path) -> Path:
    """Another image of the same place, of the same size in bytes or nearly."""
    return write(path, flood_pair(SHAPE, 7)[1], grid(SHAPE), ("VV", "VH"), unit="dB", nodata=float("nan"))


def replaced(path: Path) -> None:
    os.replace(_other(path.with_name("other.tif")), path)


def rewritten(path: Path) -> None:
    """In place: same inode, and the time of the last write set back."""
    times = os.stat(path)
    shutil.copyfile(_other(path.with_name("other.tif")), path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def removed(path: Path) -> None:
    path.unlink()


@pytest.fixture
def own(rig: Rig, tmp_path: Path) -> Rig:
    """Files that may be spoilt."""
    for path in rig.files.values():
        shutil.copy2(path, tmp_path / path.name)
    return Rig(tmp_path, rig.expected)


def at(stage: str, happens: Callable[[], None]) -> Callable[[str, int, int], None]:
    """Progress at which it happens, once."""
    once = iter([happens])

    def progress(now: str, done: int, whole: int) -> None:
        if now == stage and done >= (stage != "prepare"):
            next(once, lambda: None)()

    return progress


FAST = {(replaced, "map"), (rewritten, "deliver"), (cut_off, "map"), (removed, "prepare")}
EVERY = [
    pytest.param(how, stage, marks=[] if (how, stage) in FAST else [pytest.mark.full], id=f"{how.__name__} {stage}")
    for how in (replaced, rewritten, cut_off, removed)
    for stage in ("prepare", "map", "deliver")
]


@pytest.mark.parametrize(("how", "stage"), EVERY)
def test_an_input_that_changes_is_refused(own: Rig, tmp_path: Path, how: Callable[[Path], None], stage: str) -> None:
    path = own.files["before" if how is rewritten else "after"]
    kept = shutil.copy2(path, tmp_path / "kept.tif")
    with pytest.raises(InputRefusedError) as told:
        own.map(tmp_path / "out", progress=at(stage, lambda: how(path)))
    assert told.value.code == "input-changed"
    assert path.name in told.value.what
    assert not (tmp_path / "out" / SEAL).exists()
    os.replace(kept, path)
    own.resume(tmp_path / "out")


def test_no_pixel_of_the_other_image_is_resumed_from(own: Rig, tmp_path: Path) -> None:
    """Replaced, killed before anyone looks, put back: parts that were read from the other would go into the map of this one."""
    path, kept = own.files["after"], tmp_path / "kept.tif"
    shutil.copy2(path, kept)

    def stop(now: str, done: int, whole: int) -> None:
        if (now, done) == ("prepare", 0):
            replaced(path)
        if now == "map" and done:
            raise KeyboardInterrupt

    with pytest.raises((InputRefusedError, JobInterruptedError)):
        own.map(tmp_path / "out", progress=stop)
    assert not list((tmp_path / "out").rglob("part-*"))
    os.replace(kept, path)
    own.resume(tmp_path / "out")


def test_the_new_image_is_mapped_by_the_same_command(own: Rig, tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError):
        own.map(tmp_path / "out", progress=at("map", lambda: replaced(own.files["after"])))
    own.map(tmp_path / "out")
    own.map(tmp_path / "fresh")
    assert products(tmp_path / "out") == products(tmp_path / "fresh") != own.expected


@pytest.mark.parametrize("part", ["source", "mask"])
def test_what_an_image_names_is_an_input_too(own: Rig, tmp_path: Path, part: str) -> None:
    """The sources of a virtual raster, and the mask beside one."""
    path, whole = own.files["after"], tmp_path / "whole.vrt"
    rasterio.shutil.copy(path, whole, driver="VRT")
    mask = path.with_name(f"{path.name}.msk")
    facts = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "seen.tif", "w", **facts) as out:
        out.write(np.full((1, *SHAPE), 255, np.uint8))
    os.replace(tmp_path / "seen.tif", mask)
    changed = {"source": path, "mask": mask}[part]
    map_ = partial(am.map, whole, own.files["before"], hazard="flood")
    files = map_(out=tmp_path / "out").made_by["inputs"]["after"]["files"]
    assert [one["name"] for one in files] == ["whole.vrt", path.name, mask.name]
    assert repeated.repeat(tmp_path / "out", tmp_path / "again") == []
    map_(out=tmp_path / "out")
    if part == "source":
        replaced(changed)
    else:
        with rasterio.open(changed, "r+") as out:
            out.write(np.zeros((1, *SHAPE), np.uint8))
    with pytest.raises(UsageError) as told:
        map_(out=tmp_path / "out")
    assert told.value.code == "other-run"
    with pytest.raises(InputRefusedError) as refused:
        map_(out=tmp_path / "new", progress=at("map", lambda: cut_off(changed)))
    assert (refused.value.code, changed.name in refused.value.what) == ("input-changed", True)


def test_a_touched_or_linked_file_is_the_same(own: Rig, tmp_path: Path) -> None:
    def link() -> None:
        os.link(own.files["after"], tmp_path / "link.tif")
        own.files["before"].chmod(0o640)

    own.map(tmp_path / "out", progress=at("map", link))
    assert own.refuse_wrong(tmp_path / "out")


def test_a_model_that_changes_is_refused(rig: Rig, tmp_path: Path) -> None:
    """Its graph is compiled when the first tile comes, long after its checksum was looked at."""
    model, other = toy(tmp_path / "toy"), toy(tmp_path / "other", sharp=3.0)
    options = am.Options(model=str(model), precision="f32")
    change = at("prepare", lambda: os.replace(other / "graph.bin", model / "graph.bin"))
    with pytest.raises(InputRefusedError) as told:
        rig.map(tmp_path / "out", options, progress=change)
    assert (told.value.code, "graph.bin" in told.value.what) == ("input-changed", True)
    assert not (tmp_path / "out" / SEAL).exists()


def test_elsewhere_the_content_decides(tmp_path: Path) -> None:
    """A worker on another machine sees other inodes and times of the same file."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    here = Witness.of([path])
    here.sha256(path)
    abroad = Witness()
    vars(abroad).update(here.__getstate__())
    shutil.copyfile(path, tmp_path / "b.bin")
    os.replace(tmp_path / "b.bin", path)
    abroad.refuse_changed()
    abroad.refuse_changed()
    with pytest.raises(InputRefusedError, match="has other bytes"):
        here.refuse_changed()
    path.write_bytes(b"two")
    with pytest.raises(InputRefusedError, match="has other bytes"):
        abroad.refuse_changed()
