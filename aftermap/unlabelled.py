"""From a recipe without labels and samples to model folders that give embeddings, and one row of what the training came to.

The model of `clip` is a folder of one model for each modality. Others start from them: `model.weights = "FOLDER"`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from aftermap import known
from aftermap.augment import Augment
from aftermap.batches import Batches, readers
from aftermap.card import WEIGHTS, Card
from aftermap.chips import Chip
from aftermap.engine import Network
from aftermap.journal import digest
from aftermap.learn import WHY, about, events_named, learned, precision, schedule_options
from aftermap.model import Model, Spec, build, save
from aftermap.multicrop import Bands
from aftermap.normalise import F32, Normaliser, Separated
from aftermap.page import Train
from aftermap.recipe import Recipe
from aftermap.samples import Progress, Samples
from aftermap.strict import value
from aftermap.torchdoor import nn, torch
from aftermap.train import Objective, Plan, Result, fabric_for, measure, train
from aftermap.vit import NAMES as VITS

DECODERS = {"mae": "mean", "dino": "token", "clip": "projected", "contrast": "mean"}
"""What of the encoder an objective makes the embedding."""
BY_LAYER = "clip"
"""The objective with a model for each layer."""
COLOUR = 3
"""Bands of a picture."""
TARGET_LAYER = {"contrast": "dem"}
"""Objective -> a layer that is told, not seen."""


@dataclass(frozen=True)
class Apart:
    """Normalised pixels of chips of which whole bands may lack: 0 where a band itself was not observed."""

    of_all: Normaliser | Separated

    def of(self, chip: Chip) -> F32:
        """As the class says (band, y, x)."""
        there = np.isfinite(chip.pixels)
        known = replace(chip, pixels=np.where(there, chip.pixels, np.float32(0)), valid=np.ones(chip.shape, bool))
        return np.where(there, self.of_all.of(known), np.float32(0))


@dataclass(frozen=True)
class Prepared:
    """All that a training without labels takes, as train.train has it, and the models that are kept, by layer."""

    models: dict[str, Model]
    network: nn.Module
    objective: Objective
    training: Batches
    validation: Batches
    plan: Plan


def prepare(recipe: Recipe, samples: Samples, seed: int) -> Prepared:
    """What the recipe's one step says, with first weights of the seed."""
    step = recipe.steps[0].train
    assert step is not None
    bands, used = _bands(samples), learned(samples, recipe, seed)
    pieces = import_module(f"aftermap.objectives.{step.objective}")
    settings = value(dict(step.settings), pieces.Settings, "train.settings")
    models, plan = _models(recipe, samples, bands, settings, seed), _plan(step, len(used), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, objective = pieces.prepare(models, bands, settings, plan.steps)
    normaliser = Apart(samples.normaliser) if step.objective == BY_LAYER else samples.normaliser
    augment = Augment(**step.augmentation) if step.augment else None
    training = Batches(
        samples, used, normaliser, step.batch, seed=seed, augment=augment, domains=_regions(samples, step),
        workers=readers(plan.steps * step.batch),
    )  # fmt: skip
    validation = Batches(samples, samples.ids("validation"), normaliser, step.batch, seed=seed)
    return Prepared(models, network, objective, training, validation, plan)


def learn(folder: Path, recipe: Recipe, samples: Samples, *, seed: int, made_by: str, progress: Progress) -> dict[str, Any]:
    """Trains, writes `folder` and gives the row; a training that was cut short goes on."""
    made = prepare(recipe, samples, seed)
    fabric = fabric_for(precision=made.plan.precision)
    first = measure(made.network.to(fabric.device), made.objective, made.validation, fabric)["loss"]
    result = train(
        made.network, made.objective, made.training, made.validation, made.plan, folder / "training", fabric=fabric,
        said=lambda done, whole, _: progress("train", done, whole),
    )  # fmt: skip
    cards = {layer: _saved(folder / layer, model, layer, recipe, samples, seed, made_by) for layer, model in made.models.items()}
    return _row(recipe, samples, cards, first, result)


def _bands(samples: Samples) -> Bands:
    own = samples.reference
    return Bands(own.bands, own.unit, own.mean, own.std)


def _models(recipe: Recipe, samples: Samples, bands: Bands, settings: Any, seed: int) -> dict[str, Model]:
    """The models that are kept, by layer; one alone by "". Of several each reads a band at a time, but pictures in colour."""
    objective, said = recipe.objective, recipe.model
    made = {}
    for number, (name, own) in enumerate(_groups(bands, objective).items()):
        counts = tuple(len(bands.places(layer)) for layer in own)
        fusion = said.fusion if said.fusion != "auto" else "each" if name and counts[0] != COLOUR else "single"
        spec = Spec(
            said.encoder, DECODERS[objective], (sum(counts),), settings.width if name else 1, fusion,
            side=samples.size if said.encoder in VITS else 0, gives="embedding",
        )  # fmt: skip
        made[name] = build(spec, seed=seed + number)
    return made


def _groups(bands: Bands, objective: str) -> dict[str, tuple[str, ...]]:
    """Layers that each model sees, by its name."""
    layers = tuple(layer for layer in bands.layers if layer != TARGET_LAYER.get(objective))
    return {layer: (layer,) for layer in layers} if objective == BY_LAYER else {"": layers}


def _plan(step: Train, chips: int, seed: int) -> Plan:
    steps = step.steps or max(1, ceil(step.epochs * chips / step.batch))
    return Plan(
        steps, lr=step.lr, weight_decay=step.weight_decay, weight_decay_end=step.weight_decay_end, decay=step.decay,
        clip=step.clip, schedule=step.schedule, schedule_options=schedule_options(step, chips),
        every=step.every or max(1, steps // 10), metric=step.metric or "step", smallest=step.metric == "loss",
        patience=step.patience, keep=1, seed=seed, precision=precision(step),
    )  # fmt: skip


def _regions(samples: Samples, step: Train) -> dict[str, str]:
    """Chip -> event, so that a batch has chips of all: neighbours are hardly the different places that they count as."""
    if step.objective not in ("clip", "contrast"):
        return {}
    return {name: samples.dataset.members[samples.places[name][0]].event for name in samples.ids("train")}


def _saved(folder: Path, model: Model, layer: str, recipe: Recipe, samples: Samples, seed: int, made_by: str) -> Card:
    bands = _bands(samples)
    seen = _groups(bands, recipe.objective)[layer]
    own = bands.of(bands.places(*seen))
    facts, count = samples.dataset.facts, len(learned(samples, recipe, seed))
    card = Card(
        name=f"{recipe.name}-{layer}" if layer else recipe.name, hazard=recipe.hazard, classes=("embedding",),
        inputs=tuple(one for one in samples.inputs if one.layer in seen),
        mean=own.mean, std=own.std, halo_px=0, multiple_of=model.spec.multiple_of,
        training_sha256=samples.sha256,
        training_data=f"{samples.dataset.name} ({facts.title}), {count} samples of {samples.size} px, without labels; "
        f"events: {events_named(samples.events['train'])}",
        licence=f"of the training data: {facts.licence}", made_by=made_by, sha256={}, gives="embedding", chip_px=samples.size,
        seed=seed, why=WHY,
    )  # fmt: skip
    save(folder, model.eval(), card)
    places = bands.places(*seen)
    network = Network.open(folder, precision="f32", engine="openvino")

    def chips(side: str) -> Iterator[F32]:
        yield from (samples.as_mapped(samples.read(one))[places] for one in known.drawn(samples.ids(side), side, seed))

    return known.keep(network, chips("train"), chips("validation"), samples.size)


def _row(recipe: Recipe, samples: Samples, cards: dict[str, Card], first_loss: float, result: Result) -> dict[str, Any]:
    """A row without scores: what an embedding is worth shows in what is made of it."""
    first, *_ = cards.values()
    sums = [card.sha256[WEIGHTS] for card in cards.values()]
    last = result.history[-1]
    return about(recipe, samples, first) | {
        "scores": None, "trivial": {}, "untrained": None, "counts": {}, "by_event": {},
        "weights_sha256": sums[0] if len(sums) == 1 else digest(sums), "skipped": dict(samples.skipped),
        "pretraining": {
            "steps": result.steps, "first_loss": first_loss, "loss": last["loss"], "spread": last["spread"],
        },
    }  # fmt: skip
