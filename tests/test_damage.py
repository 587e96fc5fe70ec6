"""Several classes: scores by hand, truth that stays apart from chips to map, footprints graded by a network, labels of chips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio.raw
import pytest
import shapely
from click.testing import CliRunner

import aftermap as am
from aftermap import card as cards
from aftermap import learn, recipe
from aftermap.card import Card
from aftermap.chips import Chip
from aftermap.cli import main
from aftermap.confusion import Confusion
from aftermap.datasets.dataset import Dataset, Facts, Member
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.export import Graph
from aftermap.model import Spec, build
from aftermap.page import Network as Said
from aftermap.page import Step, Train
from aftermap.products.buildings import DAMAGE, UNGRADED
from aftermap.samples import choose_codes, survey
from aftermap.simulate import building
from aftermap.tiles import Window
from aftermap.torchdoor import torch
from tests.conftest import grid, write
from tests.networks import PAINT, painted
from tests.test_recipe import page, ran

torch.set_num_threads(1)
CLASSES = tuple(PAINT)
SHAPE = (120, 160)
HOUSES = {
    (10, 10): "no-damage", (10, 50): "minor-damage", (10, 90): "major-damage", (50, 10): "destroyed", (50, 50): "background",
    (50, 90): "destroyed", (90, 60): "no-damage",
}  # fmt: skip
"""First pixel of 16 x 20 px footprints, and what lies there after the event; the last but one was not observed."""
UNSEEN = (50, 90)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cards, "BUNDLED", tmp_path / "bundled")


def test_xview2_by_hand() -> None:
    # Rows are truth: background, no-damage, minor, major, destroyed. The challenge scores grades where the truth has a building.
    cells = np.array([[90, 4, 0, 0, 6], [2, 30, 8, 0, 0], [0, 5, 10, 5, 0], [0, 0, 0, 8, 2], [5, 0, 0, 5, 20]])
    truth, mapped = (np.repeat(axis.ravel(), cells.ravel()) for axis in np.indices(cells.shape))
    found = Confusion.of(CLASSES, truth, mapped) + Confusion.none(CLASSES)
    np.testing.assert_array_equal(found.cells, cells)
    # A class against all: false alarms on background do not count, a building called background is missed.
    none, minor = 2 * 30 / (2 * 30 + 10 + 5), 2 * 10 / (2 * 10 + 10 + 8)
    major, gone = 2 * 8 / (2 * 8 + 2 + 10), 2 * 20 / (2 * 20 + 10 + 2)
    damage = 4 / sum(1 / (f + 1e-6) for f in (none, minor, major, gone))
    localised = 2 * 93 / (2 * 93 + 10 + 7)
    scores = found.scores()
    assert scores["localisation_f1"] == pytest.approx(localised)
    assert scores["damage_f1"] == pytest.approx(damage)
    assert scores["xview2"] == pytest.approx(0.3 * localised + 0.7 * damage)
    assert scores["f1 of destroyed"] == pytest.approx(2 * 20 / (2 * 20 + 10 + 8))
    assert scores["accuracy"] == pytest.approx(158 / 200)
    assert found.commonest().scores()["accuracy"] == 0.5
    assert found.commonest().scores()["damage_f1"] == pytest.approx(1e-6)
    assert "xview2" not in Confusion.none(CLASSES[1:]).scores()
    # A class that the truth lacks is no part of the mean.
    lacking = Confusion.of(CLASSES, np.array([0, 0, 1]), np.array([0, 2, 1]))
    assert lacking.macro_iou == pytest.approx((0.5 + 1) / 2)


def scene(folder: Path) -> tuple[Path, Path]:
    """before.tif and after.tif of painted houses on painted ground."""
    rng = np.random.default_rng(0)
    image = np.full(SHAPE, PAINT["background"], float)
    for (r, c), name in HOUSES.items():
        image[r : r + 16, c : c + 20] = PAINT[name]
    image[92:98, 60:80] = PAINT["destroyed"]  # less than half of a house that stands
    paths = []
    for name in ("before", "after"):
        pixels = np.stack([image + rng.normal(0, 2, SHAPE) for _ in range(3)]).round().clip(1, 255).astype(np.uint8)
        if name == "after":
            pixels[:, UNSEEN[0] - 2 : UNSEEN[0] + 12, UNSEEN[1] - 5 :] = 0
        on = grid(SHAPE, gsd=0.5)
        paths.append(write(folder / f"{name}.tif", pixels, on, ("red", "green", "blue"), nodata=0, unit="digital_number"))
    return paths[0], paths[1]


def built_up(folder: Path) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    meta, _, wkb, columns = pyogrio.raw.read(folder / "map.gpkg", layer="built_up")
    return np.asarray(shapely.from_wkb(wkb)), dict(zip(meta["fields"], columns, strict=True))


def footprints(folder: Path) -> Path:
    placed = [shapely.box(420000 + c / 2, 5350000 - r / 2, 420010 + c / 2, 5349992 - r / 2) for r, c in HOUSES]
    path = folder / "houses.gpkg"
    pyogrio.raw.write(path, shapely.to_wkb(placed), [], [], driver="GPKG", geometry_type="Polygon", crs="EPSG:32633")
    return path


def test_footprints_are_graded_by_a_network_and_what_was_not_seen_is_not(tmp_path: Path) -> None:
    (before, after), model, houses = scene(tmp_path), painted(tmp_path / "damage"), footprints(tmp_path)
    of_class = dict(zip(CLASSES, (UNGRADED, *DAMAGE), strict=True))  # no building seen on a footprint: nothing to grade
    expected = [UNGRADED if place == UNSEEN else of_class[name] for place, name in HOUSES.items()]
    for name, options in (
        ("alone", {"baseline": False}), ("beside", {}), ("small", {"baseline": False, "memory_mb": 520}),
    ):  # fmt: skip
        said = am.Options(model=str(model), precision="f32", **options)
        mapped = am.map(after, before, out=tmp_path / name, hazard="building", footprints=houses, options=said)
        _, columns = built_up(tmp_path / name)
        assert list(columns["damage_gra"]) == expected
        sure = [s for s, grade in zip(columns["score"], expected, strict=True) if grade != UNGRADED]
        assert sure[:4] == pytest.approx([1] * 4, abs=0.02)
        assert sure[4] == pytest.approx(10 / 16, abs=0.02)
        assert np.isnan(columns["score"][list(HOUSES).index(UNSEEN)])
        assert "network damage" in mapped.made_by["buildings"]["graded_by"]
    for file in ("map.gpkg", "summary.csv", "run.json"):
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "small" / file).read_bytes()
    alone, beside = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("alone", "beside"))
    assert alone["classes"] == ["major-damage or destroyed"]
    extent = am.HazardMap(tmp_path / "alone").extent(Window(0, 0, *SHAPE))
    assert extent[15, 100] == extent[55, 20] == 1, "the classes of the hazard are mapped"
    assert extent[15, 60] == extent[5, 5] == 0
    assert beside["methods"]["lead"] == "building-change", "a card that may not lead leaves the map to the other method"
    assert "does not lead the map: painted" in beside["buildings"]["graded_by"]


def test_without_footprints_the_network_outlines_its_own(tmp_path: Path) -> None:
    (before, after), model = scene(tmp_path), painted(tmp_path / "damage")
    options = am.Options(model=str(model), precision="f32", baseline=False)
    run = am.map(after, before, out=tmp_path / "map", hazard="building", options=options).made_by
    shapes, columns = built_up(tmp_path / "map")
    found = {tuple(np.round((5350000 - s.bounds[3], s.bounds[0] - 420000)) * 2): g for s, g in
             zip(shapes, columns["damage_gra"], strict=True)}  # fmt: skip
    whole = {place: DAMAGE[CLASSES.index(n) - 1] for place, n in HOUSES.items() if n != "background" and place != UNSEEN}
    assert {k: v for k, v in found.items() if k in whole} == whole
    assert all(s.area == pytest.approx(80) for s in shapes if s.bounds[3] > 5349990)
    assert len(found) == len(whole) + 1, "of the house that was cut off, what was seen"
    assert run["buildings"]["outlines"] == "the network's own"
    empty = write(tmp_path / "empty.tif", np.full((3, *SHAPE), PAINT["background"], np.uint8), grid(SHAPE, gsd=0.5),
                  ("red", "green", "blue"), unit="digital_number")  # fmt: skip
    mapped = am.map(empty, before, out=tmp_path / "none", hazard="building", options=options)
    assert [float(r["value"]) for r in mapped.summary if r["quantity"] == "buildings_total"] == [0]


def test_a_network_of_several_classes_gives_their_sum_as_the_hazard(tmp_path: Path) -> None:
    network = Network.open(painted(tmp_path / "m", threshold=0.2), precision="f32")
    assert network.classes == ("major-damage or destroyed", *CLASSES)
    assert network.places == (1, 2, 3, 4, 5)
    one = Network.open(painted(tmp_path / "one", hazard_classes=("destroyed",)), precision="f32")
    assert one.classes == ("destroyed", *CLASSES)
    red = np.array([[30.0, 205.0, 153.0, 180.0]], np.float32)
    scores = network(np.broadcast_to(red, (1, 6, 1, 4)).copy(), np.ones((1, 1, 4), bool))[0]  # (class, y, x)
    np.testing.assert_allclose(scores[1:].sum(axis=0), 1, atol=1e-5)
    together = scores[4] + scores[5]
    np.testing.assert_allclose(scores[0], np.interp(together, [0, 0.2, 1], [0, 0.5, 1]), atol=1e-5)
    assert 0.05 < together[0, 2] < 0.2
    with pytest.raises(InputRefusedError, match="none of its classes"):
        painted(tmp_path / "wrong", hazard_classes=("burnt",))
    chips_only = painted(tmp_path / "chips-only", gives="class")
    with pytest.raises(UsageError, match="gives a class of a whole chip"):
        am.map(*scene(tmp_path)[::-1], out=tmp_path / "o", hazard="building", options=am.Options(model=str(chips_only)))


RECIPE = """
hazard = "building"
inputs = ["after", "before"]
classes = ["background", "no-damage", "minor-damage", "major-damage", "destroyed"]
split = { train = ["a"], validation = ["b"], test = ["c"] }
chips = { size = 32, upsample = 2 }
model = { encoder = "mobilenetv3_small_050", decoder = "unet", fusion = "siamese", widths = [4, 4, 8, 8, 16] }
[[steps]]
train = { losses = { ce = 1, dice = 1 }, class_weights = [1, 1, 1, 1, 1], steps = 2, batch = 2 }
[map]
hazard_classes = ["destroyed"]
"""


def test_classes_stay_apart_from_chips_to_the_map(tmp_path: Path) -> None:
    before, after = scene(tmp_path)
    truth = np.zeros(SHAPE, np.uint8)
    for (r, c), name in HOUSES.items():
        truth[r : r + 16, c : c + 20] = CLASSES.index(name)
    codes = write(tmp_path / "truth.tif", np.stack([truth > 2, truth]).astype(np.uint8), grid(SHAPE, gsd=0.5), ("hit", "class"),
                  nodata=255)  # fmt: skip
    cut = ["chips", "--after", after, "--before", before, "--truth", codes, "--band", 2, "--size", 32, "--quiet",
           "--classes", ",".join(CLASSES), "--least-valid", 0.5, "-o", tmp_path / "data"]  # fmt: skip
    ran(*cut)
    index = tmp_path / "data" / "index.csv"
    rows = [line.split(",") for line in index.read_text().splitlines()]
    event = rows[0].index("event")
    for number, row in enumerate(rows[1:]):
        row[event] = "abc"[number % 3]
    index.write_text("\n".join(",".join(row) for row in rows) + "\n")
    (row,) = json.loads(ran("run", page(tmp_path / "own.toml", RECIPE), "--on", tmp_path / "data", "-o", tmp_path / "out",
                            "--quiet", "--json"))  # fmt: skip
    cells = np.sum([np.array(one) for one in row["by_event"].values()], axis=0)
    assert cells.shape == (5, 5)
    assert cells.sum() == row["scores"]["scored_px"], "the hazard and the classes are scored on the same pixels"
    assert cells[4].sum() == row["scores"]["tp"] + row["scores"]["fn"]
    for word in ("macro_iou", "macro_f1", "localisation_f1", "damage_f1", "iou of minor-damage"):
        assert row["scores"][word] is not None
    model = next((tmp_path / "out").glob("*/model"))
    card = Card.read(model)
    assert (card.classes, card.hazard_classes, card.decoder) == (CLASSES, ("destroyed",), "unet, siamese")
    ran("map", "--after", after, "--before", before, "--hazard", "building", "--model", model, "--no-baseline", "--footprints",
        footprints(tmp_path), "-o", tmp_path / "map", "--quiet")  # fmt: skip
    _, columns = built_up(tmp_path / "map")
    assert len(columns["damage_gra"]) == len(HOUSES)
    run = json.loads((tmp_path / "map" / "run.json").read_text())
    assert "by the network own" in run["buildings"]["graded_by"]
    assert run["classes"] == ["destroyed"]
    assert columns["damage_gra"][list(HOUSES).index(UNSEEN)] == UNGRADED
    again = CliRunner().invoke(main, [str(w) for w in [*cut[:-1], tmp_path / "other", "--hazard-code", 2]])
    assert "both say what codes mean" in again.output


def test_classes_are_chosen_by_name() -> None:
    np.testing.assert_array_equal(choose_codes(CLASSES, ())[[0, 1, 4, 255]], [0, 1, 1, 255])
    some = choose_codes(CLASSES, ("no-damage", "destroyed"))
    np.testing.assert_array_equal(some[[0, 1, 2, 4, 255]], [255, 0, 255, 1, 255])
    with pytest.raises(UnknownNameError, match="did you mean destroyed"):
        choose_codes(CLASSES, ("background", "destroid"))


def test_a_graph_enlarges_as_training_did() -> None:
    model = build(Spec("mobilenetv3_small_050", "unet", (2,), 3, widths=(4, 4, 8, 8, 16), upsample=2)).eval()
    plain = replace_spec(model, 1)
    image = torch.randn(1, 2, 32, 64, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    with torch.no_grad():
        expected = torch.nn.functional.avg_pool2d(plain(large), 2)
        torch.testing.assert_close(model(image), expected)
        scores = Graph(model, (0.0, 0.0), (1.0, 1.0))(image)
    assert scores.shape == (1, 3, 32, 64)
    torch.testing.assert_close(scores, expected.softmax(dim=1))


def test_siamese_dates_share_the_statistics_that_maps_use() -> None:
    """Batch norm fed date by date would train on statistics of each and map with a mixture."""
    model = build(Spec("mobilenetv3_small_050", "unet", (1, 1), fusion="siamese", widths=(4, 4, 8, 8, 16)))
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0  # what was seen last is all that is remembered
    image = torch.randn(4, 2, 128, 128, generator=torch.Generator().manual_seed(0))
    image[:, 1] = 3 * image[:, 1] + 5
    with torch.no_grad():
        trained, mapped = (one.flatten() for one in (model.train()(image), model.eval()(image)))
    assert torch.corrcoef(torch.stack([trained, mapped]))[0, 1] > 0.98


def replace_spec(model: Any, upsample: int) -> Any:
    """The same weights, the image as it is."""
    other = build(replace(model.spec, upsample=upsample)).eval()
    other.load_state_dict(model.state_dict())
    return other


def labelled(folder: Path, target: Any) -> Dataset:
    """Chips of 30 x 40 px whose brightness tells their label."""
    names = [f"{event}{k}" for event in "abc" for k in range(4)]
    members = {n: Member(n, "all", n[0], {}) for n in names}

    def load(member: Member) -> Chip:
        k = int(member.name[1])
        pixels = np.random.default_rng(k).normal(k, 0.1, (2, 30, 40)).astype(np.float32)
        return Chip(pixels, np.ones((30, 40), bool), None, ("VV", "VH"), "dB", member.name, member.event, target=target(k))

    return Dataset("own", folder, Facts("t", "l", "", ""), ("VV", "VH"), "dB", ("dark", "bright"), members, load)


@pytest.mark.parametrize(
    ("objective", "target", "losses", "words", "gives"),
    [
        ("classify", lambda k: k // 2, {"ce": 1.0}, ("accuracy", "macro_f1", "f1 of bright"), "class"),
        ("classify", lambda k: (1, k // 2), {"ce": 1.0}, ("accuracy", "macro_f1"), "classes"),
        ("regress", lambda k: float(k), {"huber": 1.0}, ("rmse", "r2"), "number"),
    ],
)
def test_labels_of_whole_chips(
    objective: str, target: Any, losses: dict[str, float], words: tuple[str, ...], gives: str, tmp_path: Path
) -> None:
    asked = recipe.Recipe(
        "landslide", ("after",), Said("mobilenetv3_small_050"),
        (Step(Train(losses, objective, steps=2, batch=2)),), name="labels",
    )  # fmt: skip
    split = {"train": ["a"], "validation": ["b"], "test": ["c"]}
    samples = survey(labelled(tmp_path, target), ["after"], split=split, of_chips=True)
    card = learn.learn(tmp_path / "m", asked, samples, seed=0, name="labels", made_by="a test", progress=lambda *_: None)
    row, _ = learn.row(asked, samples, tmp_path / "m", card, progress=lambda *_: None)
    assert card.gives == gives
    assert set(words) <= set(row["scores"])
    assert all(np.isfinite(row["scores"][w]) for w in words)
    assert row["samples"] == {"train": 4, "validation": 4, "test": 4}
    if gives == "number":
        assert row["trivial"]["mean"] == {"rmse": pytest.approx(np.std(range(4))), "r2": 0}
        assert row["by_event"]["c"]["count"] == 4
    if gives == "class":
        assert np.sum(row["by_event"]["c"]) == 4
        assert row["trivial"]["commonest"]["accuracy"] == 0.5
        assert (card.chip_px, len(row["scores"]["auc_per_class"])) == (samples.size, 2)
        assert row["scores"]["macro_auc"] == pytest.approx(np.mean(row["scores"]["auc_per_class"]))
        assert (row["trivial"]["commonest"]["macro_auc"], row["trivial"]["commonest"]["qwk"]) == (0.5, 0)
        assert -1 <= row["scores"]["qwk"] <= 1
    with pytest.raises(InputRefusedError, match="has one label") as refused:
        survey(labelled(tmp_path, target), ["after"], split=split, of_chips=True, size=32)
    assert refused.value.code == "chip-sizes"


def test_simulated_truth_has_the_codes_of_xbd() -> None:
    damaged, grade, house, code = building.block(3, 0, 0, gsd_m=0.5)["truth"]
    np.testing.assert_array_equal(code, np.where(house == 1, grade + 1, 0))
    assert (damaged == (code >= 3)).all()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("classes=['destroyed']", "name at least two"),
        ("map.hazard_classes=['destroid']", "did you mean destroyed"),
        ("chips.upsample=9", "give 1 to 8"),
    ],
)
def test_a_recipe_of_classes_is_strict(wrong: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        recipe.read(page(tmp_path / "own.toml", RECIPE), [wrong])
    assert says in str(refused.value)
