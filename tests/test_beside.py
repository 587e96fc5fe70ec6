"""Radar and optical images of one date: which file is which, one map of both, and either where the other saw nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import aftermap as am
from aftermap import check, coregister
from aftermap.errors import AftermapError, UsageError
from aftermap.layer import Declared
from aftermap.scene import Scene, open_scene
from aftermap.scorer import LayerBands
from aftermap.sensors import canonical
from aftermap.tiles import Window
from tests.conftest import flood_pair, grid, write

SHAPE = (180, 260)
WHOLE = Window(0, 0, *SHAPE)
OPTICAL = ("B03", "B08", "B11", "SCL")
CLOUD, EDGE = np.s_[20:120, 150:230], np.s_[:, :40]
"""Where cloud hides the optical image after, and where the radar's swath ends."""


BY_RADAR, BY_LIGHT = ("sar-threshold", "sar-darker", "sar-drop", "log-ratio"), ("mndwi", "mndwi-rise", "ndwi")
"""The flood methods that run on a pair of each kind without elevation."""


def files(folder: Path, *, radar_bands: tuple[str, ...] = ("VV", "VH"), day: str = "20240513") -> dict[str, list[Path]]:
    """A radar and an optical image of both dates; the flood of the optical one lies 3 rows lower."""
    rng, (before, after, _) = np.random.default_rng(4), flood_pair(SHAPE)
    made: dict[str, list[Path]] = {}
    for name, pixels in (("before", before), ("after", after)):
        wet = np.roll(pixels[1] < -22, 3, axis=0)
        dry, water = np.array([700, 2800, 2200])[:, None, None], np.array([600, 250, 120])[:, None, None]
        optical = np.concatenate([np.where(wet, water, dry) * rng.uniform(0.9, 1.1, (3, *SHAPE)), np.full((1, *SHAPE), 4)])
        pixels = pixels.copy()
        if name == "after":
            optical[3][CLOUD], pixels[(slice(None), *EDGE)] = 9, np.nan
        stem = f"{name}_{'20240501' if name == 'before' else day}"
        radar = write(folder / f"S1_{stem}.tif", pixels, grid(SHAPE), radar_bands, unit="dB", nodata=float("nan"))
        path = folder / f"S2A_MSIL2A_{name}_20240513.tif" if name == "after" else folder / f"S2A_MSIL2A_{stem}.tif"
        made[name] = [radar, write(path, optical.astype(np.uint16), grid(SHAPE), OPTICAL, nodata=0)]
    return made


def opened(given: dict[str, list[Path]], **declared: Declared) -> Scene:
    return open_scene(given, hazard="flood", declared=declared)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, am.HazardMap]:
    folder = tmp_path_factory.mktemp("beside")
    given, options, methods = files(folder), am.Options(keep_scores=True), ("auto", "sar-threshold", "mndwi")
    return {m: am.map(given["after"], given["before"], out=folder / m, method=m, options=options) for m in methods}


def test_the_map_is_the_mean_of_what_saw_the_ground(maps: dict[str, am.HazardMap]) -> None:
    radar, optical, both = (maps[m].score(WHOLE) for m in ("sar-threshold", "mndwi", "auto"))
    assert np.isnan(optical[CLOUD]).all()
    assert np.isnan(radar[EDGE]).all()
    np.testing.assert_array_equal(both[CLOUD], radar[CLOUD])
    np.testing.assert_array_equal(both[EDGE], optical[EDGE])
    np.testing.assert_allclose(both, np.nanmean([radar, optical], axis=0), atol=1e-6)
    assert (maps["auto"].exclusion(WHOLE) == 0).all()
    assert (maps["mndwi"].exclusion(WHOLE)[CLOUD] == 5).all()


def test_the_record_names_both(maps: dict[str, am.HazardMap]) -> None:
    import pyogrio.raw

    run = maps["auto"].made_by
    assert run["methods"]["combined"] == ["sar-threshold", "mndwi"]
    assert set(run["methods"]["ran"]) == {*BY_RADAR, *BY_LIGHT}
    assert "mean likelihood" in run["methods"]["why"]
    assert set(run["inputs"]) == {"after", "after-optical", "before", "before-optical"}
    assert maps["auto"].likelihood(WHOLE).max() <= 100
    package = maps["auto"].folder / "map.gpkg"
    meta, _, _, columns = pyogrio.raw.read(package, layer="source")
    rows = dict(zip(meta["fields"], columns, strict=True))
    assert set(rows["src_id"]) == {"after", "after-optical", "before", "before-optical"}
    assert set(rows["eventphase"]) == {"Pre-event", "Post-event"}
    meta, _, _, columns = pyogrio.raw.read(package, layer="observed_event", columns=["sensor", "dmg_src_id"])
    rows = dict(zip(meta["fields"], columns, strict=True))
    assert set(rows["sensor"]) == {"sentinel-1 + sentinel-2-l2a"}
    assert set(rows["dmg_src_id"]) == {"after + after-optical"}
    report = (maps["auto"].folder / "report.html").read_text()
    assert "sentinel-1 + sentinel-2-l2a" in report
    assert json.loads((maps["auto"].folder / "item.json").read_text())["properties"]["aftermap:method"] == "sar-threshold + mndwi"


