"""`aftermap explain`: attention without seams, unseen ground left out, references of both kinds, the record, the words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from aftermap import raster, vector
from aftermap.attended import Look, most
from aftermap.attention import open_onlooker
from aftermap.card import Card
from aftermap.cli import main
from aftermap.errors import InputRefusedError, UsageError
from aftermap.explain import Options, explain
from aftermap.model import Spec, build, save_weights
from aftermap.reference import open_reference
from aftermap.scorer import LayerBands
from aftermap.tiles import Window
from aftermap.torchdoor import torch
from tests.conftest import flood_pair, grid, write

F32 = npt.NDArray[np.float32]
TOKEN = Spec("vit_micro8", "token", (2,), gives="embedding", side=32)
SHAPE = (76, 100)
BOTH = ("VV", "VH")


def saved(folder: Path, spec: Spec = TOKEN, **facts: Any) -> Path:
    """A model folder of random weights, without the graph, which nothing here reads."""
    folder.mkdir()
    save_weights(folder, build(spec))
    card = Card(
        name="looks", hazard="flood", classes=("flood",), inputs=(LayerBands("after", BOTH, "dB"),), mean=(-11.0, -18.0),
        std=(4.0, 4.0), halo_px=0, multiple_of=8, training_data="none", licence="", made_by="", sha256={}, gives=spec.gives,
        chip_px=32,
    )  # fmt: skip
    replace(card, **facts).write(folder)
    return folder


@pytest.fixture
def flood(tmp_path: Path) -> tuple[Path, Path]:
    """A small radar scene with a corner that was not seen, and its water."""
    _, after, wet = flood_pair(SHAPE)
    after[:, :20, :30] = np.nan
    codes = wet.astype(np.int16)
    codes[:, 90:] = -1
    image = write(tmp_path / "after.tif", after, grid(SHAPE), BOTH, unit="dB", nodata=float("nan"))
    return image, write(tmp_path / "truth.tif", codes[None], grid(SHAPE), ("truth",))


@dataclass(frozen=True)
class Plain:
    """Looks at each patch as much as its first pixel says; its token is the place in the square and the mean."""

    side: int
    patch: int = 4
    heads: int = 1
    width: int = 2

    def seen(self, pixels: F32) -> npt.NDArray[np.bool_]:
        return np.asarray(np.isfinite(pixels[0]))

    def __call__(self, pixels: F32) -> tuple[F32, F32]:
        own = np.nan_to_num(pixels[:, :: self.patch, :: self.patch])
        return own / own.sum(), np.concatenate([np.indices(own.shape[1:])[:1].astype(np.float32), own])


def looks(pixels: F32, side: int, block_px: int = 1024) -> list[F32]:
    """[attention, kept, tokens] (plane, row, col) of the whole."""
    look = Look(Plain(side), (pixels.shape[1], pixels.shape[2]), lambda w: pixels[:, *w.slices], 0.5, block_px)
    whole = [np.full((n, *look.patches), np.nan, np.float32) for n in (1, 2, 2)]
    for seen in look.over(look.windows()):
        for into, part in zip(whole, (seen.attention, seen.kept, seen.tokens), strict=True):
            into[:, *seen.window.slices] = part
    return whole


def test_one_square_is_its_attention_and_1_is_as_much_as_anywhere() -> None:
    pixels = np.random.default_rng(0).uniform(1, 2, (1, 30, 22)).astype(np.float32)
    pixels[:, :8, :8] = np.nan
    attention, _, _ = looks(pixels, 32)
    assert np.isnan(attention[0, :2, :2]).all()
    own = np.where(np.isnan(attention[0]), np.nan, pixels[0, ::4, ::4])
    np.testing.assert_allclose(attention[0], own / np.nanmean(own), rtol=1e-6)


def test_blocks_show_nowhere() -> None:
    pixels = np.random.default_rng(1).uniform(1, 2, (1, 70, 130)).astype(np.float32)
    pixels[:, 30:50, 20:90] = np.nan
    for whole, cut in zip(looks(pixels, 16), looks(pixels, 16, block_px=24), strict=True):
        np.testing.assert_array_equal(whole, cut)


def test_squares_show_no_seam() -> None:
    """A scene that is alike everywhere is 1 everywhere, and what is told of places within a square changes by small steps."""
    attention, _, tokens = looks(np.full((1, 96, 96), 3, np.float32), 32)
    np.testing.assert_allclose(attention, 1, rtol=1e-6)
    assert np.abs(np.diff(tokens[0], axis=0)).max() < 2  # squares laid side by side jump by 7


def test_mass_keeps_the_fewest() -> None:
    plane = np.array([[4, 1, np.nan], [3, 2, 0]], np.float32)
    assert most(plane, 0.4).astype(int).tolist() == [[1, 0, 0], [0, 0, 0]]
    assert most(plane, 0.6).astype(int).tolist() == [[1, 0, 0], [1, 0, 0]]
    assert most(plane, 1).astype(int).tolist() == [[1, 1, 0], [1, 1, 0]]


def test_scene_of_one_square_is_what_the_encoder_says(tmp_path: Path) -> None:
    image = flood_pair((32, 32))[1]
    path = write(tmp_path / "after.tif", image, grid((32, 32)), BOTH, unit="dB")
    explain(saved(tmp_path / "m"), [path], out=tmp_path / "out")
    with torch.no_grad():
        normal = (torch.from_numpy(image) - torch.tensor([[[-11.0]], [[-18.0]]])) / 4
        own = build(TOKEN).eval().encoder.attention(normal[None])[0].numpy()  # type: ignore[operator]
    found = raster.read_window(tmp_path / "out/attention.tif", Window(0, 0, 32, 32), range(1, 6))
    wanted = (own / own.mean(axis=(1, 2), keepdims=True)).repeat(8, axis=1).repeat(8, axis=2)
    np.testing.assert_allclose(found[:4], wanted, rtol=1e-4)
    np.testing.assert_allclose(found[4], wanted.mean(axis=0), rtol=1e-4)


def test_folder_is_the_same_twice_and_leaves_out_what_was_not_seen(tmp_path: Path, flood: tuple[Path, Path]) -> None:
    image, truth = flood
    model = saved(tmp_path / "m")
    records = [
        explain(model, [image], out=tmp_path / out, reference=truth, options=Options(mass=0.6, clusters=4)) for out in ("a", "b")
    ]
    assert records[0] == records[1] == json.loads((tmp_path / "a/explain.json").read_text())
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert names == {"attention.tif", "clusters.tif", "mask.tif", "explain.json"}
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    unseen = np.zeros(SHAPE, bool)
    unseen[:20, :30] = True
    everywhere = Window(0, 0, *SHAPE)
    attention = raster.read_window(tmp_path / "a/attention.tif", everywhere, range(1, 6))
    np.testing.assert_array_equal(np.isnan(attention), np.broadcast_to(unseen, attention.shape))
    clusters = raster.read_window(tmp_path / "a/clusters.tif", everywhere)[0]
    np.testing.assert_array_equal(clusters == 255, unseen)
    assert set(clusters[~unseen].tolist()) <= {1, 2, 3, 4}
    assert raster.facts(tmp_path / "a/attention.tif").grid == grid(SHAPE)


def test_record_says_how_like_the_reference_it_is(tmp_path: Path, flood: tuple[Path, Path]) -> None:
    image, truth = flood
    found = explain(saved(tmp_path / "m"), [image], out=tmp_path / "a", reference=truth, options=Options(clusters=4))["likeness"]
    known = open_reference(truth, grid(SHAPE)).read(Window(0, 0, *SHAPE))
    known[:20, :30] = -1
    counted = {c["class"]: c["choosing_px"] + c["scored_px"] for c in found["classes"]}
    assert counted == {"class 0": (known == 0).sum(), "class 1": (known == 1).sum()}
    of = {(r["of"], r["class"]): r for r in found["best"]}
    assert of["bands", "class 1"]["iou"] > 0.5  # water is dark, and no network is needed to see it
    assert of["bands", "class 1"]["above"] is False
    assert {r["of"] for r in found["probes"]} > {"tokens", "attention", "tokens and attention", "bands", "edges"}
    assert len(found["planes"]) == 2 * (5 + 2 + 2)


def test_other_jobs_are_refused_and_the_same_is_not_done_again(tmp_path: Path, flood: tuple[Path, Path]) -> None:
    model, out = saved(tmp_path / "m"), tmp_path / "a"
    first = explain(model, [flood[0]], out=out)
    before = (out / "attention.tif").stat().st_mtime_ns
    assert explain(model, [flood[0]], out=out) == first
    assert (out / "attention.tif").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="another explanation"):
        explain(model, [flood[0]], out=out, options=Options(clusters=3))
    explain(model, [flood[0]], out=out, options=Options(clusters=3, overwrite=True))


def test_without_crs_in_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "after.tif", flood_pair((40, 56))[1], grid((40, 56), crs=None), BOTH, unit="dB")
    record = explain(saved(tmp_path / "m"), [path], out=tmp_path / "out")
    assert record["grid"]["crs"] is None
    assert raster.facts(tmp_path / "out/clusters.tif").grid.affine == raster.PIXEL_SPACE


def test_each_band_by_itself(tmp_path: Path) -> None:
    spec = replace(TOKEN, fusion="each")
    onlooker = open_onlooker(saved(tmp_path / "m", spec))
    pixels = flood_pair((32, 32))[1]
    encoder: Any = build(spec).eval().encoder
    normal = torch.from_numpy((pixels - onlooker.mean) / onlooker.std)
    with torch.no_grad():
        attention, tokens = (one.numpy() for one in encoder.sight(normal[:, None]))
    for given, there in ((pixels, [0, 1]), (np.stack([pixels[0], np.full((32, 32), np.nan, np.float32)]), [0])):
        found = onlooker(given)
        np.testing.assert_allclose(found[0], attention[there].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(found[1], tokens[there].mean(axis=0), atol=1e-4)
        assert onlooker.seen(given).all()


def test_own_level_of_the_scene(tmp_path: Path) -> None:
    """A model of pixels at each scene's own level sees no difference where all of a scene is 7 dB brighter."""
    image, model = flood_pair((32, 32))[1], saved(tmp_path / "m", normalise="scene")
    for k, level in enumerate((0, 7)):
        path = write(tmp_path / f"{k}.tif", image + np.float32(level), grid((32, 32)), BOTH, unit="dB")
        explain(model, [path], out=tmp_path / f"out{k}")
    first, second = (raster.read_window(tmp_path / f"out{k}/attention.tif", Window(0, 0, 32, 32)) for k in (0, 1))
    np.testing.assert_allclose(first, second, rtol=1e-4)


