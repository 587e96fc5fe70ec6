"""A model taught by people's corrections of a map: the one place where labels of the target itself are learned from.

So its card says "target labels used", and no score of it on that ground says anything of ground that nobody corrected. Only
pixels that somebody labelled have a truth. Where nobody did, the network is held to what it said before, and statistics of batch
norm stay: a few polygons, all of them errors, would turn it over everywhere (benchmarks/corrections.py). Where there are enough
corrections, a quarter is first held out, to tell how long to learn and what it is worth; the model that is kept then learns so
long from all of them.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from aftermap import corrections, journal, repeated
from aftermap.adapt.crops import Picture
from aftermap.adapt.keep import fresh
from aftermap.augment import Augment
from aftermap.batches import Batches
from aftermap.card import Card, find
from aftermap.chips import U8, UNKNOWN, Chip
from aftermap.corrections import HAZARD, LABELS, NOT_HAZARD, Correction, Log
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UsageError
from aftermap.hazardmap import HazardMap
from aftermap.layer import Declared
from aftermap.losses import Sum
from aftermap.model import Model, load, save
from aftermap.normalise import Normaliser, of_card
from aftermap.objectives.anchored import Anchored
from aftermap.objectives.segment import Segment
from aftermap.readapt import seen_as
from aftermap.samples import Progress
from aftermap.scene import Scene, open_scene
from aftermap.surgery import freeze
from aftermap.tiles import Window, starts
from aftermap.torchdoor import torch
from aftermap.train import Plan, Result, fabric_for, measure, train

SIDE_PX, BATCH = 128, 8
HELD_FROM, HELD = 4, 4
"""Of a kind with so many corrections or more, one of so many is held out."""
FACTS = "corrections.json"
TARGET = "target labels used"
_AUGMENT = Augment(move=0.0)


@dataclass(frozen=True)
class Images:
    """What was mapped: delivered maps, whose images are those that they were made from; or an image after for each map, and, for
    a model of two dates, one before for each."""

    after: Sequence[Path]
    before: Sequence[Path] = ()
    band_map: str = "auto"
    declared: Declared = field(default_factory=Declared)
    """What files do not say of themselves."""

    def scenes(self, hazard: str) -> list[Scene]:
        """Each opened. Raises UsageError, InputRefusedError as open_scene and repeated.scene do."""
        maps = [path for path in self.after if (path / "run.json").exists()]
        if maps and (self.before or self.declared != Declared()):
            what = f"{maps[0]} is a map, and knows its images and what was said of them"
            raise UsageError(what, repair="give no image before, bands, sensor or unit, or the images in its place")
        if strange := [path for path in self.after if path.is_dir() and path not in maps]:
            what = f"{strange[0]} is a folder, and holds no map"
            raise UsageError(what, repair="say what was mapped: --to OUT of the map, or its images")
        if self.before and len(self.before) != len(self.after):
            what = f"--before has {len(self.before)} images and --to {len(self.after)}"
            raise UsageError(what, repair="give one before for each, bands stacked")
        earlier = [{"before": [one]} for one in self.before] or [{}] * len(self.after)
        each = zip(self.after, earlier, strict=True)
        return [repeated.scene(one) if one in maps else self._opened({"after": [one], **own}, hazard) for one, own in each]

    def command(self, model: Path, hazard: str) -> str:
        """The line that maps the first of them with a model; "..." for what else was said of that map."""
        first, more = self.after[0], ""
        files = {"after": [first], "before": list(self.before[:1])}
        if (first / "run.json").exists():
            said = HazardMap(first).made_by["asked"]
            files, more = repeated.files(first), " ..." if said["declared"] or said["options"] else ""
        given = [word for layer, paths in files.items() for path in paths for word in (f"--{layer.replace('_', '-')}", str(path))]
        return shlex.join(["aftermap", "map", "--model", str(model), "--lead", "--hazard", hazard, *given]) + more

    def _opened(self, files: Mapping[str, list[Path]], hazard: str) -> Scene:
        return open_scene(files, hazard=hazard, declared=dict.fromkeys(files, self.declared))


@dataclass(frozen=True)
class Teaching:
    """How much a few corrections may change."""

    steps: int = 20
    """At most, where some are held out; as many, where none are."""
    lr: float = 3e-4
    hold: float = 4.0
    """As of objectives.anchored."""
    seed: int = 0


@dataclass(frozen=True)
class Ground:
    """A scene as a network reads it, and what was said of it."""

    scene: Scene
    picture: Picture
    log: Log

    def chips(self, rows: Sequence[Correction], level: Normaliser) -> dict[str, Chip]:
        """Squares with any labelled pixel that was observed; truth is that of these rows alone, 255 elsewhere."""
        found = {}
        for window in _windows(self.picture.shape):
            truth = corrections.truth(rows, self.log.open, self.scene.grid, window)
            if (truth != UNKNOWN).any():
                chip = _chip(f"{self.picture.name}_{window.row}_{window.col}", self.picture.read(window), truth, level)
                if chip.labelled.any():
                    found[chip.name] = chip
        return found


@dataclass(frozen=True)
class Squares:
    """Chips by name; a source of batches.py."""

    chips: Mapping[str, Chip] = field(repr=False)

    def ids(self, split: str) -> list[str]:
        """All of them."""
        return list(self.chips)

    def read(self, id: str) -> Chip:
        """One."""
        return self.chips[id]

    @property
    def pixels(self) -> tuple[int, int]:
        """Labelled pixels that were observed: not hazard, hazard."""
        counts = sum(
            np.bincount(chip.truth[chip.labelled], minlength=2) for chip in self.chips.values() if chip.truth is not None
        )
        return int(counts[0]), int(counts[1])  # type: ignore[index]


def ground(network: Network, scene: Scene, band_map: str, labels: Path) -> Ground:
    """What a file of corrections says of a scene. Raises the errors of corrections.read and of transfer.on."""
    return Ground(scene, seen_as(scene, network, band_map), corrections.read(labels, scene.grid))


def teach(
    model: str, images: Images, labels: Path, out: Path, how: Teaching, *, made_by: str = "aftermap adapt",
    progress: Progress = lambda *_: None,
) -> Card:  # fmt: skip
    """The folder of a model (name or folder) taught by corrections of the maps of these images, and its card. `progress` hears
    "try", where corrections are held out, and "teach", step by step.

    Raises UsageError ("usage", "other-run"), InputRefusedError ("weights-misfit", "model-input", "no-corrections", and those of
    corrections.read).
    """
    network = Network.open(find(model), engine="openvino")
    learner, card = load(network.folder)
    _refuse_other(learner, card)
    with fresh(out):
        grounds = [ground(network, scene, images.band_map, labels) for scene in images.scenes(card.hazard)]
        made = _Lesson(network.folder, grounds, of_card(card), how, progress)
        taught, facts = made.learned()
        facts = facts | {"labels_sha256": journal.sha256(labels), "labels": labels.name, "base": card.name}
        card = save(out, taught, _card(card, out.resolve().name, facts, made_by))
        journal.write_json(out / FACTS, facts)
    return card


def _refuse_other(model: Model, card: Card) -> None:
    if card.gives != "map" or len(card.classes) > 1 or model.spec.outputs > 1:
        what = f"{card.name} finds {', '.join(card.classes)}, and corrections say only {HAZARD} or {NOT_HAZARD}"
        raise InputRefusedError(what, repair="take a model that maps one class", code="model-input")


@dataclass(frozen=True)
class _Lesson:
    folder: Path
    grounds: Sequence[Ground]
    level: Normaliser
    how: Teaching
    progress: Progress = lambda *_: None

    def learned(self) -> tuple[Model, dict[str, Any]]:
        """The network, and all that came of it as plain values."""
        rows = {row.id: row for one in self.grounds for row in one.log.standing}
        everything = self.squares(rows)
        if not everything.chips:
            what = "no correction that stands labels a pixel of these images"
            raise InputRefusedError(what, repair="give the images that the corrected map was made from", code="no-corrections")
        facts: dict[str, Any] = _counted(rows, everything) | {"contested": len(self.grounds[0].log.open)}
        held = self.held(rows)
        steps = self.how.steps
        if held:
            facts["held_out"] = self.tried(held, rows.keys() - held)
            steps = facts["held_out"]["steps"]
        taught, _ = self.trained(everything, None, steps)
        return taught, facts | asdict(self.how) | {"steps": steps, "changed_elsewhere": self.changed(taught, everything)}

    def changed(self, taught: Model, squares: Squares) -> float:
        """Of the pixels around corrections that nobody labelled the share that is now called otherwise."""
        base, turned, free = load(self.folder)[0], 0, 0
        for batch in self.batches(squares).once():
            with torch.no_grad():
                before, after = (one(batch["pixels"])[:, 0] > 0 for one in (base, taught))
            nobody = batch["valid"] & (batch["truth"] == UNKNOWN)
            turned, free = turned + int((nobody & (before != after)).sum()), free + int(nobody.sum())
        return round(turned / max(1, free), 4)

    def squares(self, ids: Mapping[str, Any] | set[str]) -> Squares:
        """The chips of some corrections."""
        each = (one.chips([row for row in one.log.standing if row.id in ids], self.level) for one in self.grounds)
        return Squares({name: chip for chips in each for name, chip in chips.items()})

    def held(self, rows: Mapping[str, Correction]) -> set[str]:
        """Ids of those that are held out, of each kind that has enough; drawn by the seed, in the order of the log."""
        rng, found = np.random.default_rng(self.how.seed), set[str]()
        for kind in LABELS:
            own = [row.id for row in rows.values() if row.kind == kind]
            if len(own) >= HELD_FROM:
                found |= {own[k] for k in rng.permutation(len(own))[: len(own) // HELD]}
        return found

    def tried(self, held: set[str], kept: set[str]) -> dict[str, Any]:
        """What is learned from some corrections, on the pixels of others: before, after, and after how many steps."""
        learning, asked = self.squares(kept), self.squares(held)
        shared = {name: chip.truth for name, chip in learning.chips.items()}
        asked = Squares({n: c for n, chip in asked.chips.items() if (c := _without(chip, shared.get(n))).labelled.any()})
        if not asked.chips or not learning.chips:
            return {"steps": self.how.steps}
        weighed = Segment(Sum({"ce": 1.0}, _weights(asked)))
        before = measure(load(self.folder)[0], weighed, self.batches(asked), fabric_for(accelerator="cpu"))
        taught, ended = self.trained(learning, asked, self.how.steps)
        after = measure(taught, weighed, self.batches(asked), fabric_for(accelerator="cpu"))
        step = int(min(ended.history, key=lambda row: row["loss"])["step"])
        told = ("loss", "iou", "balanced_accuracy", "accuracy")
        numbers = {name: [_plain(one[name]) for one in (before, after)] for name in told}
        return {"corrections": len(held), "pixels": sum(asked.pixels), "steps": step, **numbers}

    def batches(self, squares: Squares, augment: Augment | None = None) -> Batches:
        """Of all of them."""
        return Batches(squares, squares.ids(""), self.level, min(BATCH, len(squares.chips)), seed=self.how.seed, augment=augment)

    def trained(self, squares: Squares, asked: Squares | None, steps: int) -> tuple[Model, Result]:
        """The network after so many steps, or with `asked` after those that were best on it."""
        learner = load(self.folder)[0]
        freeze(learner)
        for part in (learner.encoder, learner.decoder, learner.head):
            part.requires_grad_(True)
        plan = Plan(
            steps, lr=self.how.lr, every=max(1, steps // 4) if asked else steps, metric="loss" if asked else "step",
            smallest=asked is not None, seed=self.how.seed,
        )  # fmt: skip
        objective = Anchored(Segment(Sum({"ce": 1.0}, _weights(squares))), load(self.folder)[0], self.how.hold)
        said = "try" if asked else "teach"
        with TemporaryDirectory(prefix="aftermap-teach-") as work:
            ended = train(
                learner, objective, self.batches(squares, _AUGMENT), self.batches(asked or squares), plan, Path(work),
                fabric=fabric_for(accelerator="cpu"), said=lambda done, whole, _: self.progress(said, done, whole),
            )  # fmt: skip
        kept = load(self.folder)[0]  # whose batch norm is not held fast, as that of the learner is
        kept.load_state_dict(learner.state_dict())
        return kept.eval(), ended


def _chip(name: str, pixels: Any, truth: U8, level: Normaliser) -> Chip:
    """A square of SIDE_PX; what lies outside a small picture was not observed."""
    whole, codes = np.full((len(pixels), SIDE_PX, SIDE_PX), np.nan, np.float32), np.full((SIDE_PX, SIDE_PX), UNKNOWN, np.uint8)
    here = np.s_[: truth.shape[0], : truth.shape[1]]
    whole[:, *here], codes[here] = pixels, truth
    return Chip(whole, np.asarray(np.isfinite(whole).all(axis=0)), codes, level.bands, level.unit, name)


def _without(chip: Chip, known: U8 | None) -> Chip:
    """A chip whose truth is left out where another correction, that is learned from, says something."""
    assert chip.truth is not None
    return chip if known is None else replace(chip, truth=np.where(known == UNKNOWN, chip.truth, np.uint8(UNKNOWN)))


def _windows(shape: tuple[int, int]) -> list[Window]:
    """Squares that cover a picture, those at its far edges pulled back inside."""
    rows, cols = (starts(length, SIDE_PX, SIDE_PX) for length in shape)
    return [Window(r, c, min(SIDE_PX, shape[0]), min(SIDE_PX, shape[1])) for r in rows for c in cols]


def _weights(squares: Squares) -> tuple[float, float]:
    """Both kinds count alike, however large their polygons."""
    counts = squares.pixels
    return tuple(sum(counts) / (2 * n) if n else 1.0 for n in counts)  # type: ignore[return-value]


def _counted(rows: Mapping[str, Correction], squares: Squares) -> dict[str, Any]:
    other, hazard = squares.pixels
    return {
        "corrections": {kind: sum(row.kind == kind for row in rows.values()) for kind in LABELS},
        "pixels": {HAZARD: hazard, NOT_HAZARD: other}, "authors": len({row.author for row in rows.values()}),
    }  # fmt: skip


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def words(facts: Mapping[str, Any]) -> str:
    """What a model was taught by, and what that came to on corrections that were held out."""
    polygons, pixels, held = facts["corrections"], facts["pixels"], facts.get("held_out", {})
    told = f"{TARGET}: {polygons[HAZARD]} polygons of hazard ({pixels[HAZARD]} px) and {polygons[NOT_HAZARD]} of not hazard "
    told += f"({pixels[NOT_HAZARD]} px) by {facts['authors']} author{'s' * (facts['authors'] != 1)}, "
    told += f"{facts['steps']} step{'s' * (facts['steps'] != 1)}; "
    told += f"around them {facts['changed_elsewhere']:.1%} of what nobody labelled is now called otherwise"
    if "loss" not in held:
        return f"{told}; too few corrections to hold any out: what it is worth is not measured"
    pairs = ", ".join(
        f"{k.replace('_', ' ')} {held[k][0]} before and {held[k][1]} after" for k in ("loss", "iou") if None not in held[k]
    )
    return f"{told}; on {held['corrections']} corrections held out ({held['pixels']} px): {pairs}"


def _card(source: Card, name: str, facts: Mapping[str, Any], made_by: str) -> Card:
    """What was fitted to the source, or measured of it, does not hold any more."""
    told = words(facts)
    return replace(
        source, name=name, training_data=f"{source.training_data}; {told}; {facts['labels']} sha256 {facts['labels_sha256']}",
        licence=f"of the model: {source.licence}; of the corrections and the images under them: theirs, not recorded",
        made_by=made_by, sha256={}, calibration=None, scores=(), leads=False,
        why=f"{told}; nothing was measured on other ground, nor is it known which ground is familiar to it",
    )  # fmt: skip
