"""Real files through the main job; skipped with a reason where they are not beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

import aftermap as am
from aftermap.evaluate import evaluate
from tests.conftest import shared

NOT_SCORABLE = {"Paraguay_34417", "Ghana_83483", "Ghana_53713", "Ghana_97059"}


def chip(name: str, out: Path) -> am.HazardMap:
    folder = shared("flood_sen1floods11")
    return am.map(folder / "S1Hand" / f"{name}_S1Hand.tif", out=out)


@pytest.mark.parametrize(
    ("name", "least"), [("USA_905409", 0.8), ("Nigeria_812045", 0.8), ("Sri-Lanka_534068", 0.97), ("Spain_7370579", 0.5)]
)
def test_water_on_hand_labelled_chips(name: str, least: float, tmp_path: Path) -> None:
    mapped = chip(name, tmp_path / "out")
    truth = shared("flood_sen1floods11") / "LabelHand" / f"{name}_LabelHand.tif"
    iou = evaluate(mapped, truth).counts.iou
    assert iou is not None
    assert iou >= least


def test_a_chip_without_data_is_not_analysed(tmp_path: Path) -> None:
    mapped = chip("Paraguay_34417", tmp_path / "out")
    assert mapped.answer == "not analysed"
    assert {r["percent_of_aoi"] for r in mapped.summary if r["quantity"] == "not_analysed_area"} == {"100.0"}


def test_a_chip_without_water_stays_almost_empty(tmp_path: Path) -> None:
    mapped = chip("Ghana_53713", tmp_path / "out")
    affected = next(float(r["percent_of_aoi"]) for r in mapped.summary if r["quantity"] == "affected_area")
    assert affected < 0.1


def test_scenes_of_other_sensors_run_through(tmp_path: Path) -> None:
    sentinel, landsat = shared("scenes_sentinel"), shared("scenes_landsat_naip")
    bolzano = am.map(sentinel / "S2_L2A_bolzano_sample.tif", out=tmp_path / "bolzano")
    assert bolzano.made_by["methods"]["lead"] == "ndwi"
    assert bolzano.made_by["inputs"]["after"]["sensor"] == "sentinel-2-l2a"
    single = am.map(next(sentinel.glob("S1A_*")), out=tmp_path / "s1")
    assert (single.made_by["inputs"]["after"]["unit"], single.made_by["inputs"]["after"]["unit_from"]) == ("dB", "file name")
    declared = am.Declared(bands=("swir1", "nir", "red", "green"))
    river = am.map(
        landsat / "pucallpa_landsat_2020.tif", landsat / "pucallpa_landsat_1985.tif", out=tmp_path / "river",
        declared={"after": declared, "before": declared},
    )  # fmt: skip
    assert river.answer == "found"
    assert river.made_by["methods"]["lead"] == "mndwi"


def test_an_ombria_pair_of_pictures_is_mapped_in_pixels(tmp_path: Path) -> None:
    folder = shared("flood_ombria")
    files = {k: folder / "OmbriaS2" / "train" / k.upper() / f"S2_{k}_0001.png" for k in ("before", "after", "mask")}
    if not all(f.exists() for f in files.values()):
        pytest.skip("tile 0001 is not in this subset")
    declared = am.Declared(bands=("swir1", "nir", "green"))
    mapped = am.map(files["after"], files["before"], out=tmp_path / "out", declared={"after": declared, "before": declared})
    assert mapped.made_by["area_unit"] == "px"
    iou = evaluate(mapped, files["mask"], hazard_code=255).counts.iou
    assert iou is not None
    assert iou > 0.3
