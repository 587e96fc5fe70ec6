"""Readers on the real files beside the checkout; numbers counted once by other means, or stated by the data's own README."""

from __future__ import annotations

import csv
from itertools import pairwise

import numpy as np
import pytest

from aftermap.bandstats import examine, gather
from aftermap.chips import UNKNOWN, Cutter, Labels, regular
from aftermap.datasets.dataset import open_dataset
from aftermap.layer import Declared
from aftermap.scene import open_scene
from aftermap.splits import folds
from tests.conftest import shared


def test_sen1floods11() -> None:
    found = open_dataset(shared("flood_sen1floods11"))
    assert (found.name, len(found.ids()), len(found.events)) == ("sen1floods11", 11, 8)
    assert examine(found).unseen == ("Ghana_83483", "Paraguay_34417")  # all -1; all NaN
    sea = found.read("Sri-Lanka_534068")
    assert sea.truth is not None
    assert float((sea.truth[sea.labelled] == 1).mean()) == pytest.approx(0.98, abs=0.01)
    assert -35 < float(np.nanmedian(sea.pixels)) < 0
    optical = open_dataset(shared("flood_sen1floods11"), image="s2")
    assert optical.ids() == ["Spain_7370579"]
    assert len(optical.absent) == 10
    assert 0 < float(np.nanmedian(optical.read("Spain_7370579").pixels)) < 0.5


def test_runs_of_numbers_of_a_region_lie_apart() -> None:
    found = open_dataset(shared("landslide_l4s_rgb"), runs=4)
    assert found.sizes() | {"B1": 29, "B2": 28, "B3": 29, "B4": 28} == found.sizes()
    assert set(found.ids(events=["C1", "C2", "C3", "C4"])) == set(open_dataset(found.folder).ids(events=["C"]))
    with (found.folder / "index.csv").open(newline="") as stream:
        number = {r["image"].removesuffix(".png"): int(r["landslide4sense_train_name"][6:-3]) for r in csv.DictReader(stream)}
    of_run = [[number[n] for n in found.ids(events=[f"B{k}"])] for k in range(1, 5)]
    assert all(max(first) < min(second) for first, second in pairwise(of_run))


def test_ombria_folds_keep_scenes_together() -> None:
    folder = shared("flood_ombria")
    found = open_dataset(folder)
    assert (found.name, len(found.ids()), len(found.events), found.absent) == ("ombria", 154, 12, ())
    with (folder / "groups_inferred.csv").open(newline="") as stream:
        group = {row["tile"]: row["group_inferred"] for row in csv.DictReader(stream)}
    dealt = folds(found.sizes(), 5, np.random.default_rng(0))
    fold = {group[n]: k for k, events in enumerate(dealt) for n in found.ids(events=events)}
    assert sum(len(found.ids(events=events)) for events in dealt) == 154
    assert len({fold[g] for g in "ABH"}) == 1
    assert all(len({fold[group[n]] for n in found.ids() if group[n] == g}) == 1 for g in set(group.values()))
    check = examine(found)
    assert check.corrupt == []
    shares = [float((c.truth == 1).mean()) for c in found.chips() if c.truth is not None]
    assert float(np.mean(shares)) == pytest.approx(0.24, abs=0.005)  # its README
    assert min(shares) == pytest.approx(0.03, abs=0.005)


def test_landslide4sense_rgb_regions() -> None:
    found = open_dataset(shared("landslide_l4s_rgb"))
    assert found.sizes() == {"A": 1741, "B": 114, "C": 48}
    chips = list(found.chips(found.ids(events=["B", "C"])))
    assert len(chips) == 162
    assert all(c.valid.all() for c in chips)
    # Its README says that every picture has a landslide; one of these has none.
    assert [c.name for c in chips if c.truth is not None and not c.truth.any()] == ["image_2311"]


