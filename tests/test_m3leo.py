"""M3LEO (methods.md J): its U-Net, worked by hand, and every trap of its layout undone (J.4, 14.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import aftermap as am
from aftermap.chips import UNKNOWN
from aftermap.datasets import m3leo_parts
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.errors import BandError, UnknownNameError
from aftermap.journal import sha256
from aftermap.model import Spec, build, save
from aftermap.normalise import fit
from aftermap.scorer import LayerBands
from aftermap.torchdoor import nn, torch
from tests import dataset_layouts
from tests.dataset_layouts import SIDE, netcdf, tif
from tests.test_learn_model import card

torch.set_num_threads(1)


def test_the_network_has_the_published_size() -> None:
    """A pair of convolutions i -> o with biases and norms has 9 o (i + o) + 6 o parameters."""
    made = build(Spec("double_conv", "doubling", (12,), 11))
    pairs = [(12, 32), (32, 64), (64, 128), (128, 256), (256, 512), (768, 256), (384, 128), (192, 64), (96, 32)]
    expected = sum(9 * o * (i + o) + 6 * o for i, o in pairs) + 32 * 11 + 11
    assert sum(p.numel() for p in made.parameters()) == expected == 7_855_467
    modes = {m.padding_mode for m in made.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}
    assert modes == {"reflect"}


def test_the_network_keeps_size_and_halves_four_times() -> None:
    made = build(Spec("double_conv_quarter", "doubling", (3,), 2)).eval()
    with torch.no_grad():
        features = made.features(torch.zeros(1, 3, 64, 96))
        assert [f.shape[1:] for f in features[1:]] == [(8, 64, 96), (16, 32, 48), (32, 16, 24), (64, 8, 12), (128, 4, 6)]
        assert made(torch.zeros(1, 3, 64, 96)).shape == (1, 2, 64, 96)


def test_the_network_maps(pair: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    facts = replace(card(2), inputs=(LayerBands("after", ("VV", "VH"), "dB"),))
    save(tmp_path / "model", build(Spec("double_conv_quarter", "doubling", (2,))), facts)
    options = am.Options(model=str(tmp_path / "model"), precision="f32")
    mapped = am.map(pair()[1], hazard="flood", out=tmp_path / "map", options=options)
    assert mapped.answer in ("found", "nothing found")
    assert mapped.made_by["models"]["small"]["sha256"] == sha256(tmp_path / "model" / "model.toml")


FIRST = f"{0:013x}"
GUNW = "gunw_2020-01-01_2020-12-31"


def area(tmp_path: Path) -> Path:
    return dataset_layouts.m3leo(tmp_path).folder / "europe_partitions_aschips_abc"


def opened(folder: Path, parts: str, **settings: str) -> Dataset:
    return open_dataset(folder, "m3leo", parts=parts, **settings)


def test_any_components_side_by_side(tmp_path: Path) -> None:
    found = opened(area(tmp_path), f"s1grd-2020, gssic, {GUNW}, s2rgbm-2020, srtmdem", orbit="ascending", months="03,06,09,12")
    chip = found.read(FIRST)
    assert chip.bands[:2] == ("s1grd.winter-VV-ascending", "s1grd.winter-VH-ascending")
    assert chip.bands[8:] == (
        *(f"gssic.{season}" for season in ("winter", "spring", "summer", "fall")), "gunw.0-60", "gunw.72-132", "gunw.140-216",
        *(f"rgb.{month}-{colour}" for month in ("03", "06", "09", "12") for colour in ("red", "green", "blue")), "dem.elevation",
    )  # fmt: skip
    assert found.units == ("dB",) * 8 + ("1",) * 4 + ("radians",) * 3 + ("digital_number",) * 12 + ("metres",)
    assert chip.shape == (SIDE, SIDE)
    assert opened(tmp_path, "s2rgbm-2020", months="06", after="rgb").bands == ("06-red", "06-green", "06-blue")


def test_coherence_is_read_by_the_names_of_seasons_and_unseen_is_not_zero(tmp_path: Path) -> None:
    chip = opened(area(tmp_path), "gssic").read(FIRST)
    # At 36 days, the third of the file's; the file's seasons are summer, fall, winter, spring, each ten percent up.
    assert [float(np.nanmean(band)) for band in chip.pixels] == pytest.approx([0.22, 0.32, 0.02, 0.12])
    assert np.isnan(chip.pixels[0, : SIDE // 3]).all(), "two of the six rows of winter were not observed"
    assert np.isfinite(chip.pixels[0, SIDE // 3 :]).all()
    assert not chip.valid[: SIDE // 3].any()
    alone = opened(area(tmp_path), "gssic", truth="biomass").read(FIRST)
    assert alone.shape == (448, 448)


def test_phase_is_of_the_first_pair_of_each_span_and_north_is_up(tmp_path: Path) -> None:
    folder = area(tmp_path)
    chip = opened(folder, GUNW).read(FIRST)
    # Of pairs of 120, 12, 0 and 123 days: 12 comes first of 0 to 60, 120 of 72 to 132, none of 140 to 216.
    assert np.nanmean(chip.pixels[:2], axis=(1, 2)) == pytest.approx([102, 2])
    assert chip.pixels[0, 0, 0] == 104, "the file's last row, its northernmost"
    assert np.isnan(chip.pixels[2]).all()
    assert not chip.valid.any()


def test_attributes_of_netcdf_count(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = netcdf(tmp_path / "a.nc", "coherence", np.full((4, 1, 2, 3), 40.0), season=("winter", "spring", "summer", "fall"),
                  deltadays=(36,), x=(2.0, 1.0), y=(1.0, 2.0, 3.0))  # fmt: skip
    with h5py.File(path, "a") as file:
        file["coherence"][0, 0] = [[1, 2, 3], [4, 255, 6]]
        file["coherence"].attrs["_FillValue"] = np.float32(255)
        file["coherence"].attrs["scale_factor"] = 2.0
    found = m3leo_parts.coherence(path)
    np.testing.assert_allclose(found[0], [[0.12, 0.06], [np.nan, 0.04], [0.08, 0.02]], rtol=1e-6)  # (x, y), east and south first
    assert (found[1:] == np.float32(0.8)).all()
    with h5py.File(path, "a") as file:
        file["coherence"][1] = 51
    with pytest.raises(BandError, match="no percent"):
        m3leo_parts.coherence(path)


def test_a_grid_is_fitted_by_area() -> None:
    found = np.array([[[1, 2, 3], [4, np.nan, 6]]], np.float32)
    np.testing.assert_allclose(m3leo_parts.fitted(found, (1, 3)), [[[2.5, 2, 4.5]]])
    halves = np.array([[[4 / 3, 8 / 3], [4, 6]]])
    np.testing.assert_allclose(m3leo_parts.fitted(found, (2, 2)), halves, rtol=1e-6)
    assert np.isnan(m3leo_parts.fitted(found, (4, 6))[0, 2:, 2:4]).all()


def test_a_month_under_cloud_is_not_black(tmp_path: Path) -> None:
    chip = opened(area(tmp_path), "s2rgbm-2020", months="03").read(FIRST)
    assert not chip.valid[:4].any()
    assert chip.valid[4:].all()


def test_no_data_is_no_tree(tmp_path: Path) -> None:
    truth = opened(area(tmp_path), "s1grd-2020").read(FIRST).truth
    assert truth is not None
    assert (truth[0, :2] == UNKNOWN).all(), "WorldCover 0 is not its first class"
    assert set(np.unique(truth)) == {0, 7, 10, UNKNOWN}


def test_statistics_are_of_what_was_observed(tmp_path: Path) -> None:
    found = fit(opened(area(tmp_path), "gssic").chips())
    assert found.mean == pytest.approx((0.22, 0.32, 0.02, 0.12)), "sums over what was seen, divided by how much was seen"


def test_what_one_component_lacks_is_counted(tmp_path: Path) -> None:
    folder = area(tmp_path)
    (folder / "gssic" / f"{FIRST}.nc").unlink()
    found = opened(folder, "s1grd-2020,gssic")
    assert (len(found.ids()), found.absent) == (3, (f"gssic/{FIRST}.nc",))


def test_components_of_ones_own(tmp_path: Path) -> None:
    folder = area(tmp_path)
    for k in range(4):
        tif(folder / "ndvi" / f"{k:013x}.tif", np.linspace(-1, 1, SIDE**2, dtype=np.float32).reshape(1, SIDE, SIDE), nodata=-1)
        tif(folder / "crop" / f"{k:013x}.tif", (np.arange(SIDE**2, dtype=np.uint8) % 3).reshape(1, SIDE, SIDE), nodata=2)
    chip = opened(folder, "ndvi", truth="crop", classes="fallow,wheat").read(FIRST)
    assert (chip.bands, chip.unit) == (("ndvi.band-1",), "relative")
    assert np.isnan(chip.pixels[0, 0, 0])
    assert chip.truth is not None
    assert chip.truth[0, :3].tolist() == [0, 1, UNKNOWN]
    of_tile = opened(folder, "s1grd-2020", truth="ndvi").read(FIRST)
    assert of_tile.target == pytest.approx(np.linspace(-1, 1, SIDE**2)[1:].mean())
    for parts, settings in (("ndwi", {}), ("s1grd-2020", {"orbit": "polar"}), ("s2rgbm-2020", {"months": "13"})):
        with pytest.raises(UnknownNameError):
            opened(folder, parts, **settings)
