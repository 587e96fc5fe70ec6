"""From a recipe and samples to the folder of a model: built, trained step by step, exported, calibrated and scored as it maps.

Scores are those of the exported graph through the engine, so that what is scored is what maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import calibration, checkpoint, classed, foundation, known, lowrank, scored
from aftermap.augment import Augment
from aftermap.batches import Batches, readers
from aftermap.card import NORMALISED, WEIGHTS, Card, Fit
from aftermap.chips import F32, Chip
from aftermap.cost import Clock, Cost
from aftermap.encoders import Weights, asked
from aftermap.engine import Network
from aftermap.errors import InputRefusedError
from aftermap.evaluate import Evaluation
from aftermap.foundation import AS_TRAINED, FOUNDATIONS
from aftermap.halo import HALOS, measured
from aftermap.losses import Sum
from aftermap.metrics import CALIBRATION_BINS, Counts, Reliability
from aftermap.model import PATCHES, WHOLE, Model, Spec, build, dense, load, save, spec_of
from aftermap.objectives.classify import Classify
from aftermap.objectives.regress import Regress
from aftermap.objectives.segment import Segment
from aftermap.page import Network as Said
from aftermap.page import Train
from aftermap.recipe import Recipe
from aftermap.samples import Progress, Samples
from aftermap.scored import Scored
from aftermap.scorer import LayerBands
from aftermap.surgery import freeze, thaw
from aftermap.torchdoor import nn
from aftermap.train import Plan, Result, fast_precision, train

_HALO_CHIPS = 36
"""Validation chips that the halo is measured on, at most."""
METRICS = {"map": "iou", "class": "macro_f1", "classes": "macro_f1", "number": "rmse"}
"""What chooses the checkpoint where the recipe does not say; of several classes per pixel macro_iou."""
MOST_NAMED = 12
"""Events that a card names one by one."""
_BUDGET = 1
"""Apart from what else the seed draws."""
WHY = "not compared with the method without training on real data"


def learn(
    folder: Path, recipe: Recipe, samples: Samples, *, seed: int, name: str, made_by: str, progress: Progress,
    beside: Path | None = None,
) -> Card:  # fmt: skip
    """Trains and writes `folder`, with the trainings in its `training/`; a training that was cut short goes on from there.

    `beside` is the model folder of the recipe's pretraining.
    """
    weights = asked(recipe.model.encoder, recipe.model.weights) if recipe.model.start is None else None
    card = _card(recipe, samples, seed, name, made_by, weights)  # refuses what no map could read, before it is trained
    model = build(_spec(recipe, samples), seed=seed, weights=weights)
    if recipe.model.start is not None:
        _begin(model, recipe.model.start, samples)
    _operate(model, recipe, seed)
    if model.beside is not None:
        if beside is not None:
            model.beside.load_state_dict(load(beside)[0].encoder.state_dict())
        if "bn_leak" in recipe.fidelity:
            leak(model.beside)
    for number, step in enumerate(recipe.steps):
        assert step.train is not None
        ended = _trained(model, recipe, step.train, samples, seed, folder / "training" / f"step-{number}", progress)
    for place, path in enumerate(ended.kept[1:], start=2):
        checkpoint.read(path, model)
        save(folder / "checkpoints" / str(place), _delivered(model, recipe), replace(card, name=f"{name}-{place}"))
    checkpoint.read(ended.kept[0], model)
    card = save(folder, _delivered(model, recipe), card)
    if "lora" in recipe.surgery:
        lowrank.write(folder, model, asdict(recipe.lora))
    if samples.of_chips:
        if model.spec.decoder == "activation":
            dense(folder, folder / "map")
            remember(folder / "map", samples, seed)
        return remember(folder, samples, seed)
    pooled, _ = score(folder, samples, "validation", progress)
    card = replace(card, calibration=_fit(pooled, samples), halo_px=_halo(folder, samples))
    card.write(folder)
    return remember(folder, samples, seed)


def _halo(folder: Path, samples: Samples) -> int:
    """Of a saved network, on the first samples of validation."""
    chips = [samples.as_mapped(samples.read(name)) for name in samples.ids("validation")[:_HALO_CHIPS]]
    return measured(Network.open(folder, precision="f32"), chips)


def _operate(model: Model, recipe: Recipe, seed: int = 0) -> lowrank.Facts | None:
    """The surgery before training; what then learns, where it is a part of the encoder."""
    if "freeze_encoder" in recipe.surgery:
        freeze(model.encoder)
    if "bitfit" in recipe.surgery:
        return lowrank.only_biases(model)
    return lowrank.put(model, **asdict(recipe.lora), seed=seed) if "lora" in recipe.surgery else None


def _delivered(model: Model, recipe: Recipe) -> Model:
    return lowrank.merged(model) if "lora" in recipe.surgery else model


def remember(folder: Path, samples: Samples, seed: int) -> Card:
    """Writes known.npz of a saved network: embeddings of samples of training and of validation that the seed draws."""
    network = Network.open(folder, precision="f32", engine="openvino")

    def chips(side: str) -> Iterator[F32]:
        yield from (samples.as_mapped(samples.read(name)) for name in known.drawn(samples.ids(side), side, seed))

    return known.keep(network, chips("train"), chips("validation"), samples.size)


def score(folder: Path, samples: Samples, split: str, progress: Progress) -> tuple[Evaluation, Scored]:
    """The saved network on every sample of a split, of several classes those that are the hazard."""
    network = Network.open(folder, precision="f32")
    chips = samples.hazard(network.card.lead).each(split, progress, f"score {split}")

    def scores_of(chip: Chip) -> F32:
        return np.asarray(network(samples.as_mapped(chip)[None], chip.valid[None])[0, 0])

    return scored.score(chips, scores_of, likelihood=network.calibration)


def untrained(recipe: Recipe, samples: Samples, card: Card) -> Evaluation:
    """The network with its first weights on the test split: what the training is worth."""
    with first_weights(recipe, samples, card) as folder:
        return score(folder, samples, "test", lambda *_: None)[0]


@contextmanager
def first_weights(recipe: Recipe, samples: Samples, card: Card) -> Iterator[Path]:
    """A model folder for a while: the network of a card as it was before training."""
    with TemporaryDirectory(prefix="aftermap-untrained-") as folder:
        save(Path(folder), build(_spec(recipe, samples), seed=card.seed), replace(card, calibration=None, scores=()))
        yield Path(folder)


def _card(recipe: Recipe, samples: Samples, seed: int, name: str, made_by: str, weights: Weights | None) -> Card:
    facts, events = samples.dataset.facts, events_named(samples.events["train"])
    count = len(learned(samples, recipe, seed))
    data = f"{samples.dataset.name} ({facts.title}), {count} samples of {samples.size} px; events: {events}"
    licence = f"of the training data: {facts.licence}"
    if weights is not None:
        data, licence = f"{data}; encoder from {weights.source}", f"{licence}; of the encoder's weights: {weights.licence}"
    elif recipe.model.encoder in FOUNDATIONS and recipe.model.start is None:
        data = f"{data}; {recipe.model.encoder} with first weights, as if nobody had trained it"
    if (start := recipe.model.start) is not None:
        first = Card.read(start)
        data = f"{data}; encoder from {first.name}, which learned from {first.training_data}"
        licence = f"{licence}; of the encoder's weights: {first.licence}"
    gives = _gives(recipe, samples)
    several = bool(samples.classes) and gives != "number"
    hazard_classes = () if samples.of_chips else recipe.map.hazard_classes or samples.classes[1:]
    return Card(
        name=name, hazard=recipe.hazard, classes=samples.classes if several else (recipe.hazard,), hazard_classes=hazard_classes,
        gives=gives, chip_px=samples.size if samples.of_chips else 0,
        inputs=samples.inputs, mean=samples.reference.mean, std=samples.reference.std,
        normalise=_as_mapped(recipe.normalise), halo_px=HALOS[-1], multiple_of=32,
        training_data=data, training_sha256=samples.sha256, licence=licence, made_by=made_by,
        sha256={}, threshold=recipe.map.threshold, seed=seed, why=WHY,
    )  # fmt: skip


def _as_mapped(normalise: str) -> str:
    """What the card says of a recipe's way: statistics of the model hold wherever it maps."""
    return "all" if normalise == AS_TRAINED else normalise if normalise in NORMALISED else "scene"