def test_landslide4sense_14_bands_and_masks_that_fit() -> None:
    found = open_dataset(shared("landslide_l4s_14band"))
    assert found.ids("labelled") == ["labelled_0001", "labelled_0004"]
    for chip in found.chips():
        assert chip.pixels.shape == (14, 128, 128)
        assert 0 <= float(chip.pixels.min()) <= float(chip.pixels.max()) < 10
        assert (chip.truth is None) == chip.name.startswith("unlabelled")
    slope = found.read("labelled_0001").pixels[found.bands.index("slope")]
    elevation = found.read("labelled_0001").pixels[found.bands.index("elevation")]
    # Slope is the gradient of elevation: which of the two last bands is which shows in their roughness.
    assert float(np.abs(np.diff(slope)).mean() / slope.std()) > 3 * float(np.abs(np.diff(elevation)).mean() / elevation.std())


def test_antarctic_fractures_of_the_ice_alone() -> None:
    found = open_dataset(shared("glacier_fracture_antarctica"), empty="unknown")
    assert (len(found.ids("train")), len(found.ids("validation"))) == (26, 6)
    empty = [c.name for c in found.chips() if c.truth is not None and (c.truth == UNKNOWN).all()]
    assert len(empty) == 10
    rows = {row["split"]: row for row in gather(open_dataset(found.folder)).rows()}
    observed = sum(rows[s]["observed_share"] * rows[s]["chips"] for s in rows) / 32
    assert observed == pytest.approx(0.198, abs=0.001)
    assert rows["train"]["classes"]["fracture"] == pytest.approx(0.03, abs=0.01)  # "about 3 % of ice pixels"


def test_folders_of_ones_own() -> None:
    bijie = open_dataset(shared("landslide_bijie"), hazard_code=255, event=r"^(nls|ls)_")
    assert bijie.sizes() == {"ls": 49, "nls": 13}
    shares = [float((c.truth == 1).mean()) for c in bijie.chips(bijie.ids(events=["ls"])) if c.truth is not None]
    assert float(np.mean(shares)) == pytest.approx(0.12, abs=0.01)  # its README
    assert not any((c.truth == 1).any() for c in bijie.chips(bijie.ids(events=["nls"])) if c.truth is not None)
    tianshui = open_dataset(
        shared("landslide_tianshui"), "folder", images=".", masks=".", mask_suffix="_label", threshold=127,
        bands=("nir", "red", "green"),
    )  # fmt: skip
    assert len(tianshui.ids()) == 9
    assert all(c.shape == (600, 600) for c in tianshui.chips())


def test_polygons_on_web_map_tiles() -> None:
    found = open_dataset(shared("building_fair_ggaba"), "folder", images="input", polygons="labels.geojson")
    assert (len(found.ids()), len(found.events)) == (63, 3)
    assert found.bands == ("red", "green", "blue")
    share = {}
    for chip in found.chips():
        assert chip.truth is not None
        share[chip.name] = float(chip.truth.mean())
    # The zooms show the same ground: a tile's roofs are the mean of its four children's.
    x, y = 309612, 261632
    children = [share[f"OAM-{2 * x + i}-{2 * y + j}-20"] for i in (0, 1) for j in (0, 1)]
    assert share[f"OAM-{x}-{y}-19"] == pytest.approx(float(np.mean(children)), abs=0.002)
    assert share[f"OAM-{x}-{y}-19"] > 0.1


def test_chips_of_a_georeferenced_image_and_polygons_in_another_crs() -> None:
    folder = shared("building_joplin")
    declared = {"after": Declared(bands=("red", "green", "blue"))}
    scene = open_scene({"after": [folder / "input/pre/tile_1361-9136.tif"]}, hazard="building", declared=declared)
    cutter = Cutter(scene, Labels(folder / "misc/joplin.geojson", scene.grid))
    chosen = regular(cutter, 256)
    assert len(chosen) == 16
    share = sum(c.pixels[1] for c in chosen) / (16 * 256**2)
    assert 0.05 < share < 0.3
