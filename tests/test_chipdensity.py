"""A model of landslide density on a map: it grades cells and orders them, and makes no extent."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

import aftermap as am
from aftermap import finish, learn, recipe
from aftermap.card import Card
from aftermap.chipdensity import middles
from aftermap.chips import Chip
from aftermap.datasets.dataset import Dataset, Facts, Member
from aftermap.errors import AftermapError, InputRefusedError, UsageError
from aftermap.journal import sha256, verify
from aftermap.model import Spec, build, save
from aftermap.page import Network as Said
from aftermap.page import Step, Train
from aftermap.running import openvino
from aftermap.samples import survey
from aftermap.scorer import LayerBands
from tests.conftest import grid, write

CLASSES = ("none", "up to 25 per km2", "over 25 per km2")
SHAPE, CHIP = (80, 120), 32


def grader(folder: Path, *, classes: tuple[str, ...] = CLASSES, **card: Any) -> Path:
    """A model folder: the class whose level is nearest to the mean VH after the event: -20, -15, -10 dB."""
    openvino()
    from openvino import Model, save_model
    from openvino import opset13 as ops

    raw = ops.parameter([-1, 1, -1, -1], np.float32, name="pixels")
    missing = ops.is_nan(raw)
    known = ops.reduce_sum(ops.select(missing, ops.constant(np.float32(0)), raw), [2, 3], keep_dims=False)
    seen = ops.reduce_sum(ops.select(missing, ops.constant(np.float32(0)), ops.constant(np.float32(1))), [2, 3], keep_dims=False)
    levels = ops.constant(np.linspace(-20, -10, len(classes), dtype=np.float32)[None])
    apart = ops.multiply(ops.abs(ops.subtract(ops.divide(known, seen), levels)), ops.constant(np.float32(-1)))
    folder.mkdir(parents=True)
    save_model(Model([ops.softmax(apart, 1)], [raw], folder.name), str(folder / "graph.xml"), compress_to_fp16=False)
    facts: dict[str, Any] = {
        "hazard": "landslide", "gives": "class", "chip_px": CHIP, "halo_px": 0, "multiple_of": 1, "training_data": "none",
        "inputs": (LayerBands("after", ("VH",), "dB"),), "mean": (0.0,), "std": (1.0,), "licence": "Apache-2.0",
        "made_by": "tests/test_chipdensity.py",
    }  # fmt: skip
    hashes = {f: sha256(folder / f) for f in ("graph.xml", "graph.bin")}
    Card(name=folder.name, classes=classes, sha256=hashes, **{**facts, **card}).write(folder)
    return folder


def images(folder: Path) -> tuple[Path, Path]:
    """Before and after: VH is -20 dB at the left, -15 and -10 dB in the next cells, the fourth of 24 px; the middle row of cells
    lacks its lower half and one line more, the last has 16 px. Nothing changed but for a patch at the left."""
    rng = np.random.default_rng(1)
    vh = np.repeat(np.array([-20.0, -15, -10, -12]), CHIP)[: SHAPE[1]]
    pair = [np.broadcast_to(vh, (2, *SHAPE)) + rng.normal(0, 0.2, (2, *SHAPE)) for _ in range(2)]
    pair[1][:, 4:16, 4:16] += 9
    pair[1][:, 47:64] = np.nan
    on = grid(SHAPE)
    names = ("before.tif", "after.tif")
    old, new = (
        write(folder / n, p.astype(np.float32), on, ("VV", "VH"), unit="dB", nodata=float("nan"))
        for n, p in zip(names, pair, strict=True)
    )
    return old, new


def listed(out: Path) -> list[dict[str, str]]:
    with (out / "priority.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_what_classes_count_as() -> None:
    assert middles(CLASSES) == (0, 12.5, 50)
    assert middles(("none", "up to 5 per km2", "5 to 25 per km2", "over 25 per km2")) == (0, 2.5, 15, 50)
    for other in (("artificial", "natural"), ("none",), CLASSES[::-1], ("none", "over 25")):
        assert middles(other) == ()


def test_a_model_grades_the_cells_of_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = images(tmp_path)
    options = am.Options(model=str(grader(tmp_path / "heads")), precision="f32")
    out = tmp_path / "out"
    mapped = am.map(after, before, out=out, hazard="landslide", options=options)
    run = mapped.made_by
    assert run["methods"]["combined"] == ["log-ratio"], "the model makes no extent"
    assert run["parameters"]["density"] == {
        "asked_m": None, "cell_px": [CHIP, CHIP], "rule": "the chips of heads", "model": "heads", "training_data": "none",
        "licence": "Apache-2.0",
    }  # fmt: skip
    assert run["models"]["heads"]["counts_as_per_km2"] == dict(zip(CLASSES, (0, 12.5, 50), strict=True))
    assert cog_validate(out / "density_class.tif", strict=True)[0]
    with rasterio.open(out / "density_class.tif") as src:
        grade = src.read(1)
        assert "2 over 25 per km2" in src.descriptions[0]
    np.testing.assert_array_equal(grade, [[0, 1, 2, 2], [255] * 4, [0, 1, 2, 255]])
    with rasterio.open(out / "density.tif") as src:
        bands = src.read()
    assert bands.shape == (3 + 3, 3, 4), "share, polygons and expected per km2, then each class"
    assert np.isfinite(bands[0]).all()
    expected = np.tensordot([0, 12.5, 50], bands[3:], axes=1)
    np.testing.assert_allclose(bands[2][grade != 255], expected[grade != 255], rtol=1e-6)
    np.testing.assert_allclose(bands[3:, grade != 255].sum(axis=0), 1, atol=1e-6)
    rows = listed(out)
    assert [r["density_class"] for r in rows[:7]] == [CLASSES[k] for k in (2, 2, 2, 1, 1, 0, 0)]
    graded = [float(r["expected_per_km2"]) for r in rows[:7]]
    assert graded == sorted(graded, reverse=True)
    assert [r["by"] for r in rows] == ["heads"] * 7 + ["log-ratio"] * 5
    assert max(rows, key=lambda r: float(r["affected_ha"]))["rank"] in ("6", "7"), "what is mapped is not what it goes by"
    assert (out / "styles" / "density_class.qml").exists()
    assert "density_class.tif" in (out / "report.html").read_text()
    assert verify(out) == []
    monkeypatch.setattr(finish, "WINDOW_PX", 48)
    am.map(after, before, out=tmp_path / "small", hazard="landslide", options=options)
    for name in ("density.tif", "density_class.tif", "priority.csv"):
        assert (tmp_path / "small" / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize(
    ("card", "options", "error", "said"),
    [
        ({"chip_px": 0}, {}, UsageError, "does not say how large its chips are"),
        ({"classes": ("artificial", "natural")}, {}, UsageError, "gives a class of a whole chip"),
        ({"hazard": "flood"}, {}, UsageError, "maps flood, not landslide"),
        ({}, {"density_m": 320}, UsageError, "--density-m does not go with heads"),
        ({}, {"only": ("extent",)}, UsageError, "--only does not go with heads"),
        ({}, {"flips": True}, UsageError, "--flips is of a model"),
        ({}, {"memory_mb": 420}, UsageError, "too little for a chip of heads"),
        ({"inputs": (LayerBands("dem", ("slope",), "degrees"),)}, {}, InputRefusedError, "dem slope in degrees, but there is no"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, card: dict[str, Any], options: dict[str, Any], error: type[AftermapError], said: str
) -> None:
    before, after = images(tmp_path)
    how = am.Options(model=str(grader(tmp_path / "heads", **card)), precision="f32", **options)
    with pytest.raises(error, match=said):
        am.map(after, before, out=tmp_path / "out", hazard="landslide", options=how)


def test_two_models_of_density_are_refused(tmp_path: Path) -> None:
    before, after = images(tmp_path)
    models = tuple(str(grader(tmp_path / name)) for name in ("one", "two"))
    with pytest.raises(UsageError, match="are all models of density"):
        am.map(after, before, out=tmp_path / "out", hazard="landslide", options=am.Options(model=models))


def test_a_trained_kind_of_network_reads_the_ground(tmp_path: Path) -> None:
    """As a recipe saves it: pooled features, radar of both dates and what the ground is like."""
    before, after = images(tmp_path)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    dem = write(tmp_path / "dem.tif", np.asarray(400 + 3.0 * y + np.hypot(y, x), np.float32)[None], grid(SHAPE), ("elevation",))
    inputs = (
        LayerBands("after", ("VV", "VH"), "dB"), LayerBands("before", ("VV", "VH"), "dB"),
        LayerBands("dem", ("elevation",), "metres"), LayerBands("dem", ("slope",), "degrees"),
        LayerBands("dem", ("aspect_sin", "aspect_cos"), "1"), LayerBands("dem", ("curvature",), "1/m"),
    )  # fmt: skip
    mean, std = (-12.0, -15, -12, -15, 500, 20, 0, 0, 0), (4.0, 4, 4, 4, 80, 9, 1, 1, 0.01)
    card = Card(
        name="resnet", hazard="landslide", classes=CLASSES, inputs=inputs, mean=mean, std=std, halo_px=0, multiple_of=32,
        training_data="none", licence="Apache-2.0", made_by="a test", sha256={}, gives="class", chip_px=CHIP, normalise="scene",
    )  # fmt: skip
    save(tmp_path / "resnet", build(Spec("resnet10t", "pool", (2, 2, 5), 3, "early", gives="class")), card)
    options = am.Options(model=str(tmp_path / "resnet"), precision="f32")
    mapped = am.map(after, before, out=tmp_path / "out", dem=dem, hazard="landslide", options=options)
    with rasterio.open(tmp_path / "out" / "density.tif") as src:
        likely = src.read()[3:]
    assert np.isnan(likely[0]).sum() == 5
    np.testing.assert_allclose(np.nansum(likely, axis=0)[np.isfinite(likely[0])], 1, atol=1e-5)
    assert len(np.unique(likely[1][np.isfinite(likely[1])])) > 4, "cells differ"
    assert mapped.made_by["methods"]["lead"] == "log-ratio"


def test_what_a_recipe_learns_orders_a_map(tmp_path: Path) -> None:
    names = [f"{event}{k}" for event in "abc" for k in range(3)]
    members = {n: Member(n, "all", n[0], {}) for n in names}

    def load(member: Member) -> Chip:
        k = int(member.name[1])
        pixels = np.random.default_rng(k).normal(5 * k - 20, 1, (2, 30, 31)).astype(np.float32)
        return Chip(pixels, np.ones((30, 31), bool), None, ("VV", "VH"), "dB", member.name, member.event, target=k)

    data = Dataset("own", tmp_path, Facts("t", "l", "", ""), ("VV", "VH"), "dB", CLASSES, members, load)
    steps = (Step(Train({"ce": 1.0}, "classify", steps=2, batch=3)),)
    asked = recipe.Recipe("landslide", ("after",), Said("mobilenetv3_small_050"), steps, name="heads")
    split = {"train": ["a"], "validation": ["b"], "test": ["c"]}
    samples = survey(data, ["after"], split=split, of_chips=True)
    card = learn.learn(tmp_path / "m", asked, samples, seed=0, name="heads", made_by="a test", progress=lambda *_: None)
    row, _ = learn.row(asked, samples, tmp_path / "m", card, progress=lambda *_: None)
    assert len(row["scores"]["auc_per_class"]) == 3
    before, after = images(tmp_path)
    options = am.Options(model=str(tmp_path / "m"), precision="f32")
    mapped = am.map(after, before, out=tmp_path / "out", hazard="landslide", options=options)
    assert mapped.made_by["parameters"]["density"]["cell_px"] == [32, 32]
    assert [r["by"] for r in listed(tmp_path / "out")][:7] == ["heads"] * 7