def _gives(recipe: Recipe, samples: Samples) -> str:
    if recipe.objective != "classify":
        return {"segment": "map", "regress": "number"}[recipe.objective]
    first = samples.read(samples.ids("train")[0]).target
    return "classes" if isinstance(first, tuple) else "class"


def _objective(recipe: Recipe, step: Train, samples: Samples) -> Segment | Classify | Regress:
    ranked = step.objective == "classify" and "batch_softmax" in recipe.fidelity
    weights = _balanced(samples) if step.balance else step.class_weights
    loss = Sum({"batch_softmax": 1} if ranked else step.losses, weights or None, step.hard_pixels)
    if step.objective == "regress":
        return Regress(loss)
    return (Classify if step.objective == "classify" else Segment)(loss, len(samples.classes) or 2)


def events_named(events: Sequence[str]) -> str:
    """All of a few events, the first and the last of many."""
    return ", ".join(events) if len(events) <= MOST_NAMED else f"{len(events)}, {events[0]} to {events[-1]}"


def _spec(recipe: Recipe, samples: Samples) -> Spec:
    dates: dict[str, int] = {}
    for one in samples.inputs:
        dates[one.layer] = dates.get(one.layer, 0) + len(one.bands)
    gives, bands = _gives(recipe, samples), tuple(dates.values())
    outputs = 1 if gives == "number" else len(samples.classes) or 1
    decoder = "pool" if samples.of_chips and recipe.model.decoder not in WHOLE else recipe.model.decoder
    made = _of(replace(recipe.model, decoder=decoder), bands, recipe.chips.upsample, samples)
    first = recipe.pretrain if recipe.pretrain and recipe.pretrain.use != "none" else None
    other = None if first is None else _of(first.model, bands, recipe.chips.upsample, samples)
    return replace(made, outputs=outputs, gives=gives, beside=other)


