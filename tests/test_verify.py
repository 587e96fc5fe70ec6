"""What `aftermap verify` finds: any flipped bit, windows and whole maps that are others when made again from their run.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import aftermap as am
from aftermap import journal, raster
from aftermap.cli import main
from aftermap.errors import InputRefusedError, JobInterruptedError
from aftermap.repeated import repeat, sample
from aftermap.sealed import wrong_in
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write

SHAPE = (180, 260)
BUNDLED = Path(am.__file__).parent / "models"
FEW, MANY = 6, 60
"""Bits that are flipped in each file."""


def run(*args: str | Path | int) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map in `out`, its images in `in`."""
    folder = tmp_path_factory.mktemp("delivered")
    before, after, _ = flood_pair(SHAPE)
    paths = [write(folder / "in" / f"{n}.tif", p, grid(SHAPE), ("a", "b"), nodata=float("nan"))
             for n, p in (("after", after), ("before", before))]  # fmt: skip
    said = {"bands": ("VV", "VH"), "unit": "dB"}
    declared = {"after": am.Declared(acquired="2024-05-13", **said), "before": am.Declared(**said)}  # type: ignore[arg-type]
    options = am.Options(keep_scores=True, min_area_m2=3000.0)
    am.map(*paths, out=folder / "out", declared=declared, name="Here", options=options)
    return folder


def flipped(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def _is_caught(folder: Path) -> bool:
    """Whether something is said to be wrong with a folder, or it cannot even be read."""
    try:
        return bool(wrong_in(folder))
    except InputRefusedError as error:
        return error.code in ("damaged", "points-elsewhere")


def _every_flip_is_caught(folder: Path, scratch: Path, count: int, seed: int) -> int:
    rng, tried = np.random.default_rng(seed), 0
    shutil.copytree(folder, scratch)
    for path in sorted(p for p in scratch.rglob("*") if p.is_file() and p.name not in (*journal.UNSEALED, "lock")):
        whole = path.read_bytes()
        for bit in rng.integers(0, 8 * len(whole), count).tolist():
            flipped(path, bit)
            assert _is_caught(scratch), f"bit {bit} of {path.relative_to(scratch)}"
            path.write_bytes(whole)
            tried += 1
    assert wrong_in(scratch) == []
    return tried


def test_a_flipped_bit_in_any_product_is_caught(delivered: Path, tmp_path: Path) -> None:
    assert _every_flip_is_caught(delivered / "out", tmp_path / "out", FEW, 1) >= 15 * FEW


@pytest.mark.full
def test_many_flipped_bits_in_any_product_are_caught(delivered: Path, tmp_path: Path) -> None:
    _every_flip_is_caught(delivered / "out", tmp_path / "out", MANY, 2)


@pytest.mark.parametrize("step", [1009, pytest.param(23, marks=pytest.mark.full)])
def test_a_flipped_bit_anywhere_in_the_seal_is_caught(delivered: Path, tmp_path: Path, step: int) -> None:
    shutil.copytree(delivered / "out", tmp_path / "out")
    path = tmp_path / "out" / journal.SEAL
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), step):
        flipped(path, bit)
        assert _is_caught(tmp_path / "out"), bit
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["flood-s1", "fracture-grey"])
def test_a_flipped_bit_in_any_file_of_a_model_is_caught(name: str, tmp_path: Path) -> None:
    assert run("verify", BUNDLED / name).exit_code == 0
    _every_flip_is_caught(BUNDLED / name, tmp_path / name, 3, 3)


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(p.name for p in BUNDLED.iterdir() if p.is_dir()))
def test_many_flipped_bits_in_any_file_of_a_model_are_caught(name: str, tmp_path: Path) -> None:
    _every_flip_is_caught(BUNDLED / name, tmp_path / name, MANY, 4)


