"""The trainings of benchmarks/lora_floods.py: encoders without labels, then few or all of their parameters, groups held out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from aftermap import recipe, scored
from aftermap.cost import COST
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.learn import learn
from aftermap.measured import peak_mb
from aftermap.samples import Samples, survey
from aftermap.scored import Scored
from aftermap.untrained import Untrained
from benchmarks import finished, pretraining_runs
from benchmarks.label_efficiency_runs import MAPPED, SIZE, STARTS, batched

RUN = "python -m benchmarks.lora_floods"
STEPS, BATCH, FEW = 100, 16, 12
SEEN, CHOOSING, CHOSEN = "seen-", "choosing-", "chosen.npz"
"""Lead the names of pictures of a group that are tested, and that choose a threshold, when its others are learned from."""
EVERY = 5
"""Of the pictures of a group one in so many is tested, and half as many choose a threshold."""
Fold = tuple[str, ...]
"""Groups that are held out together."""


@dataclass(frozen=True)
class Study:
    """A data set in groups, and which are held out."""

    folder: str
    """Below --data."""
    kind: str
    settings: dict[str, str]
    parts: tuple[tuple[Fold, ...], ...]
    """Folds of one part have one training without labels, which sees no image of any of their groups."""
    ways: dict[str, tuple[str, ...]]
    """Encoder -> of its ways those that are tried."""
    chosen: Fold = ()
    """Groups that stand for validation, where no pictures of those that are learned from are kept for it, nor for a test."""

    @property
    def data(self) -> str:
        """As a page says it."""
        return f"data={{'kind': '{self.kind}', 'settings': {self.settings}}}"

    @property
    def folds(self) -> tuple[Fold, ...]:
        """All of them."""
        return tuple(fold for part in self.parts for fold in part)

    @property
    def groups(self) -> tuple[str, ...]:
        """All that are held out."""
        return tuple(sorted(group for fold in self.folds for group in fold))


@dataclass(frozen=True)
class Way:
    """What learns of an encoder, and how fast."""

    overrides: tuple[str, ...]
    encoder_lr: float = 1e-4


LR = 1e-3
"""Of decoder and head."""
_LORA = "surgery=['lora']"
WAYS = {
    "frozen": Way(("surgery=['freeze_encoder']",)), "lora-16": Way((_LORA, "lora.rank=16")), "all": Way(()),
    "lora-16, one rate": Way((_LORA, "lora.rank=16"), LR), "all, one rate": Way((), LR),
    **{f"lora-{rank}": Way((_LORA, f"lora.rank={rank}")) for rank in (4, 64)}, "bitfit": Way(("surgery=['bitfit']",)),
}  # fmt: skip
"""What tells most first."""


@dataclass(frozen=True)
class Encoder:
    """How it began, its decoder, and the layers that have updates."""

    start: str
    """Of label_efficiency_runs.STARTS."""
    decoder: str
    layers: str


ENCODERS = {"vit": Encoder("mae", "deconv", "attention"), "cnn": Encoder("glcnet", "unet", "all")}
STUDIES = {
    "OMBRIA": Study(
        "flood_ombria", "ombria", {"image": "s1"},
        ((("A+B+H", "J"), ("C", "D")), (("E", "K"), ("F", "I")), (("L", "P"), ("M", "N"))),
        {"vit": tuple(WAYS), "cnn": tuple(way for way in WAYS if way not in ("lora-64", "bitfit"))},
    ),
    "Sen1Floods11": Study(
        "flood_sen1floods11", "sen1floods11", {"image": "s1"},
        (tuple((event,) for event in ("Nigeria", "Pakistan", "Somalia", "Spain", "Sri-Lanka", "USA")),),
        {"vit": tuple(WAYS)[:5]}, ("Ghana", "Paraguay"),
    ),
}  # fmt: skip
"""Chips of Ghana and Paraguay have no water where they are labelled; an encoder of Sen1Floods11 begins with simulated radar."""
PAGE = """hazard = "flood"
inputs = ["after"]
chips = {{ size = {size} }}
model = {{ encoder = "{encoder}", decoder = "{decoder}", weights = "{weights}" }}
lora = {{ layers = "{layers}" }}
[[steps]]
train = {{ losses = {{ ce = 1, dice = 1 }}, steps = {steps}, batch = {batch}, lr = {lr}, encoder_lr = {encoder_lr}, weight_decay = 0.01, warmup = {warmup}, every = {steps} }}
"""  # noqa: E501


@dataclass(frozen=True)
class One:
    """One training with labels."""

    study: str
    encoder: str
    way: str
    held: Fold
    seed: int

    def _out(self, runs: Path) -> Path:
        return runs / "lora-floods" / self.study / self.encoder / named(self.way) / f"{'_'.join(self.held)}-{self.seed}"

    def folder(self, runs: Path) -> Path | None:
        """Where it is; None where it was not trained."""
        out = self._out(runs)
        return out if (out / MAPPED).exists() else None

    def page(self, out: Path, runs: Path, data: Path, steps: int = STEPS) -> recipe.Recipe:
        """Its recipe, written into `out`; what its encoder begins with is trained where it was not."""
        own, way = ENCODERS[self.encoder], WAYS[self.way]
        out.mkdir(parents=True, exist_ok=True)
        text = PAGE.format(
            size=SIZE, encoder=STARTS[own.start].encoder, decoder=own.decoder, layers=own.layers, steps=steps, batch=BATCH, lr=LR,
            weights=pretrained(self.study, own.start, self.held, runs, data), encoder_lr=way.encoder_lr, warmup=round(STEPS / 20),
        )  # fmt: skip
        (out / "page.toml").write_text(text, encoding="utf-8")
        return recipe.read(out / "page.toml", way.overrides)

    def train(self, runs: Path, data: Path) -> None:
        """Where it was not trained; of its checkpoints none stays."""
        if self.folder(runs) is not None:
            return
        out, samples = self._out(runs), surveyed(self.study, self.held, data)
        page = self.page(out, runs, data)
        learn(out / "model", page, samples, seed=self.seed, name=self.way, made_by=RUN, progress=lambda *_: None)
        for split, name in (("validation", CHOSEN), ("test", MAPPED)):
            chips = samples.each(split, lambda *_: None, "")
            scored.score(chips, batched(out / "model", samples, split))[1].write(out / name)
        for heavy in (out / "model" / "training").rglob("*.safetensors"):
            heavy.unlink()


def pretrained(study: str, start: str, held: Fold, runs: Path, data: Path) -> Path:
    """The model folder of a training without labels that saw no image of any group of the part; the other groups it saw whole.

    Made where it is not there, of seed 0 for all seeds; of a study with one part that of simulated radar.
    """
    own, how = STUDIES[study], STARTS[start]
    if len(own.parts) == 1:
        pretraining_runs.learn(start, 0, runs)
        found = pretraining_runs.folder_of(start, 0, runs)
        assert found is not None
        return found
    without = sorted(group for part in own.parts if held in part for fold in part for group in fold)
    others = [group for group in own.groups if group not in without]
    overrides = [
        own.data, f"split={ {'train': others[:-1], 'validation': others[-1:]} }", f"inputs={list(how.layers)}",
        "steps.0.train.epochs=0", f"steps.0.train.steps={how.steps}", f"steps.0.train.every={how.steps}", *how.overrides,
    ]  # fmt: skip
    about = {"study": study, "start": start, "without": without, "seed": 0, "steps": how.steps}
    out = runs / "lora-floods" / study / f"unlabelled-{start}"
    return finished.train(how.recipe, data / own.folder, out, about, seed=0, overrides=overrides) / "model" / how.part


@cache
def surveyed(study: str, held: Fold, data: Path) -> Samples:
    """Squares: the groups held out and a part of the pictures of others, to test on; a part to choose a threshold; the rest."""
    own = STUDIES[study]
    opened = open_dataset(data / own.folder, own.kind, **own.settings)
    opened = opened if own.chosen else _apart(opened, held)
    tested = {event for event in opened.events if event in held or event.startswith(SEEN)}
    choosing = {event for event in opened.events if event in own.chosen or event.startswith(CHOOSING)}
    split = {"train": sorted({*opened.events} - tested - choosing), "validation": sorted(choosing), "test": sorted(tested)}
    return survey(opened, ["after"], split=split, size=SIZE)


def _apart(opened: Dataset, held: Fold) -> Dataset:
    """The same with some pictures of each group that is not held out as groups of their own."""
    counted: dict[str, int] = {}
    members = {}
    for name, member in opened.members.items():
        place = counted[member.event] = counted.get(member.event, -1) + 1
        lead = SEEN if place % EVERY == 1 else CHOOSING if place % (2 * EVERY) == 3 else ""
        members[name] = member if member.event in held else replace(member, event=f"{lead}{member.event}")
    return replace(opened, members=members)


def without(study: str, runs: Path, data: Path) -> Scored:
    """The methods without training on every picture of every group that is held out, of both dates where there are two."""
    path, own = runs / "lora-floods" / study / "without.npz", STUDIES[study]
    if not path.exists():
        opened = open_dataset(data / own.folder, own.kind, **own.settings)
        chips = ((name, opened.read(name)) for name in opened.ids(events=own.groups))
        path.parent.mkdir(parents=True, exist_ok=True)
        scored.score(chips, Untrained("flood"))[1].write(path)
    return Scored.read(path)


def memory_path(study: str, encoder: str, way: str, runs: Path) -> Path:
    """Where what `costs_of` measures is kept."""
    return runs / "lora-floods" / "memory" / f"{study}-{encoder}-{named(way)}.json"


def costs_of(one: One, runs: Path, data: Path) -> dict[str, float]:
    """Peak memory (MB) of this process before and after a training of FEW steps, and processor seconds of one core for a pass."""
    samples, moments = surveyed(one.study, one.held, data), []
    with TemporaryDirectory(prefix="aftermap-alone-") as folder:
        page, before = one.page(Path(folder), runs, data, FEW), peak_mb()
        learn(
            Path(folder) / "model", page, samples, seed=0, name=one.way, made_by=RUN,
            progress=lambda words, *_: moments.append(time.process_time()) if words == "train" else None,
        )  # fmt: skip
        told = json.loads((Path(folder) / "model" / "training" / "step-0" / COST).read_text(encoding="utf-8"))
    epoch = float(np.median(np.diff(moments[:-1]))) * len(samples.ids("train")) / BATCH  # the last step holds the validation
    return {"before_mb": before or 0.0, "peak_mb": told["peak_memory_mb"], "seconds_per_epoch": epoch}


def every(seeds: Sequence[int], studies: Sequence[str]) -> Iterator[One]:
    """All trainings: the first seed of all before the second of any, and of a seed one way on all folds before the next."""
    yield from (
        One(study, encoder, way, held, seed) for seed in seeds for way in WAYS for study in studies
        for encoder, ways in STUDIES[study].ways.items() if way in ways for held in STUDIES[study].folds
    )  # fmt: skip


def named(way: str) -> str:
    """As a name of a file."""
    return way.replace(", ", "-").replace(" ", "-")