def _of(said: Said, bands: tuple[int, ...], upsample: float, samples: Samples) -> Spec:
    fusion = said.fusion if said.fusion != "auto" else "early" if len(bands) > 1 else "single"
    widths = said.widths or ((samples.size,) if said.decoder == "fc" else ())
    side = 0 if said.encoder not in PATCHES else samples.size if said.start is None else spec_of(said.start).side
    reads = foundation.reads(samples.inputs, each_date=fusion == "siamese") if said.encoder in FOUNDATIONS else ()
    return Spec(said.encoder, said.decoder, bands, 1, fusion, widths, upsample, side=side, reads=reads)


def _begin(model: Model, start: Path, samples: Samples) -> None:
    """Puts in the encoder of a model folder. Raises InputRefusedError ("weights-misfit") where it is another, or reads others."""
    given, card = load(start)
    there, here = (
        f"{one.encoder} of {reads}" for one, reads in ((given.spec, _reads(card.inputs)), (model.spec, _reads(samples.inputs)))
    )
    if there != here or given.spec.fusion != model.spec.fusion:
        raise InputRefusedError(
            f"{start} is {there}, fused {given.spec.fusion}, and here stands {here}, fused {model.spec.fusion}",
            repair="choose the encoder, the inputs and the fusion that it was trained with", code="weights-misfit",
        )  # fmt: skip
    model.encoder.load_state_dict(given.encoder.state_dict())


