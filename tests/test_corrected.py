"""A model taught by corrections: right where it was wrong, by labelled pixels alone, and its card says who taught it."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import aftermap as am
from aftermap import corrections, raster, vector
from aftermap.card import Card
from aftermap.chips import Chip
from aftermap.cli import main
from aftermap.corrected import FACTS, SIDE_PX, TARGET
from aftermap.corrections import HAZARD, NOT_HAZARD, Said, append
from aftermap.losses import Sum
from aftermap.model import Model, save
from aftermap.objectives.anchored import Anchored
from aftermap.objectives.segment import Segment
from aftermap.scorer import LayerBands
from aftermap.tiles import Window
from aftermap.torchdoor import Tensor, nn, torch
from tests.conftest import grid, write
from tests.learn_run import Ponds, network, run

torch.set_num_threads(1)
SHAPE = (128, 250)
ON = grid(SHAPE)


def truth() -> np.ndarray:
    """Two ponds and, dark as they are but drier, two roofs of sheet metal that a network takes for water."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.stack([np.hypot(y - r, x - c) < 22 for r, c in ((36, 40), (90, 210), (36, 160), (88, 100))])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that knows ponds, and a scene in which it takes roofs for ponds too."""
    where = tmp_path_factory.mktemp("taught")
    ended = run(where / "training")
    from aftermap import checkpoint

    model = network()
    checkpoint.read(ended.kept[0], model)
    stats = Ponds()
    from aftermap.normalise import fit

    level = fit(stats.read(i) for i in stats.ids("train"))
    card = Card(
        name="ponds", hazard="flood", classes=("flood",), inputs=(LayerBands("after", ("VV", "VH"), "dB"),), mean=level.mean,
        std=level.std, halo_px=16, multiple_of=32, training_data="ponds", licence="none", made_by="a test", sha256={}, leads=True,
        why="a test",
    )  # fmt: skip
    save(where / "model", model.eval(), card)
    wet = truth()
    rng = np.random.default_rng(0)
    mean = np.stack(
        [
            np.where(wet.any(axis=0), -19.0, -9.0),
            np.where(wet[:2].any(axis=0), -26.0, np.where(wet[2:].any(axis=0), -22.0, -15.0)),
        ]
    )
    write(where / "after.tif", np.asarray(mean + rng.normal(0, 1.5, mean.shape), np.float32), ON, ("VV", "VH"), unit="dB")
    return where


def box(row: int, col: int, side: int = 30) -> object:
    return vector.boxes(np.array([[col, row]]), np.array([[col + side, row + side]]), ON.affine)[0]


