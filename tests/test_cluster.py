"""A map whose blocks workers share is, to the last byte, the map of one process, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import aftermap as am
from aftermap import afar, exclude, journal, pieces
from aftermap import card as cards
from aftermap.errors import JobInterruptedError, UsageError
from aftermap.journal import Journal
from aftermap.predict import Plan, predict
from aftermap.scene import open_scene
from aftermap.scorer import LayerBands
from aftermap.tiles import Window, blocks
from aftermap.workers import here, workers
from tests.conftest import grid, write

distributed = pytest.importorskip("distributed", reason="distributed is not installed")

NETWORK = Path(cards.__file__).parent / "models" / "flood-s1"
SMALL_MB = 440
"""Several blocks even of a small scene."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two processes."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as own:
        yield own


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    pieces.load("simulate", "flood")(folder, size=1060, seed=5)
    return folder


def mapped(scene: Path, out: Path, progress: Callable[[str, int, int], None] | None = None, **options: Any) -> Path:
    after, before, dem = (scene / f"{name}.tif" for name in ("after", "before", "dem"))
    given = {"memory_mb": SMALL_MB, "keep_scores": True, "only": ("likelihood", "exclusion"), **options}
    return am.map(after, before, dem=dem, out=out, progress=progress, options=am.Options(**given)).folder


def products(out: Path) -> dict[str, str]:
    return {str(p.relative_to(out)): journal.sha256(p) for p in sorted(out.rglob("*")) if p.is_file() and p.name != "log.json"}