def _reads(inputs: Sequence[LayerBands]) -> str:
    """Bands and units in words, whatever the layers are called."""
    return ", ".join(f"{band} in {one.unit}" for one in inputs for band in one.bands)


def _trained(model: Any, recipe: Recipe, step: Train, samples: Samples, seed: int, folder: Path, progress: Progress) -> Result:
    learning, checking = learned(samples, recipe, seed), samples.ids("validation")
    steps = step.steps or max(1, ceil(step.epochs * len(learning) / step.batch))
    metric = step.metric or ("macro_iou" if step.objective == "segment" and samples.classes else METRICS[model.spec.gives])
    plan = Plan(
        steps, lr=step.lr, encoder_lr=step.encoder_lr, weight_decay=step.weight_decay, weight_decay_end=step.weight_decay_end,
        decay=step.decay, schedule=step.schedule, schedule_options=schedule_options(step, len(learning)),
        every=step.every or max(1, steps // 10), metric=metric, smallest=metric in ("loss", "rmse"), patience=step.patience,
        seed=seed, precision=precision(step), keep=step.keep, clip=step.clip,
    )  # fmt: skip
    objective = _objective(recipe, step, samples)
    augment = Augment(**step.augmentation) if step.augment else None
    clock = Clock(lambda done, whole: progress("train", done, whole))
    ended = train(
        model, objective,
        Batches(
            samples, learning, samples.normaliser, step.batch, seed=seed, augment=augment, workers=readers(steps * step.batch)
        ),
        Batches(samples, checking, samples.normaliser, step.batch),
        plan, folder, said=clock,
    )  # fmt: skip
    if clock.moments:
        Cost.of(model, clock, len(learning), step.batch).write(folder)
    return ended


def _balanced(samples: Samples) -> tuple[float, ...]:
    """Weights of classes by one over the root of their chips of training, of mean 1 over these chips."""
    codes = [samples.read(name).target for name in samples.ids("train")]
    counts = np.maximum([codes.count(k) for k in range(len(samples.classes) or 2)], 1)
    return tuple((np.sqrt(1 / counts) * counts.sum() / np.sqrt(counts).sum()).tolist())


def leak(frozen: nn.Module) -> None:
    """Lets batch norm of a frozen network count on, as in the code of Boehm et al. 2022 (methods.md B.4)."""
    thaw(frozen).requires_grad_(False)


def learned(samples: Samples, recipe: Recipe, seed: int) -> list[str]:
    """The chips of training that are used."""
    every, most = samples.ids("train"), recipe.chips.most
    order = np.random.default_rng([seed, _BUDGET]).permutation(len(every))[: most or None]
    return [every[k] for k in sorted(order)]


def schedule_options(step: Train, chips: int) -> dict[str, Any]:
    """Of the schedule, in steps."""
    passed = {"milestones": [ceil(m * chips / step.batch) for m in step.milestones]} if step.milestones else {}
    return {"warmup": step.warmup, **passed}


def _fit(pooled: Evaluation, samples: Samples) -> Fit | None:
    """One temperature from the pixels that chose the checkpoint; None where that brings them no nearer the truth."""
    levels = pooled.ranking.levels
    if not levels.sum(axis=1).all():
        return None
    temperature = calibration.temperature(levels)
    left, before = _error_left(levels, temperature), pooled.reliability.expected_calibration_error
    on = f"{len(samples.ids('validation'))} samples that chose the checkpoint"
    return Fit(left, on, temperature=temperature) if before is not None and left < before else None


def _error_left(levels: npt.NDArray[np.int64], temperature: float) -> float:
    """ECE of pixels (2, level) whose scores are tempered."""
    used = levels.any(axis=0)
    likelihood = np.interp(np.flatnonzero(used) / (levels.shape[1] - 1), *calibration.tempered(temperature))
    place = np.minimum((likelihood * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    pixels = levels[:, used].sum(axis=0).astype(np.float64)
    rows = (pixels, pixels * likelihood, levels[1, used].astype(np.float64))
    bins = np.stack([np.bincount(place, weights=one, minlength=CALIBRATION_BINS) for one in rows])
    return Reliability(bins.astype(np.float64)).expected_calibration_error or 0.0


def trivial(counts: Counts) -> dict[str, dict[str, float | None]]:
    """What marking everything, or nothing, would score on the same pixels."""
    hazard, clear = counts.tp + counts.fn, counts.fp + counts.tn
    rules = {"all_hazard": Counts(tp=hazard, fp=clear), "no_hazard": Counts(fn=hazard, tn=clear)}
    return {name: {k: getattr(c, k) for k in ("iou", "f1", "balanced_accuracy")} for name, c in rules.items()}


def row(
    recipe: Recipe, samples: Samples, folder: Path, card: Card, *, progress: Progress
) -> tuple[dict[str, Any], Scored | None]:
    """What one training came to: who, on what, and its scores on the test split, once, after all choices; also in its card."""
    told = about(recipe, samples, card)
    if {"lora", "bitfit"}.intersection(recipe.surgery) and (learning := _operate(build(_spec(recipe, samples)), recipe)):
        told |= {"learning": asdict(learning)}
    if not samples.ids("test"):
        return told | {"scores": None, "trivial": {}, "untrained": None, "counts": {}, "by_event": {}}, None
    several = classed.score(folder, samples, "test") if samples.classes or samples.of_chips else None
    if samples.of_chips:
        assert several is not None
        _into_card(folder, card, samples, several.scores)
        labels = {"scores": several.scores, "trivial": several.trivial, "by_event": several.by_event}
        return told | {"untrained": None, "counts": {}} | labels, None
    pooled, each = score(folder, samples, "test", progress)
    scores, beside = pooled.row(), trivial(pooled.counts)
    if several:
        scores, beside = scores | several.scores, beside | several.trivial
    _into_card(folder, card, samples, scores)
    return told | {
        "scores": scores, "trivial": beside, "untrained": untrained(recipe, samples, card).row(),
        "counts": {event: asdict(c) for event, c in each.by_event().items()}, "by_event": several.by_event if several else {},
    }, each  # fmt: skip


def about(recipe: Recipe, samples: Samples, card: Card) -> dict[str, Any]:
    """What a row says of a training whatever it came to."""
    return {
        "recipe": recipe.name, "recipe_sha256": recipe.sha256, "seed": card.seed, "data": samples.dataset.name,
        "data_sha256": samples.sha256, "settings": dict(recipe.data.settings),
        "events": {k: list(v) for k, v in samples.events.items()},
        "samples": {k: len(learned(samples, recipe, card.seed) if k == "train" else samples.ids(k)) for k in samples.events},
        "validation_dealt": samples.dealt, "unseen": samples.unseen,
        "untouched": bool(samples.ids("test")) and recipe.normalise in ("all", AS_TRAINED, "chip"),
        "weights_sha256": card.sha256[WEIGHTS],
        "precision": [precision(step.train) for step in recipe.steps if step.train],
        "versions": {"aftermap": version("aftermap"), **card.versions}, "made_by": card.made_by,
        "classes": list(samples.classes),
    }  # fmt: skip


def _into_card(folder: Path, card: Card, samples: Samples, scores: dict[str, Any]) -> None:
    known = {k: v for k, v in scores.items() if v is not None and not (isinstance(v, list) and None in v)}  # TOML has no null
    mine = {"data": samples.dataset.name, **known, "unseen": samples.unseen, "events": len(samples.events["test"])}
    replace(card, scores=(mine,)).write(folder)


def precision(step: Train) -> str:
    return fast_precision() if step.precision == "auto" else step.precision