def test_polygons_are_a_reference_too(tmp_path: Path) -> None:
    on = grid((20, 30))
    shape = vector.place(vector.polygons([[[(5, 5), (15, 5), (15, 10), (5, 10), (5, 5)]]]), on.affine)
    layer = vector.Layer("hazard", "Polygon", {})
    with vector.GeoPackageWriter(tmp_path / "h.gpkg", on, [layer]) as out:
        out.write("hazard", shape, {})
    found = open_reference(tmp_path / "h.gpkg", on)
    codes = found.read(Window(0, 0, 20, 30))
    assert (found.codes, codes.sum(), codes[7, 10], codes[4, 10]) == ((0, 1), 50, 1, 0)
    with pytest.raises(InputRefusedError, match="wholly beside"):
        open_reference(tmp_path / "h.gpkg", grid((20, 30), origin=(500000, 5350000)))


def test_references_that_say_nothing_are_refused(tmp_path: Path) -> None:
    on = grid((20, 30))
    shares = write(tmp_path / "s.tif", np.full((1, 20, 30), 0.5, np.float32), on, ("share",))
    with pytest.raises(InputRefusedError, match="fractions"):
        open_reference(shares, on)
    unknown = write(tmp_path / "u.tif", np.full((1, 20, 30), 255, np.uint8), on, ("truth",))
    with pytest.raises(InputRefusedError, match="knows no pixel"):
        open_reference(unknown, on)


