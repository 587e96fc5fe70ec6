"""A disk that takes no more, at whatever byte: the run says so, and goes on to the same map once there is room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer

import numpy as np
import numpy.typing as npt
import pytest

import aftermap as am
from aftermap import raster
from aftermap.errors import JobInterruptedError
from aftermap.journal import SEAL
from aftermap.tiles import Window
from tests.conftest import grid
from tests.faults.rig import SMALL, Rig, products

resource = pytest.importorskip("resource")


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full(rig: Rig, out: Path, size: int, options: am.Options = SMALL) -> bool:
    """Whether a run failed for want of room; it may do nothing else but succeed."""
    with suppress(JobInterruptedError), files_up_to(size):
        rig.map(out, options)
    return not (out / SEAL).exists()


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.full] if seed else []) for seed in range(4)])
def test_files_that_may_not_grow(rig: Rig, tmp_path: Path, seed: int) -> None:
    """At random bytes, from none to more than the largest file has."""
    largest = max(p.stat().st_size for p in (rig.folder / "undisturbed").rglob("*"))
    steps = np.linspace(0, 1.2, 6) + np.random.default_rng(seed).uniform(0, 0.2, 6)
    failed = 0
    for step in steps:
        out = tmp_path / f"{step:.4f}"
        failed += full(rig, out, int(step * largest))
        if step in steps[[0, 2, 4]]:
            rig.map(out)
        rig.refuse_wrong(out)
    assert 0 < failed < len(steps)


@pytest.mark.full
def test_rasters_alone_that_may_not_grow(rig: Rig, tmp_path: Path) -> None:
    only = am.Options(only=("likelihood", "extent"))
    rig.map(tmp_path / "whole", only)
    expected, failed = products(tmp_path / "whole"), 0
    for size in np.random.default_rng(1).integers(100, 60_000, 5):
        out = tmp_path / str(size)
        failed += full(rig, out, int(size), only)
        assert not (out / SEAL).exists() or products(out) == expected
    assert failed


def _finish(out: raster.Writer, pixels: npt.NDArray[np.uint8], path: Path) -> None:
    out.write(pixels, Window(0, 0, 600, 600))
    out.finish(path, overview="nearest")


def test_what_did_not_reach_the_disk_is_found_when_it_is_read_back(tmp_path: Path) -> None:
    """GDAL closes such a file without a word."""
    pixels = np.random.default_rng(0).integers(0, 255, (1, 600, 600)).astype(np.uint8)
    for size in range(1000, 400_000, 90_000):
        out = raster.Writer(tmp_path / "a.tif", grid((600, 600)), dtype="uint8", descriptions=["noise"])
        with files_up_to(size), pytest.raises(OSError, match=r"written"):
            _finish(out, pixels, tmp_path / "b.tif")


def test_a_folder_that_is_taken_away_while_a_raster_is_finished(tmp_path: Path) -> None:
    """GDAL fails of it in several ways, one of them without a word (found by the soak): each is told as what the disk did."""
    pixels, ends = np.random.default_rng(0).integers(0, 200, (1, 1500, 1500)).astype(np.uint8), set()
    for delay in np.linspace(0, 0.12, 40):
        (folder := tmp_path / "gone").mkdir()
        out = raster.Writer(folder / "a.tif", grid((1500, 1500)), dtype="uint8", descriptions=["noise"])
        out.write(pixels, Window(0, 0, 1500, 1500))
        going = Timer(delay, shutil.rmtree, (folder,), {"ignore_errors": True})
        going.start()
        try:
            out.finish(folder / "b.tif", overview="nearest")
            ends.add("whole")
        except OSError:
            ends.add("told")
        finally:
            going.join()
            shutil.rmtree(folder, ignore_errors=True)
    assert "told" in ends


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    asked = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(asked, check=False, capture_output=True).returncode:
        pytest.skip("only a superuser mounts a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.full
def test_a_small_disk_of_every_size(rig: Rig, tmp_path: Path) -> None:
    """From 4 KB up to more than a map needs: the file that was sealed cut off, once, lay at one of 30 sizes."""
    disk, failed = tmp_path / "disk", 0
    sizes = range(4, 1300, 60)
    for size in sizes:
        with small_disk(disk, size):
            with suppress(JobInterruptedError):
                rig.map(disk / "out")
            if not rig.refuse_wrong(disk / "out"):
                failed += 1
                subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
                rig.resume(disk / "out")
    assert 0 < failed < len(sizes)
