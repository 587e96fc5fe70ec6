"""From chips to a map by one's own network; recipes are strict, resumable, and judged on events they have not seen."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from aftermap import asked, chipfolder, experiment, recipe
from aftermap.card import Card
from aftermap.chips import Chip
from aftermap.cli import main
from aftermap.datasets.dataset import open_dataset
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.experiment import EACH, ROW
from aftermap.journal import sha256, write_json
from aftermap.model import build, load
from aftermap.results import METRICS, gather, lines
from aftermap.samples import choose_bands, survey
from aftermap.scored import Scored
from aftermap.simulate import vary
from aftermap.torchdoor import torch
from tests.conftest import flood_pair, grid, write
from tests.dataset_layouts import antarctic_fractures, bigearthnet, landslide4sense, m3leo, ombria, png, simulated_landcover, xbd
from tests.quakes import written as quakes

torch.set_num_threads(1)
SMALL = ["--encoder", "mobilenetv3_small_050", "--batch", "4", "--quiet"]


def ran(*words: object) -> str:
    result = CliRunner().invoke(main, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return result.output


def folder(path: Path, events: tuple[str, ...] = ("a", "b", "c", "d"), side: int = 40) -> Path:
    """Radar chips as `aftermap chips` has them, but of images and masks alone: one event per name, 40 x 56 px."""
    for number, event in enumerate(events):
        for k in range(2):
            _, after, wet = flood_pair((side, side + 16), seed=10 * number + k)
            after[:, :3, :5] = np.nan
            on = grid((side, side + 16))
            write(path / "images" / f"{event}-{k}.tif", after, on, ("VV", "VH"), unit="dB", nodata=float("nan"))
            write(path / "masks" / f"{event}-{k}.tif", wet[None].astype(np.uint8), on, ("class",))
    return path


def page(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


RECIPE = """
hazard = "flood"
inputs = ["after"]
data = { kind = "folder", settings = { unit = "dB", event = "^([a-z]+)" } }
split = { train = ["a", "b"], validation = ["c"], test = ["d", "e"] }
model = { encoder = "mobilenetv3_small_050", decoder = "unet", widths = [4, 4, 8, 8, 16] }
chips = { size = 32 }
[[steps]]
train = { losses = { dice = 1 }, steps = 2, batch = 2 }
"""


def row_of(model: Path) -> Any:
    return json.loads((model / "row.json").read_text())


def test_chips_to_model_to_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scene, chips, model = tmp_path / "scene", tmp_path / "chips", tmp_path / "model"
    ran("simulate", "flood", "-o", scene, "--size", 256, "--quiet")
    after = scene / "after.tif"
    ran("chips", "--after", after, "--truth", scene / "truth.tif", "--size", 64, "--split", "blocks", "--block-px", 64,
        "-o", chips, "--quiet")  # fmt: skip
    command = ["train", "--data", chips, "--hazard", "flood", "-o", model, "--epochs", 2, *SMALL]
    assert "chips of events it has also seen" in ran(*command)
    whole = {name: (model / name).read_bytes() for name in ("model.safetensors", "graph.bin", "known.npz", "row.json")}
    (model / "row.json").unlink()  # as after a kill before the last file
    ran(*command)
    assert {name: (model / name).read_bytes() for name in whole} == whole
    ran("map", "--after", after, "--hazard", "flood", "--model", model, "--no-baseline", "-o", tmp_path / "map", "--quiet")
    run = json.loads((tmp_path / "map" / "run.json").read_text())
    card = Card.read(model)
    assert run["methods"]["combined"] == ["model"]
    assert run["methods"]["familiarity"]["training_chips"] == row_of(model)["samples"]["train"]
    assert run["models"]["model"]["sha256"] == sha256(model / "model.toml")
    assert run["models"]["model"]["made_by"] == card.made_by
    assert "--epochs=2.0" in card.made_by
    assert card.reads == "after VV, VH in dB"
    assert not card.leads
    row = row_of(model)
    assert card.scores[0]["iou"] == pytest.approx(row["scores"]["iou"])
    assert not card.scores[0]["unseen"]
    again = CliRunner().invoke(main, [str(w) for w in command])
    assert again.exit_code == UsageError.exit_code
    assert "already holds a model" in again.output


def test_a_recipe_is_judged_on_events_it_has_not_seen_and_run_once(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", ("a", "b", "c", "d", "e"))
    own = page(tmp_path / "own.toml", RECIPE)
    words = ["run", own, "--on", data, "-o", tmp_path / "out", "--seeds", "0,1", "--quiet", "--json"]
    rows = json.loads(ran(*words))
    assert [row["seed"] for row in rows] == [0, 1]
    for row in rows:
        assert row["unseen"]
        assert row["untouched"]
        assert row["events"] == {"train": ["a", "b"], "validation": ["c"], "test": ["d", "e"]}
        assert set(row["counts"]) == {"d", "e"}
        # 40 x 56 px, twice for each event, less the corner that was not observed: padding is never counted.
        assert row["scores"]["scored_px"] == 2 * 2 * (40 * 56 - 15) == sum(sum(c.values()) for c in row["counts"].values())
        prevalence = row["scores"]["prevalence"]
        assert row["trivial"]["all_hazard"]["iou"] == pytest.approx(prevalence)
        assert row["trivial"]["no_hazard"] == {"iou": 0, "f1": 0, "balanced_accuracy": 0.5}
        assert row["versions"]["torch"] == torch.__version__
    assert rows[0]["weights_sha256"] != rows[1]["weights_sha256"]
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert json.loads(ran(*words)) == rows
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()} == files
    other = json.loads(ran(*words, "--seeds", "0", "--set", "surgery=['freeze_encoder']"))
    assert other[0]["recipe_sha256"] != rows[0]["recipe_sha256"]
    assert rows[0]["without_training"]["counts"].keys() == {"d", "e"}
    assert 0 <= rows[0]["untrained"]["average_precision"] <= 1
    (frozen,) = (p.parent / "model" for p in (tmp_path / "out").glob("*/row.json") if json.loads(p.read_text()) == other[0])
    found, _ = load(frozen)
    first_weights = build(found.spec, seed=0).encoder.state_dict()
    assert all(torch.equal(v, first_weights[k]) for k, v in found.encoder.state_dict().items())
    told = json.loads(ran("report", tmp_path / "out", "--json"))
    assert {(one["metric"], one["seeds"], one["events"]) for one in told} == {(m, k, 2) for m in METRICS for k in (1, 2)}
    first = next(one for one in told if one["metric"] == "iou" and one["page_sha256"] == rows[0]["page_sha256"])
    assert first["mean"] == pytest.approx(sum(row["scores"]["iou"] for row in rows) / 2)
    assert first["p"] is None
    assert "can never reach" in first["test"]
    assert (first["images"], first["methods"]) == (4, ", ".join(rows[0]["without_training"]["methods"]))
    assert first["interval"] == "range of 2 events"
    assert (tmp_path / "out" / "report.png").stat().st_size > 5000
    assert "| own " in (tmp_path / "out" / "report.md").read_text()


def test_folds_and_seeds_are_one_line_and_the_worse_is_not_better(tmp_path: Path) -> None:
    """Eight images with 100 px of hazard each; the method without training finds half of it."""

    def scored(names: Sequence[str], tp: int) -> Scored:
        counts = np.array([[tp, 5 + k, 100 - tp, 800] for k in range(len(names))], np.int64)
        levels = np.zeros((len(names), 2, 251), np.int32)
        levels[:, 1, 200], levels[:, 1, 50], levels[:, 0, 200], levels[:, 0, 50] = counts.T[[0, 2, 1, 3]]
        return Scored(tuple(names), tuple(n[0] for n in names), counts, levels)

    for tp in (90, 3):
        for seed in (0, 1):
            for fold, names in enumerate((["a0", "a1", "b0", "b1"], ["c0", "c1", "d0", "d1"])):
                out = tmp_path / f"{tp}-{seed}-{fold}"
                beside = tmp_path / f"without-{fold}"
                for path in (out, beside):
                    path.mkdir(exist_ok=True)
                scored(names, tp).write(out / EACH)
                scored(names, 50).write(beside / EACH)
                row = {"recipe": "r", "page_sha256": str(tp), "data": "folder", "seed": seed, "fold": fold, "unseen": True,
                       "scores": {}, "untrained": {"tp": 0, "fp": 0, "fn": 1, "tn": 1}, "made_by": "x",
                       "without_training": {"methods": ["rule"], "folder": beside.name}}  # fmt: skip
                write_json(out / ROW, row)
    found = [k for k in lines(gather(tmp_path)) if k.metric == "iou"]
    bad, good = sorted(found, key=lambda k: k.mean or 0)
    assert (good.seeds, good.folds, good.events, good.images) == (2, 2, 4, 8)
    fp = 4 * (5 + 6 + 7 + 8) // 2
    assert good.mean == pytest.approx(720 / (800 + fp))
    assert good.without_training == pytest.approx(400 / (800 + fp))
    assert good.everything == pytest.approx(800 / (8 * 900 + fp))
    assert good.p == 2**-8
    assert bad.p == 1
    assert None not in (good.image_low, good.image_high, good.mean)
    assert good.image_low < good.mean < good.image_high  # type: ignore[operator]
    ap = next(k for k in lines(gather(tmp_path)) if k.metric == "average_precision" and k.page_sha256 == "90")
    precise = 720 / (720 + fp)
    assert ap.mean == pytest.approx(0.9 * precise + 0.1 * 800 / (8 * 900 + fp))
    with pytest.raises(InputRefusedError, match="same folds"):
        lines(gather(tmp_path)[1:])


def test_each_chip_on_a_level_of_its_own(tmp_path: Path) -> None:
    """What a network reads has mean 0 and std 1 in every chip, and what a graph is given those of training."""
    samples = survey(open_dataset(folder(tmp_path)), ["after"], normalise="chip")
    elsewhere = pickle.loads(pickle.dumps(samples))  # as processes that read for one that trains get them
    for name in samples.ids("train"):
        chip = samples.read(name)
        assert np.array_equal(elsewhere.read(name).pixels, chip.pixels, equal_nan=True)
        assert np.allclose(samples.normaliser.of(chip)[:, chip.valid].std(axis=1), 1, atol=1e-3)
        given = samples.as_mapped(chip)[:, chip.valid]
        assert np.allclose(given.mean(axis=1), samples.reference.mean, atol=1e-2)
        assert np.allclose(given.std(axis=1), samples.reference.std, rtol=1e-3)


def test_folds_test_every_event_once() -> None:
    page = recipe.read("landslide-rgb", ["split={'folds': [['a', 'b'], ['c'], ['d'], ['e']]}"])
    found = [fold.split for fold in recipe.folds(page)]
    assert found[1] == {"test": ["c"], "validation": ["d"], "train": ["e", "a", "b"]}
    assert sorted(e for one in found for e in one["test"]) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("name", [name for name in recipe.listed() if not asked.asks(name)])
def test_every_recipe_parses_and_trains_two_steps(name: str, tmp_path: Path) -> None:
    path = recipe.listed()[name]
    assert all(recipe.header(path).values()), "Run, Expect and Differs stand at the head"
    read = recipe.read(name)
    assert read == recipe.read(path)
    made: dict[str, Callable[[Path], Path]] = {
        "landslide4sense-rgb": pictures, "ombria": lambda at: ombria(at).folder,
        "antarctic-fractures": lambda at: antarctic_fractures(at).folder, "xbd": houses,
        "simulated": lambda at: varied(at, read.hazard), "bigearthnet": lambda at: bigearthnet(at).folder,
        "landslide4sense": lambda at: landslide4sense(at).folder, "m3leo": lambda at: m3leo(at).folder,
        "simulated-landcover": stacks,
    }  # fmt: skip
    cubes = {"passes", "target"} & set(read.data.settings)
    own = quakes if read.pretrain or cubes else graded if read.classes else stacks if read.unlabelled else folder
    data = made.get(read.data.kind, own)(tmp_path / "data")
    trains = [k for k, step in enumerate(read.steps) if step.train]
    wheres = [*(f"steps.{k}" for k in trains), *(["pretrain"] if read.pretrain else [])]
    steps = [f"{where}.train.{v}" for where in wheres for v in ("steps=2", "epochs=0", "batch=2")]
    once = ["split={'test': ['C'], 'train': ['A+B+H']}"] if "folds" in read.split else []
    whole = read.data.kind in ("simulated", "bigearthnet")
    large = read.ensemble or cubes or read.data.kind == "bigearthnet"  # building-damage has its ResNet-34
    quick = ["model.encoder=resnet18_half", "ensemble=[]", "chips.upsample=1"] if large else []
    if read.unlabelled:
        elevated = "['rgb', 'dem.elevation']" if read.objective == "contrast" else "['s1', 'rgb']"
        whole_folder = "data={'kind': 'simulated-landcover', 'settings': {'size': 32}}"
        quick = [
            whole_folder,
            f"inputs={elevated}",
            f"model.encoder={'resnet18_half' if read.objective == 'contrast' else 'vit_micro8'}",
        ]
    if read.data.kind == "m3leo":
        quick = ["model.encoder=double_conv_quarter"]
    if read.data.kind == "simulated-landcover":
        sides = {"train": ["plain-000000", "plain-000001"], "test": ["alps-000018"]}
        quick = [f"data={{'kind': '{read.data.kind}', 'settings': {{'size': 32}}}}", f"split={sides}"]
    few = [*steps, *once, *quick, f"chips.size={128 if whole else 32}", "model.weights=none"]
    (row,) = experiment.run(name, data, tmp_path / "out", overrides=few)
    official = whole or read.data.kind == "xbd"
    assert (row["scores"] is not None) == bool({"test", "folds"} & set(read.split) or read.classes or official)
    assert list((tmp_path / "out").glob("*/model/**/graph.xml"))


def stacks(path: Path) -> Path:
    """Several modalities at once."""
    made = simulated_landcover(path).folder
    shutil.copytree(made / "plain-000000", made / "plain-000001")
    return made


def houses(path: Path) -> Path:
    """xBD, small: a second pair of pictures to train on."""
    xbd(path)
    for part in ("images", "labels"):
        for one in (path / "train" / part).glob("*_00000001_*"):
            one.with_name(one.name.replace("_00000001_", "_00000002_")).write_bytes(one.read_bytes())
    return path


def graded(path: Path) -> Path:
    """Chips as `aftermap chips` writes them: two dates in colour, and the classes of xBD."""
    names = ("background", "no-damage", "minor-damage", "major-damage", "destroyed")
    rng, bands = np.random.default_rng(2), tuple(f"{date}{band}" for date in ("", "before.") for band in ("RED", "GREEN", "BLUE"))

    def chips() -> Iterator[tuple[Chip, str, None]]:
        for k, split in enumerate(("train", "train", "validation", "test")):
            pixels, truth = rng.uniform(1, 255, (6, 40, 40)).astype(np.float32), rng.integers(0, 5, (40, 40)).astype(np.uint8)
            yield Chip(pixels, truth < 9, truth, bands, "digital_number", f"c{k}", "town"), split, None

    chipfolder.write(path, chips(), classes=names, facts={})
    return path


def varied(path: Path, hazard: str) -> Path:
    """A scene of each split."""
    vary.simulate(hazard, path, [0, 8, 9])
    return path


def pictures(path: Path) -> Path:
    """Landslide4Sense as RGB, small: two pictures of each region."""
    rows = ["image,mask,landslide4sense_train_name,mirror_split,region_inferred"]
    rng = np.random.default_rng(1)
    for number in range(6):
        region = ("A_taiwan_like", "B_hokkaido_like", "C_nepal_like")[number // 2]
        rows.append(f"image_{number}.png,mask_{number}.png,image_{number}.h5,train,{region}")
        mask = np.zeros((1, 40, 40), np.uint8)
        mask[:, 5:20, 8:30] = 255
        png(path / "images" / f"image_{number}.png", rng.integers(0, 255, (3, 40, 40), dtype=np.uint8))
        png(path / "masks" / f"mask_{number}.png", mask)
    (path / "index.csv").write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize(
    ("wrong", "code", "says"),
    [
        ("modle = {}", "unknown-key", "did you mean model"),
        ("steps.0.train.los={}", "unknown-key", "did you mean steps[0].train.losses"),
        ("steps.0.train.batch='16'", "recipe-invalid", "steps[0].train.batch is '16', and has to be a whole number"),
        ("steps.0.train.lr=True", "recipe-invalid", "has to be a number"),
        ("steps.0.adapt={}", "recipe-invalid", "shots"),
        ("steps.3.train.lr=1", "recipe-invalid", "there are 1 steps"),
        ("surgery=['freeze']", "unknown-surgery", "did you mean freeze_encoder"),
        ("steps.0.train.objective='regres'", "unknown-objective", "did you mean regress"),
        ("normalise='per_domian'", "unknown-normalise", "did you mean per_domain"),
        ("chips.size=100", "recipe-invalid", "multiple of 32"),
        ("steps.0.train.epochs=3", "recipe-invalid", "give steps or epochs"),
        ("hazard='flod'", "unknown-hazard", "did you mean flood"),
        ("split.tset=['a']", "unknown-split", "did you mean test"),
        ("split={'folds': [['a'], ['b']]}", "recipe-invalid", "at least three lists"),
        ("steps.0.train.augmentation={'jiter': 1}", "unknown-augmentation", "did you mean jitter"),
        ("steps.0.train.precision='fp16'", "unknown-precision", "fp32"),
        ("inputs='after'", "recipe-invalid", "inputs is 'after', and has to be a list, each text"),
    ],
)
def test_a_recipe_is_strict(wrong: str, code: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        recipe.read(page(tmp_path / "own.toml", RECIPE), [wrong.replace(" = ", "=")])
    assert refused.value.code == code
    assert says in str(refused.value)


def test_events_never_fall_on_two_sides(tmp_path: Path) -> None:
    path = folder(tmp_path / "data", ("a", "b", "c", "d", "e", "f", "g"))
    dataset = open_dataset(path, "folder", unit="dB", event="^([a-z]+)")
    samples = survey(dataset, ["after"], size=32)
    assert samples.unseen
    assert sorted(e for events in samples.events.values() for e in events) == list("abcdefg")
    assert not samples.dealt
    one = open_dataset(folder(tmp_path / "one", ("a",)), "folder", unit="dB")
    alone = survey(one, ["after"], size=32)
    assert alone.dealt
    assert not alone.unseen
    assert not alone.ids("test")
    with pytest.raises(UnknownNameError, match="did you mean one"):
        survey(one, ["after"], split={"train": ["on"]})
    with pytest.raises(UsageError, match="give each event one side"):
        survey(dataset, ["after"], split={"train": ["a", "b"], "test": ["b"]})


def test_every_pixel_is_in_one_square(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path / "data"), "folder", unit="dB", event="^([a-z]+)")
    samples = survey(dataset, ["after.VH"], size=32)
    assert samples.bands == ("VH",)
    squares = [samples.read(i) for i in samples.places]
    assert {c.shape for c in squares} == {(32, 32)}
    whole = [dataset.read(n) for n in dataset.members]
    assert sum(int(c.labelled.sum()) for c in squares) == sum(int(c.labelled.sum()) for c in whole)
    assert sum(float(c.pixels[0, c.valid].sum(dtype=np.float64)) for c in squares) == pytest.approx(
        sum(float(c.pixels[1, c.valid].sum(dtype=np.float64)) for c in whole)
    )


def test_bands_are_chosen_by_layer_and_name() -> None:
    known = ("VV", "VH", "before.VV", "before.VH")
    assert choose_bands(known, ["after", "before"]) == known
    assert choose_bands(known, ["before.VH", "after.VV"]) == ("before.VH", "VV")
    with pytest.raises(UnknownNameError, match="did you mean before"):
        choose_bands(known, ["befor"])


def test_two_dates_train_and_are_read_in_order(tmp_path: Path) -> None:
    for k in range(3):
        before, after, wet = flood_pair((64, 64), seed=k)
        pixels, on = np.concatenate([after, before]), grid((64, 64))
        write(tmp_path / "d" / "images" / f"{k}.tif", pixels, on, ("VV", "VH", "before.VV", "before.VH"), nodata=float("nan"))
        write(tmp_path / "d" / "masks" / f"{k}.tif", wet[None].astype(np.uint8), on, ("class",))
    ran("train", "--data", tmp_path / "d", "--hazard", "flood", "-o", tmp_path / "m", "--epochs", 1, "--set", "unit=dB", *SMALL)
    card = Card.read(tmp_path / "m")
    assert card.reads == "after VV, VH in dB and before VV, VH in dB"
    assert card.decoder == "unet, early"


def test_without_torch_the_repair_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["run", "flood-folder", "--on", str(tmp_path), "-o", str(tmp_path / "o")])
    assert result.exit_code == UsageError.exit_code
    assert 'pip install "aftermap[train]" ' in result.output.replace("\n", " ")
    assert "extra-missing" in result.output