def labels(folder: Path, many: int = 2) -> Path:
    """Of each roof `many` pieces are no hazard, of each pond as many are."""
    seen = 0
    for kind, places in ((HAZARD, ((36, 40), (90, 210))), (NOT_HAZARD, ((36, 160), (88, 100)))):
        for row, col in places:
            for k in range(many):
                append(folder, ON, Said(kind, "Anna", seen, box(row - 12 + k * 24 // many, col - 12, 24 // many)))
                seen += 1
    return folder / corrections.FILE


def adapted(home: Path, out: Path, *more: str | Path) -> Result:
    return CliRunner().invoke(
        main, ["adapt", str(home / "model"), "--to", str(home / "after.tif"), "-o", str(out), *map(str, more)]
    )


def found(home: Path, model: Path, out: Path) -> np.ndarray:
    options = am.Options(model=str(model), baseline=False, min_area_m2=0)
    return np.asarray(am.map(home / "after.tif", out=out, hazard="flood", options=options).extent(Window(0, 0, *SHAPE)) == 1)


def test_what_was_wrong_becomes_right_at_and_near_the_corrections(home: Path, tmp_path: Path) -> None:
    result = adapted(home, tmp_path / "new", "--labels", labels(tmp_path, 3), "--steps", "30", "--lr", "1e-3")
    assert result.exit_code == 0, result.output
    before, after = (found(home, model, tmp_path / name) for name, model in (("a", home / "model"), ("b", tmp_path / "new")))
    ponds, roofs = truth()[:2].any(axis=0), truth()[2:].any(axis=0)
    assert before[roofs].mean() > 0.8
    assert after[roofs].mean() < before[roofs].mean() / 2
    assert after[ponds].mean() > 0.8
    card = Card.read(tmp_path / "new")
    assert TARGET in card.why
    assert TARGET in card.training_data
    assert "6 polygons of hazard" in card.why
    assert "1 author," in card.why
    assert not card.leads
    assert card.calibration is None
    assert "none" in card.licence
    facts = json.loads((tmp_path / "new" / FACTS).read_text())
    assert facts["labels_sha256"] in card.training_data
    held = facts["held_out"]
    assert held["corrections"] == 2
    assert held["loss"][1] < held["loss"][0]
    assert TARGET in result.output
    assert TARGET in json.dumps(json.loads((tmp_path / "b" / "run.json").read_text()))
    assert tomllib.loads((tmp_path / "new" / "model.toml").read_text())["name"] == "new"


def test_few_corrections_are_all_learned_and_nothing_is_claimed(home: Path, tmp_path: Path) -> None:
    result = adapted(home, tmp_path / "new", "--labels", labels(tmp_path, 1), "--steps", "2")
    assert result.exit_code == 0, result.output
    assert "not measured" in result.output
    assert "held_out" not in json.loads((tmp_path / "new" / FACTS).read_text())


class Fixed(nn.Module):
    """Says the same of everything."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, pixels: Tensor) -> Tensor:
        return self.logits


def batch(truth: Tensor) -> dict[str, Tensor]:
    pixels = torch.randn(2, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    return {"pixels": pixels, "valid": torch.ones(2, 64, 64, dtype=torch.bool), "truth": truth, "domain": torch.zeros(2)}


def test_pixels_without_a_label_have_no_truth() -> None:
    """Whatever the network says there: loss and scores of the labels stay, and what holds it knows no label."""
    model: Model = network().eval()
    said = torch.full((2, 64, 64), 255)
    said[:, :8, :8], said[:, 8:16, :8] = 1, 0
    segment = Segment(Sum({"ce": 1.0}))
    logits = model(batch(said)["pixels"]).detach()
    other = torch.where((said == 255)[:, None], 9.0, logits)
    for one in (logits, other):
        fixed = Fixed(one)
        torch.testing.assert_close(segment(fixed, batch(said))["loss"], segment(model, batch(said))["loss"])
        torch.testing.assert_close(segment.sums(fixed, batch(said)), segment.sums(model, batch(said)))
    alone, held = Anchored(segment, model, 0.0), Anchored(segment, model, 5.0)
    torch.testing.assert_close(alone(model, batch(said))["loss"], segment(model, batch(said))["loss"])
    moved = network()
    assert held(moved.eval(), batch(said))["loss"] >= alone(moved, batch(said))["loss"]
    wanted = logits.requires_grad_()
    (gradient,) = torch.autograd.grad(Anchored(segment, model, 1.0)(Fixed(wanted), batch(said))["loss"], wanted)
    assert gradient[(said == 255)[:, None]].abs().max() < 1e-6  # it says what it said
    assert gradient[(said != 255)[:, None]].abs().max() > 1e-5


def test_bad_labels_are_refused_and_nothing_is_left(home: Path, tmp_path: Path) -> None:
    (tmp_path / "text.gpkg").write_text("no")
    far = tmp_path / "far"
    far.mkdir()
    append(
        far,
        grid(SHAPE, origin=(600000, 5350000)),
        Said(HAZARD, "Anna", 0, vector.rectangle(grid(SHAPE, origin=(600000, 5350000)))),
    )
    gone = tmp_path / "gone"
    gone.mkdir()
    append(gone, ON, Said(HAZARD, "Anna", 0, box(10, 10)))
    append(gone, ON, Said("undone", "Anna", 1))
    for path, code in (
        (tmp_path / "none.gpkg", "missing-file"), (tmp_path / "text.gpkg", "corrections-invalid"),
        (far / corrections.FILE, "no-corrections"), (gone / corrections.FILE, "no-corrections"),
    ):  # fmt: skip
        result = adapted(home, tmp_path / "new", "--labels", path)
        assert result.exit_code == 3, result.output
        assert f"[{code}]" in result.output
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--method", "bn"), "--method is of"), (("--mode", "prior"), "--mode is of"), (("--shots", "3"), "--shots is of"),
        (("--set", "a=b"), "--set is of"), (("--before", "x.tif", "y.tif"), "2 images"),
    ],
)  # fmt: skip
def test_options_that_would_do_nothing_are_refused(home: Path, tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    result = adapted(home, tmp_path / "new", "--labels", labels(tmp_path), *more)
    assert result.exit_code == 2
    assert words in result.output
    assert "--lr is of --labels" in adapted(home, tmp_path / "new", "--lr", "1").output


def test_what_cannot_learn_or_be_learned_from_is_refused(home: Path, tmp_path: Path) -> None:
    given = labels(tmp_path)
    graph = tmp_path / "graph"
    graph.mkdir()
    card = Card.read(home / "model")
    for name in ("graph.xml", "graph.bin"):
        (graph / name).write_bytes((home / "model" / name).read_bytes())
    replace(card, sha256={k: v for k, v in card.sha256.items() if k.startswith("graph")}).write(graph)
    result = CliRunner().invoke(
        main, ["adapt", str(graph), "--to", str(home / "after.tif"), "--labels", str(given), "-o", str(tmp_path / "n")]
    )
    assert "[weights-misfit]" in result.output
    assert "only weights train" in result.output
    result = CliRunner().invoke(main, ["adapt", str(home / "model"), "--labels", str(given), "-o", str(tmp_path / "n")])
    assert result.exit_code == 2
    assert "holds no map" in result.output
    assert "--to OUT" in result.output
    assert not (tmp_path / "n").exists()


def test_a_map_knows_its_images(home: Path, tmp_path: Path) -> None:
    """What it was made from and what was said of that is taken from it: the same model comes of it."""
    bare = write(tmp_path / "bare.tif", raster.read_window(home / "after.tif", Window(0, 0, *SHAPE), (1, 2)), ON, ("a", "b"))
    said = am.Declared(bands=("VV", "VH"), unit="dB")
    out = am.map(bare, out=tmp_path / "map", hazard="flood", declared={"after": said}, options=am.Options(min_area_m2=0)).folder
    given = labels(out, 1)
    taught = {}
    for name, args in {"beside": [], "named": ["--to", str(out)], "image": ["--to", str(home / "after.tif")]}.items():
        to = tmp_path / name
        args = ["adapt", str(home / "model"), "--labels", str(given), "-o", str(to), "--steps", "2", *args]
        result = CliRunner().invoke(main, args)
        assert result.exit_code == 0, result.output
        taught[name] = (to / "model.safetensors").read_bytes()
        image, more = (home / "after.tif", "") if name == "image" else (bare, " ...")
        assert f"aftermap map --model {to} --lead --hazard flood --after {image}{more} -o ANOTHER" in result.output
    assert taught["beside"] == taught["named"] == taught["image"]
    args = ["adapt", str(home / "model"), "--labels", str(given), "-o", str(tmp_path / "n"), "--unit", "power"]
    assert "knows its images" in CliRunner().invoke(main, args).output
    bare.unlink()
    result = CliRunner().invoke(main, ["adapt", str(home / "model"), "--labels", str(given), "-o", str(tmp_path / "n")])
    assert "[not-repeatable]" in result.output


def test_a_correction_that_is_held_out_teaches_nothing(home: Path, tmp_path: Path) -> None:
    """Not even where another one that is learned from lies over it."""
    from aftermap.corrected import _without

    codes = np.full((SIDE_PX, SIDE_PX), 255, np.uint8)
    codes[:10] = 1
    known = np.full_like(codes, 255)
    known[5:20] = 0
    chip = Chip(np.zeros((2, SIDE_PX, SIDE_PX), np.float32), np.ones((SIDE_PX, SIDE_PX), bool), codes, ("VV", "VH"), "dB", "a")
    assert _without(chip, known).labelled.sum() == 5 * SIDE_PX