def test_models_and_scenes_that_do_not_fit_are_refused(tmp_path: Path, pair: Callable[..., tuple[Path, Path]]) -> None:
    _, after = pair((40, 40))
    other = saved(tmp_path / "r", Spec("resnet18", "mean", (2,), gives="embedding"))
    with pytest.raises(UsageError, match=r"resnet18.*vit_t16"):
        explain(other, [after], out=tmp_path / "out")
    optical = saved(tmp_path / "o", inputs=(LayerBands("after", ("red", "nir"), "reflectance"),))
    with pytest.raises(InputRefusedError, match="red, nir"):
        explain(optical, [after], out=tmp_path / "out")
    unseen = write(tmp_path / "n.tif", np.full((2, 40, 40), np.nan, np.float32), grid((40, 40)), BOTH, unit="dB")
    with pytest.raises(InputRefusedError, match="no pixel"):
        explain(saved(tmp_path / "m"), [unseen], out=tmp_path / "out")
    with pytest.raises(UsageError, match=r"0\.6"):
        Options(mass=1.5)


def test_in_words(tmp_path: Path, flood: tuple[Path, Path]) -> None:
    said = CliRunner().invoke(
        main,
        ["explain", str(saved(tmp_path / "m")), str(flood[0]), "--reference", str(flood[1]), "--clusters", "3",
         "-o", str(tmp_path / "out"), "--quiet"],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    assert "4 heads and their mean" in said.output
    assert "probe of tokens and attention" in said.output
    assert "clusters of bands: purity" in said.output
    nothing = CliRunner().invoke(main, ["explain", str(tmp_path / "m"), "-o", str(tmp_path / "none")])
    assert nothing.exit_code == 2
    assert "no image is given" in nothing.output
