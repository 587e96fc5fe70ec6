"""A recipe on data, seed by seed: a folder each with the model and one row of results; what is there is not done again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aftermap import recipe as recipes
from aftermap.card import WEIGHTS, Card
from aftermap.datasets.dataset import open_dataset
from aftermap.errors import UnknownNameError, UsageError
from aftermap.foundation import AS_TRAINED, normaliser
from aftermap.journal import digest, write_json
from aftermap.page import Data
from aftermap.pieces import NO_HAZARD
from aftermap.recipe import Recipe
from aftermap.samples import Progress, Samples, survey
from aftermap.scored import Scored, score
from aftermap.untrained import Untrained

if TYPE_CHECKING:
    from aftermap.adapt.teach import Source

ROW, EACH, FACTS, UNSEEN, PRETRAINED = "row.json", "samples.npz", "facts.json", "unseen", "pretrained"
_NEEDED = ("torch", "timm", "segmentation_models_pytorch", "safetensors", "lightning_fabric", "tensorboard")


def _silent(*_: object) -> None:
    pass


def run(
    recipe: str | Path, data: Path, out: Path, *, seeds: Sequence[int] = (0,), overrides: Sequence[str] = (),
    targets: Mapping[str, Path] | None = None, pretrain_on: Path | None = None, progress: Progress = _silent,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row per fold and seed; a finished one of the same recipe, data and seed is read, not made again, a cut one goes on.

    `targets` says where the images of the recipe's targets are; those it names no folder for are left out. `pretrain_on` is the
    data of its pretraining where that is other data.
    """
    page = recipes.read(recipe, overrides)
    refuse_without_extra()
    first = page.pretraining
    if pretrain_on and first is None:
        raise UsageError(f"--pretrain-on {pretrain_on}, and {page.name} pretrains nothing", repair="leave it out")
    before = None if first is None else _samples(first, pretrain_on or data, progress)
    for name in targets or {}:
        if name not in page.targets:
            raise UnknownNameError("target", name, page.targets)
    if targets:
        _refuse_early(page, targets)
    said = " ".join(f"--set {shlex.quote(one)}" for one in overrides)
    elsewhere = f"--pretrain-on {pretrain_on.name} " if pretrain_on else ""
    made_by = f"aftermap run {recipe if str(recipe) in recipes.listed() else Path(recipe).name} {elsewhere}{said}".strip()
    found, folds = [], recipes.folds(page)
    for number, fold in enumerate(folds):
        samples = _samples(fold, data, progress)
        about = {"page_sha256": page.sha256, "fold": number if len(folds) > 1 else None}
        for seed in seeds:
            beside = None
            if first is not None and before is not None:
                _one(first, before, out / PRETRAINED, seed, made_by, about, progress)
                beside = out / PRETRAINED / _name(first, before, seed) / "model"
            found += [_one(one, samples, out, seed, made_by, about, progress, beside) for one in fold.members]
            if targets:
                _on_targets(fold, samples, out, seed, targets, progress, beside)
    return found


def _refuse_early(page: Recipe, targets: Mapping[str, Path]) -> None:
    """What could not be done after hours of training."""
    from aftermap.adapt.teach import settings_of

    for name, folder in targets.items():
        own = page.targets[name].data
        open_dataset(folder, own.kind, **own.settings)
    for one in page.adapts:
        if one.method != "bn":
            settings_of(one.method, one.arguments)


def _on_targets(
    recipe: Recipe, samples: Samples, out: Path, seed: int, targets: Mapping[str, Path], progress: Progress,
    beside: Path | None,
) -> None:  # fmt: skip
    """The trained network on what it never saw."""
    from aftermap import learn, unseen

    members = recipe.members
    models = [out / _name(one, samples, seed, beside) / "model" for one in members]
    together = models[0].parent if len(members) == 1 else out / _name(replace(recipe, targets={}), samples, seed, beside)

    def source() -> Source:
        from aftermap.adapt.teach import Source

        return Source(samples, next(step.train.losses for step in recipe.steps if step.train))

    with ExitStack() as stack:
        first = [learn.first_weights(one, samples, Card.read(model)) for one, model in zip(members, models, strict=True)]
        firsts = [stack.enter_context(one) for one in first]
        for done, (name, data) in enumerate(targets.items(), 1):
            target, own = recipe.targets[name], together / UNSEEN / name
            unseen.run(models, firsts, target, data, recipe.adapts, own, out / UNSEEN, seed=seed, source=source)
            progress(f"seed {seed} on targets", done, len(targets))


