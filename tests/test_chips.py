"""Chips: only what was observed and labelled is cut, splits share no ground, and the folder reads back as it was written."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from aftermap import vector
from aftermap.chips import Cutter, Labels, balanced, random, regular
from aftermap.cli import main
from aftermap.cutting import Cut, cut
from aftermap.datasets.dataset import open_dataset
from aftermap.errors import InputRefusedError, UsageError
from aftermap.scene import open_scene
from aftermap.splits import by_block, by_event, folds
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write

SHAPE = (180, 260)


@pytest.fixture
def event(tmp_path: Path) -> tuple[Path, Path, Path]:
    """before.tif, after.tif with a hole in the north-west, and truth.tif with a strip of 255 in the south."""
    before, after, flooded = flood_pair(SHAPE)
    after[:, :40, :70] = np.nan
    truth = flooded.astype(np.uint8)
    truth[-20:] = 255
    files = {"before": before, "after": after}
    paths = [write(tmp_path / f"{k}.tif", p, grid(SHAPE), ("VV", "VH"), unit="dB", nodata=float("nan")) for k, p in files.items()]
    return paths[0], paths[1], write(tmp_path / "truth.tif", truth[None], grid(SHAPE), ("flood",))


def cutter(event: tuple[Path, Path, Path]) -> Cutter:
    scene = open_scene({"after": [event[1]], "before": [event[0]]}, hazard="flood")
    return Cutter(scene, Labels(event[2], scene.grid))


def test_only_what_was_observed_and_labelled_is_cut(event: tuple[Path, Path, Path]) -> None:
    from_truth = cutter(event)
    windows = [c.window for c in regular(from_truth, 20)]
    assert len(windows) == 9 * 13 - 2 * 3 - 13 - 2  # the hole's 2 x 3, half-holes below 0.9, and the unlabelled strip
    assert all(w.row + 20 <= 160 for w in windows)
    assert len(regular(from_truth, 20, least_valid=0.4)) == len(windows) + 2
    chip = from_truth.chip(windows[0])
    assert chip.bands == ("VV", "VH", "before.VV", "before.VH")
    assert chip.unit == "dB"
    assert chip.valid.all()


def test_a_chip_is_one_block_no_larger_than_itself(event: tuple[Path, Path, Path], tmp_path: Path) -> None:
    cut(tmp_path / "chips", Cut((event[1],), event[2], (event[0],), size=40))
    for path in (tmp_path / "chips").glob("*/*.tif"):
        with rasterio.open(path) as chip:
            assert chip.shape == (40, 40)
            assert set(chip.block_shapes) == {(48, 48)}, "the next multiple of 16: a block is decoded whole"


def test_random_and_balanced_follow_their_generator(event: tuple[Path, Path, Path]) -> None:
    from_truth = cutter(event)

    def windows(way: str, seed: int) -> list[Window]:
        rng = np.random.default_rng(seed)
        return [c.window for c in (random if way == "random" else balanced)(from_truth, 20, 24, rng)]

    for way in ("random", "balanced"):
        assert windows(way, 1) == windows(way, 1)
        assert windows(way, 1) != windows(way, 2)
        assert len(set(windows(way, 1))) == 24
    chosen = balanced(from_truth, 20, 24, np.random.default_rng(1))
    assert sum(bool(c.contents) for c in chosen) == 12
    # 178 px of 180 x 260 leave 3 rows and 83 columns to start in; 13 of these miss the hole.
    assert len(random(from_truth, 178, 50, np.random.default_rng(1), least_valid=1)) == 3 * 13


def test_a_chip_larger_than_the_scene_is_refused(event: tuple[Path, Path, Path]) -> None:
    with pytest.raises(UsageError, match="181 px"):
        regular(cutter(event), 181)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=40), st.integers(8, 64),
    st.integers(16, 200), st.integers(0, 30), st.integers(0, 5),
)  # fmt: skip
def test_splits_by_block_share_no_ground(places: list[tuple[int, int]], size: int, block: int, gap: int, seed: int) -> None:
    windows = [Window(*place, size, size) for place in places]
    sides = by_block(windows, np.random.default_rng(seed), block_px=block, gap_px=gap)
    for i, (one, side) in enumerate(zip(windows, sides, strict=True)):
        for other, its in zip(windows[:i], sides[:i], strict=True):
            if side and its and side != its:
                assert one.pad(gap, (9999, 9999)).overlap(other) is None


@settings(max_examples=60)
@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 500), min_size=3, max_size=12), st.integers(0, 9)
)
def test_splits_by_event_are_disjoint_and_none_is_empty(sizes: dict[str, int], seed: int) -> None:
    dealt = by_event(sizes, np.random.default_rng(seed))
    assert dealt.keys() == sizes.keys()
    assert set(dealt.values()) == {"train", "validation", "test"}
    groups = folds(sizes, 3, np.random.default_rng(seed))
    assert sorted(event for group in groups for event in group) == sorted(sizes)


def test_too_few_events_cannot_be_split() -> None:
    with pytest.raises(UsageError) as refused:
        by_event({"one": 5, "two": 4}, np.random.default_rng(0))
    assert refused.value.code == "too-few-events"


def test_the_folder_reads_back_and_other_tools_open_it(event: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "chips"
    told = cut(out, Cut((event[1],), event[2], (event[0],), size=30, split="blocks", block_px=60))
    found = open_dataset(out)
    assert found.name == "folder"
    assert told["chips"] == len(found.ids()) > 15
    assert set(found.splits) == {"train", "validation", "test"}
    source = cutter(event)
    with (out / "index.csv").open(newline="") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    for chip in found.chips():
        assert chip.window is not None
        again = source.chip(chip.window)
        np.testing.assert_array_equal(chip.pixels, again.pixels)
        np.testing.assert_array_equal(chip.truth, again.truth)
        assert chip.bands == again.bands
        assert chip.truth is not None
        share = float((chip.truth[chip.labelled] == 1).mean())
        assert float(rows[chip.name]["share_1"]) == pytest.approx(share, abs=1e-6)
    chip = found.read(found.ids()[-1])
    with rasterio.open(out / "images" / f"{chip.name}.tif") as image:
        assert image.descriptions == chip.bands
        assert chip.window is not None
        assert image.transform.c == 420000 + 10 * chip.window.col
        assert image.transform.f == 5350000 - 10 * chip.window.row
    with pytest.raises(UsageError) as refused:
        cut(out, Cut((event[1],), event[2], size=20))
    assert refused.value.code == "other-run"


def test_the_command_cuts_and_is_repeatable(event: tuple[Path, Path, Path], tmp_path: Path) -> None:
    words = [
        "chips",
        "--after",
        event[1],
        "--before",
        event[0],
        "--truth",
        event[2],
        "--size",
        "32",
        "--how",
        "balanced",
        "--count",
        "8",
        "--quiet",
    ]
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        result = CliRunner().invoke(main, [*map(str, words), "-o", str(out)])
        assert result.exit_code == 0, result.output
    files = [sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file()) for out in outs]
    assert files[0] == files[1]
    assert all((outs[0] / f).read_bytes() == (outs[1] / f).read_bytes() for f in files[0])
    stats = CliRunner().invoke(main, ["data", "stats", str(outs[0]), "--quiet", "-o", str(tmp_path / "stats")])
    assert stats.exit_code == 0, stats.output
    assert "all: 8 chips, 100.0% observed" in stats.output
    assert (tmp_path / "stats" / "stats.png").stat().st_size > 5000


def test_polygons_are_the_same_in_any_window(tmp_path: Path) -> None:
    on = grid((2100, 2100))
    rings = [
        [(420000 + 10 * x, 5350000 - 10 * y) for x, y in ((c, c), (c + 30, c), (c + 20, c + 30), (c, c))]
        for c in (10, 2035, 2060)
    ]
    shapes = [{"type": "Polygon", "coordinates": [ring]} for ring in rings]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path = tmp_path / "truth.geojson"
    features = [{"type": "Feature", "properties": {}, "geometry": s} for s in shapes]
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    labels, drawn = Labels(path, on), vector.read_polygons(path, on)
    for window in (Window(0, 0, 64, 64), Window(2030, 2020, 70, 80), Window(2047, 2047, 2, 2)):
        found = labels.read(window)
        assert found.any()
        np.testing.assert_array_equal(found, vector.rasterise(drawn, on, window))


def test_labels_that_are_only_0_and_255_are_a_question(event: tuple[Path, Path, Path], tmp_path: Path) -> None:
    truth = np.zeros((1, *SHAPE), np.uint8)
    truth[:, :, 100:] = 255
    path = write(tmp_path / "mask.tif", truth, grid(SHAPE), ("flood",))
    with pytest.raises(InputRefusedError) as refused:
        cut(tmp_path / "chips", Cut((event[1],), path, size=32))
    assert refused.value.code == "truth-ambiguous"
    assert not (tmp_path / "chips").exists()
    assert cut(tmp_path / "chips", Cut((event[1],), path, hazard_code=255, size=32))["chips"] > 0


def test_a_code_that_nobody_named_is_refused(event: tuple[Path, Path, Path], tmp_path: Path) -> None:
    truth = np.zeros((1, *SHAPE), np.uint8)
    truth[:, 60:, 100:] = 7
    path = write(tmp_path / "mask.tif", truth, grid(SHAPE), ("flood",))
    with pytest.raises(InputRefusedError, match="the label code 7") as refused:
        cut(tmp_path / "chips", Cut((event[1],), path, size=32))
    assert refused.value.code == "label-codes"


def test_every_code_of_data_sets_is_made_in_these_tests() -> None:
    page = (Path(__file__).parents[1] / "docs" / "codes.md").read_text(encoding="utf-8")
    section = page.partition("## Data sets, exit code 3")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `([a-z-]+)`", section, re.MULTILINE)
    tests = "".join(
        Path(__file__).with_name(f"test_{n}.py").read_text(encoding="utf-8")
        for n in ("chips", "inventories", "datasets", "fetch", "component")
    )
    assert len(told) == 14
    assert [code for code in told if f'code == "{code}"' not in tests] == []