def test_agreement_counts_every_method(maps: dict[str, am.HazardMap]) -> None:
    import rasterio

    with rasterio.open(maps["auto"].folder / "agreement.tif") as src:
        votes = src.read(1)
    assert votes.max() == len(BY_RADAR) + len(BY_LIGHT)
    assert votes[CLOUD].max() == len(BY_RADAR)
    assert votes[EDGE].max() == len(BY_LIGHT)


@pytest.mark.parametrize("memory", [450, 3000])
def test_tiles_change_no_pixel(maps: dict[str, am.HazardMap], tmp_path: Path, memory: int) -> None:
    given = files(tmp_path)
    again = am.map(given["after"], given["before"], out=tmp_path / "out", options=am.Options(memory_mb=memory))
    np.testing.assert_array_equal(again.likelihood(WHOLE), maps["auto"].likelihood(WHOLE))
    np.testing.assert_array_equal(again.extent(WHOLE), maps["auto"].extent(WHOLE))


def test_two_images_that_find_different_things_are_not_mixed(tmp_path: Path) -> None:
    """Radar of one date shows water, the optical pair shows the flood, which was asked for."""
    given = files(tmp_path)
    mapped = am.map(given["after"], given["before"][1:], out=tmp_path / "out")
    assert mapped.classes == ("flood",)
    assert mapped.made_by["methods"]["combined"] == ["mndwi"]
    assert "not water" in mapped.made_by["methods"]["why"]


def test_a_band_tells_its_image(tmp_path: Path) -> None:
    scene = opened(files(tmp_path))
    window = Window(5, 7, 90, 110)
    radar, optical = LayerBands("after", ("VH",), "dB"), LayerBands("after", ("green", "swir1"), "reflectance")
    assert [scene.missing(w) for w in (radar, optical)] == ["", ""]
    mixed = scene.read(LayerBands("after", ("green", "VH", "swir1"), "digital_number"), window)
    np.testing.assert_array_equal(mixed[1], scene.read(radar, window)[0])
    np.testing.assert_array_equal(mixed[[0, 2]], scene.read(optical, window))
    assert "no band red (it has VV, VH, B3, B8, B11, SCL)" in scene.missing(LayerBands("after", ("red",), "reflectance"))
    assert "not in reflectance" in scene.missing(LayerBands("after", ("VV",), "reflectance"))


def test_the_grid_is_that_of_the_finest(tmp_path: Path) -> None:
    given = files(tmp_path)
    fine = write(tmp_path / "S2A_MSIL2A_fine.tif", np.full((3, 360, 520), 900, np.uint16), grid((360, 520), gsd=5.0), OPTICAL[:3])
    scene = opened({"after": [given["after"][0], fine]})
    assert scene.shape == (360, 520)
    assert list(scene.layers) == ["after", "after-radar"]
    assert scene.read(LayerBands("after", ("VV",), "dB"), Window(0, 0, 360, 520)).shape == (1, 360, 520)


def test_days_that_differ_are_said(tmp_path: Path) -> None:
    assert "beside-dates" in {f.code for f in check.examine(opened(files(tmp_path / "a", day="20240511")))}
    found = {f.code for f in check.examine(opened(files(tmp_path / "b")))}
    assert "beside-dates" not in found
    assert "same-image" not in found


def test_what_is_declared_holds_where_it_fits(tmp_path: Path) -> None:
    given = {"after": files(tmp_path, radar_bands=("", ""))["after"]}
    with pytest.raises(AftermapError, match="nothing in S1_after"):
        opened(given)
    for bands in (("VV", "VH"), ("VV", "VH", *OPTICAL)):
        scene = opened(given, after=Declared(bands=bands, sensor="sentinel-1", unit="dB", acquired="2024-01-01"))
        assert scene.layers["after"].bands == ("VV", "VH")
        assert [canonical(b) for b in scene.layers["after-optical"].bands] == ["B3", "B8", "B11", "SCL"]
        assert scene.layers["after-optical"].sensor.name == "sentinel-2-l2a"
        assert {layer.acquired for layer in scene.layers.values()} == {"2024-05-13"}
    with pytest.raises(UsageError, match="5 bands are declared"):
        opened(given, after=Declared(bands=("VV", "VH", "B03", "B08", "B11")))
    with pytest.raises(UsageError, match="meant for the radar or for the optical"):
        opened(given, after=Declared(bands=("VV", "VH"), unit="digital_number"))


def test_a_shift_is_taken_out_of_the_image_that_has_it(tmp_path: Path) -> None:
    given = files(tmp_path)
    seen = flood_pair(SHAPE)[1]
    given["after"][0], given["before"][0] = (
        write(tmp_path / f"S1_{n}.tif", p, grid(SHAPE), ("VV", "VH"), unit="dB")
        for n, p in (("whole_20240513", seen), ("moved_20240501", np.roll(seen, 4, axis=2)))
    )
    scene, shifts = coregister.aligned(opened(given))
    assert set(shifts) == {"before"}
    assert (shifts["before"].dx, shifts["before"].dy) == pytest.approx((4, 0), abs=0.1)
    assert set(scene.shifts) == {"before"}