def train_own(recipe: Recipe, data: Path, out: Path, *, seed: int, made_by: str, progress: Progress = _silent) -> dict[str, Any]:
    """One training into a model folder, and its row. Raises UsageError ("other-run", "extra-missing")."""
    refuse_without_extra()
    from aftermap import learn

    _refuse_taken(out)
    samples = _samples(recipe, data, progress)
    card = learn.learn(out, recipe, samples, seed=seed, name=out.resolve().name, made_by=made_by, progress=progress)
    row, each = learn.row(recipe, samples, out, card, progress=progress)
    return _written(out, {"page_sha256": recipe.sha256, "fold": None} | row, each)


def layers(data: Path, own: Data) -> tuple[str, ...]:
    """Every layer that a data set has, after first."""
    bands = open_dataset(data, own.kind, **own.settings).bands
    return tuple(sorted({band.rpartition(".")[0] or "after" for band in bands}))


def refuse_without_extra() -> None:
    """Raises UsageError ("extra-missing") where torch or what goes with it is not installed."""
    if lacking := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(
            f"{', '.join(lacking)} not installed, and training needs it",
            repair='pip install "aftermap[train]"',
            code="extra-missing",
        )


def _refuse_taken(out: Path) -> None:
    """A training that was cut short leaves no row."""
    if (out / "model.toml").exists() and ((out / ROW).exists() or not (out / "training").is_dir()):
        raise UsageError(f"{out} already holds a model", repair="choose another -o", code="other-run")


def _samples(recipe: Recipe, data: Path, progress: Progress) -> Samples:
    dataset = open_dataset(data, recipe.data.kind, **recipe.data.settings)
    trained = recipe.normalise == AS_TRAINED
    found = survey(
        dataset, recipe.inputs, split=recipe.split, size=recipe.chips.size,
        normalise="all" if trained else recipe.normalise, classes=recipe.classes,
        of_chips=recipe.objective in ("classify", "regress"), unlabelled=recipe.unlabelled,
        presence=recipe.target == "presence", norm_bug="norm_bug" in recipe.fidelity, progress=progress,
    )  # fmt: skip
    if not trained:
        return found
    own = normaliser(recipe.model.encoder, found.reference, found.inputs, each_date=recipe.model.fusion == "siamese")
    return replace(found, reference=own, normaliser=own)


def _one(
    recipe: Recipe, samples: Samples, out: Path, seed: int, made_by: str, about: Mapping[str, Any], progress: Progress,
    beside: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One row of one fold; `about` says of which page and which fold, `beside` is the model of the pretraining."""
    folder = out / _name(recipe, samples, seed, beside)
    if (folder / ROW).is_file():
        found: dict[str, Any] = json.loads((folder / ROW).read_text(encoding="utf-8"))
        return found
    from aftermap import learn

    own = f"{made_by} --seeds {seed}"
    if recipe.unlabelled:
        from aftermap import unlabelled

        found = unlabelled.learn(folder / "model", recipe, samples, seed=seed, made_by=own, progress=progress)
        return _written(folder, {**about, **found}, None)
    card = learn.learn(
        folder / "model", recipe, samples, seed=seed, name=recipe.name, made_by=own, progress=progress, beside=beside
    )
    row, each = learn.row(recipe, samples, folder / "model", card, progress=progress)
    if each is not None and recipe.hazard != NO_HAZARD:
        row["without_training"] = _without_training(recipe, samples.hazard(card.lead), out, progress)
    return _written(folder, {**about, **row}, each)


def _name(recipe: Recipe, samples: Samples, seed: int, beside: Path | None = None) -> str:
    others = [Card.read(folder).sha256[WEIGHTS] for folder in (beside, recipe.model.start) if folder]
    own = [recipe.sha256, samples.sha256, seed, *others]
    return f"{recipe.name}-seed{seed}-{digest(own)[:12]}"


def _written(folder: Path, row: dict[str, Any], each: Scored | None) -> dict[str, Any]:
    """The scores of each sample, then the row, which says that all is there."""
    if each is not None:
        each.write(folder / EACH)
    write_json(folder / ROW, row)
    return row


def _without_training(recipe: Recipe, samples: Samples, out: Path, progress: Progress) -> dict[str, Any]:
    """What the methods without training come to on the same chips, whole; worked out once for all seeds."""
    folder = out / f"without-training-{digest([recipe.hazard, samples.sha256, *recipe.map.hazard_classes])[:12]}"
    if (folder / FACTS).is_file():
        known: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return known
    mapped = Untrained(recipe.hazard)
    pooled, each = score(samples.whole("test", progress, "score without training"), mapped)
    folder.mkdir(parents=True, exist_ok=True)
    each.write(folder / EACH)
    found = {
        "methods": sorted(mapped.made_by), "refused": mapped.refused, "scores": pooled.row(), "folder": folder.name,
        "counts": {event: asdict(c) for event, c in each.by_event().items()},
    }  # fmt: skip
    write_json(folder / FACTS, found)
    return found