def test_the_seal_of_a_card_is_compared(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED / "flood-s1", tmp_path / "m")
    card = tmp_path / "m" / "model.toml"
    card.write_text(card.read_text().replace('licence = "', 'licence = "not '))
    result = run("verify", tmp_path / "m")
    assert result.exit_code == 1
    assert "model.toml has changed" in result.output
    (tmp_path / "m" / "known.npz").unlink()
    assert "known.npz is missing" in run("verify", tmp_path / "m").output


def test_a_flipped_bit_in_the_journal_of_an_unfinished_run_is_caught(delivered: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, _: int) -> None:
        if stage == "deliver" and done:
            raise KeyboardInterrupt

    files = [delivered / "in" / f"{n}.tif" for n in ("after", "before")]
    said = {"bands": ("VV", "VH"), "unit": "dB"}
    declared = {n: am.Declared(**said) for n in ("after", "before")}  # type: ignore[arg-type]
    with pytest.raises(JobInterruptedError):
        am.map(*files, out=tmp_path / "out", declared=declared, progress=stop)
    assert run("verify", tmp_path / "out").exit_code == 3
    line = tmp_path / "out" / journal.WORK / "windows.jsonl"
    whole = line.read_bytes()
    for bit in range(0, 8 * (len(whole) - 1), 11):
        flipped(line, bit)
        assert wrong_in(tmp_path / "out"), bit
        line.write_bytes(whole)
    part = next((tmp_path / "out" / journal.WORK).glob("part-*.tif"))
    flipped(part, 8 * 200)
    assert run("verify", tmp_path / "out").exit_code == 1


def test_a_line_that_a_kill_cut_off_is_forgotten_by_the_next_run(tmp_path: Path) -> None:
    with journal.Journal(tmp_path, "key") as log:
        log.open(overwrite=False)
        log.part("a.tif").write_text("pixels")
        log.note(journal.Made("a", {"a.tif": journal.sha256(log.part("a.tif"))}))
        lines = log.work / "windows.jsonl"
        lines.write_text(lines.read_text() + '{"window": "b", "fil')
        assert journal.torn(tmp_path) == ["line 2 of the journal is damaged"]
        assert log.done() == {"a"}
        assert journal.torn(tmp_path) == []


def test_a_map_is_the_same_when_made_again_from_its_run(delivered: Path, tmp_path: Path) -> None:
    result = run("verify", delivered / "out", "--sample", 2, "--repeat", "-o", tmp_path / "again", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["wrong"] == []
    assert journal.sha256(tmp_path / "again" / "run.json") == journal.sha256(delivered / "out" / "run.json")
    assert journal.sha256(tmp_path / "again" / "map.gpkg") == journal.sha256(delivered / "out" / "map.gpkg")


def test_files_that_were_moved_are_found_by_their_hash(delivered: Path, tmp_path: Path) -> None:
    shutil.copytree(delivered / "out", tmp_path / "out")
    (tmp_path / "out" / "log.json").unlink()
    with pytest.raises(InputRefusedError, match=r"after\.tif") as refused:
        repeat(tmp_path / "out", tmp_path / "again")
    assert refused.value.code == "not-repeatable"
    shutil.copytree(delivered / "in", tmp_path / "moved" / "deep")
    write(tmp_path / "moved" / "after.tif", flood_pair(SHAPE, 9)[1], grid(SHAPE), ("a", "b"))  # another of that name
    assert repeat(tmp_path / "out", tmp_path / "again", [tmp_path / "moved"]) == []


def test_a_sampled_window_that_was_altered_is_told(delivered: Path, tmp_path: Path) -> None:
    shutil.copytree(delivered / "out", tmp_path / "out")
    path = tmp_path / "out" / "likelihood.tif"
    pixels = raster.read_window(path, Window(0, 0, *SHAPE))
    pixels[0, 50, 50] ^= 1
    write(path, pixels, grid(SHAPE), ("likelihood",))
    assert sample(tmp_path / "out", 1, np.random.default_rng(0)).differ["likelihood"] == 1
    assert run("verify", tmp_path / "out", "--sample", 1).exit_code == 1


def test_repeat_wants_a_folder() -> None:
    assert run("verify", "out", "--repeat").exit_code == 2