@pytest.fixture(scope="module")
def alone(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The products of one process."""
    return products(mapped(scene, tmp_path_factory.mktemp("alone") / "out"))


def elsewhere() -> int:
    """A worker's process, which from now on works in another folder."""
    os.chdir("/")
    return os.getpid()


def test_a_worker_killed_halfway_changes_no_byte(scene: Path, alone: dict[str, str], cluster: Any, tmp_path: Path) -> None:
    """Paths are relative, and workers are elsewhere."""
    with distributed.Client(cluster) as client:
        victim = next(iter(client.run(elsewhere).values()))

    def kill(stage: str, done: int, whole: int) -> None:
        if stage == "map" and done == 2:
            assert whole > 4
            os.kill(victim, signal.SIGKILL)

    files = Path(os.path.relpath(scene))
    assert products(mapped(files, tmp_path / "out", kill, cluster=cluster.scheduler_address)) == alone
    with pytest.raises(ProcessLookupError):
        os.kill(victim, 0)


CASES: dict[str, dict[str, Any]] = {
    "network": {"model": str(NETWORK), "adapt": 2},
    "ensemble": {"model": (str(NETWORK), str(NETWORK)), "flips": True},
    "aligned": {"coregister": True},
}


@pytest.mark.parametrize("case", ["network", *(pytest.param(name, marks=pytest.mark.full) for name in ("ensemble", "aligned"))])
def test_every_kind_of_method_changes_no_byte(case: str, cluster: Any, tmp_path: Path) -> None:
    pieces.load("simulate", "flood")(tmp_path / "scene", size=620, seed=5)
    options = {"memory_mb": 1000 if "model" in CASES[case] else SMALL_MB, "precision": "f32", **CASES[case]}
    one = mapped(tmp_path / "scene", tmp_path / "one", **options)
    two = mapped(tmp_path / "scene", tmp_path / "two", cluster=cluster.scheduler_address, **options)
    assert products(two) == products(one)


@dataclass(frozen=True)
class Graded:
    """Three classes and a deep network's halo: a mean of neighbours, so that a tile's context counts."""

    inputs: tuple[LayerBands, ...] = (LayerBands("after", ("VV",), "dB"),)
    classes: tuple[str, ...] = ("building", "whole", "fallen")
    halo_px: int = 32
    multiple_of: int = 32

    def __call__(self, pixels: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        level = np.nan_to_num(pixels[:, 0] + 30) / 40
        mean = np.clip((level + level.mean(axis=(1, 2), keepdims=True)) / 2, 0, 1)
        return np.stack([mean, 1 - mean, mean**2], axis=1).astype(np.float32)


def test_classes_of_blended_tiles_change_no_byte(cluster: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(-12, 4, (1, 1700, 2300)).astype(np.float32)
    after = write(tmp_path / "after.tif", pixels, grid(pixels.shape[1:]), ("VV",), unit="dB")
    opened = open_scene({"after": [after]}, hazard="flood")
    plan = Plan({"graded": Graded()}, 0.5, True, SMALL_MB, told_apart="graded")
    assert len(plan.blocks(opened.shape)) == 12
    made = []
    with workers(cluster=cluster.scheduler_address) as crew:
        for name, how in (("one", here), ("two", crew)):
            with Journal(tmp_path / name, "key") as log:
                log.open(overwrite=False)
                own = replace(plan, threads=1 if how is crew else 2)
                predict(opened, own, exclude.prepare(opened, ["after"]), log, progress=lambda *_: None, crew=how)
                made.append({p.name: journal.sha256(p) for p in log.work.glob("part-*")})
    assert len(made[0]) == 3 * len(plan.blocks(opened.shape))
    assert made[0] == made[1]


def resumed(scene: Path, out: Path) -> tuple[dict[str, str], int]:
    """Products, and how many blocks there were already."""
    seen: list[int] = []

    def watch(stage: str, done: int, whole: int) -> None:
        seen.extend([done] if stage == "map" else [])

    return products(mapped(scene, out, watch)), seen[0]


def test_a_killed_client_goes_on_where_it_stood(scene: Path, alone: dict[str, str], cluster: Any, tmp_path: Path) -> None:
    """Its workers live on, and may still write."""
    files = [f"--{name}={scene / name}.tif" for name in ("after", "before", "dem")]
    command = [sys.executable, "-m", "aftermap", "map", *files, "--hazard", "flood", "-o", str(tmp_path / "out"), "--quiet"]
    alike = ["--keep-scores", "--only=likelihood,exclusion", f"--memory={SMALL_MB}"]
    client = subprocess.Popen([*command, *alike, f"--cluster={cluster.scheduler_address}"])
    lines = tmp_path / "out" / journal.WORK / "windows.jsonl"
    until(lambda: lines.exists() and lines.read_text().count("\n") >= 2)
    client.kill()
    assert client.wait() == -signal.SIGKILL
    seen: list[int] = []
    assert (
        products(mapped(scene, tmp_path / "out", lambda stage, done, _: seen.append(done) if stage == "map" else None)) == alone
    )
    assert seen[0] >= 2


def test_a_lost_scheduler_is_told_and_the_same_command_goes_on(scene: Path, alone: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        "import distributed, time\n"
        "if __name__ == '__main__':\n"
        "    own = distributed.LocalCluster(n_workers=1, processes=False, protocol='tcp', dashboard_address='127.0.0.1:0')\n"
        "    print(own.scheduler_address, flush=True)\n"
        "    time.sleep(600)\n"
    )
    scheduler = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert scheduler.stdout is not None

    def kill(stage: str, done: int, whole: int) -> None:
        if stage == "map" and done == 2:
            scheduler.kill()

    try:
        with pytest.raises(JobInterruptedError) as told:
            mapped(scene, tmp_path / "out", kill, cluster=scheduler.stdout.readline().strip())
    finally:
        scheduler.kill()
        scheduler.communicate()
    assert (told.value.code, told.value.exit_code) == ("scheduler-lost", 5)
    seen: list[int] = []
    assert (
        products(mapped(scene, tmp_path / "out", lambda stage, done, _: seen.append(done) if stage == "map" else None)) == alone
    )
    assert seen[0] >= 2


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_at_once_leave_one_whole_window(tmp_path: Path) -> None:
    with Journal(tmp_path / "out", "key") as log:
        log.open(overwrite=False)
        written = [journal.partial(log.work, "one.tif") for _ in range(2)]
        for path in written:
            path.write_bytes(b"pixels")
        made = [journal.settle(log.work, "one", {"one.tif": path}) for path in written]
        assert made[0] == made[1] == journal.noted(log.work, "one")
        assert log.done() == {"one"}, "a note that nobody wrote down is kept"
        assert journal.noted(log.work, "one") is None
        log.part("one.tif").write_bytes(b"pixel")
        assert log.done() == set()


def test_a_finished_block_of_a_lost_unit_is_not_made_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "out", "key") as log:
        log.open(overwrite=False)
        (path := journal.partial(log.work, "one.tif")).write_bytes(b"pixels")
        journal.settle(log.work, "one", {"one.tif": path})
        log.part("one.tif").write_bytes(b"pixel")
        assert journal.noted(log.work, "one") is None, "damaged"


@pytest.mark.parametrize("shape", [(17, 12), (1, 1), (3, 40), (60, 60)])
def test_groups_are_compact_and_hold_each_block_once(shape: tuple[int, int]) -> None:
    every = list(blocks(shape, 1))
    tiles = (3 * shape[0], 3 * shape[1])
    groups = afar.grouped(every, tiles, 2, handing=True)
    assert sorted(b for group in groups for b in group) == every
    again = 0
    for group in groups:
        (top, left), (bottom, right) = (f(zip(*((b.row, b.col) for b in group), strict=True)) for f in (_least, _most))
        assert len(group) == (bottom - top + 1) * (right - left + 1)
        assert group == sorted(group)
        rows, cols = 3 * (bottom - top + 1), 3 * (right - left + 1)
        again += (rows + (top > 0)) * (cols + (left > 0)) - rows * cols
    assert again <= afar.MOST_AGAIN * tiles[0] * tiles[1] or len(groups) < 20
    assert len(groups) >= 12 or len(every) < 204
    assert afar.grouped(every, tiles, 2, handing=False) == [[b] for b in every]


def _least(axes: Any) -> tuple[int, ...]:
    return tuple(min(axis) for axis in axes)


def _most(axes: Any) -> tuple[int, ...]:
    return tuple(max(axis) for axis in axes)


def nothing(job: object, group: object) -> list[object]:
    return [job]


@dataclass(frozen=True)
class Changed:
    """A crew that is given another job than was sent."""

    field: str
    value: Any
    count: int = 1

    def __call__(self, act: Callable[..., Any], units: Any, *, ordered: bool = True) -> Iterator[Any]:
        return (act(replace(sent, **{self.field: self.value}), *more) for sent, *more in units)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [("versions", "aftermap 0", "workers-differ"), ("path", Path("nowhere"), "not-shared"), ("sha256", "0", "not-shared")],
)
def test_workers_that_are_not_as_the_client_is_are_refused(field: str, value: Any, code: str, tmp_path: Path) -> None:
    assert [*afar.spread("job", nothing, [[Window(0, 0, 1, 1)]], tmp_path, here)] == ["job"]
    with pytest.raises(UsageError) as refused:
        _ = [*afar.spread("other", nothing, [[Window(0, 0, 1, 1)]], tmp_path, Changed(field, value))]
    assert refused.value.code == code
