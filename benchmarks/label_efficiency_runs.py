"""The trainings of benchmarks/label_efficiency.py: without labels on real images, then from a share of labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from aftermap import arrays, recipe, scored
from aftermap.chips import F32, Chip
from aftermap.datasets.dataset import open_dataset
from aftermap.engine import Network
from aftermap.learn import learn as learn_labels
from aftermap.looks import Statistics
from aftermap.model import load
from aftermap.samples import Samples, survey
from aftermap.scored import Scored
from aftermap.torchdoor import torch
from benchmarks import finished
from benchmarks.pretraining_probes import F64

SIZE = 64


@dataclass(frozen=True)
class Study:
    """Real images: where labels are given, and where they are asked for."""

    folder: str
    """Below --data."""
    kind: str
    settings: dict[str, str | int]
    hazard: str
    labelled: tuple[str, ...]
    chosen: tuple[str, ...]
    """Events that choose the checkpoint."""
    seen: tuple[str, ...]
    """Learned from without labels, and tested on."""
    unseen: tuple[str, ...]
    """Tested on alone."""

    @property
    def data(self) -> str:
        """As a page says it."""
        return f"data={{'kind': '{self.kind}', 'settings': {self.settings}}}"


def _parts(region: str, count: int) -> tuple[str, ...]:
    return tuple(f"{region}{k}" for k in range(1, count + 1))


PICTURES = "Landslide4Sense"
"""The study of one sensor."""
STUDIES = {
    PICTURES: Study(
        "landslide_l4s_rgb", "landslide4sense-rgb", {"runs": 16}, "landslide", _parts("A", 15), ("A16",), _parts("B", 16),
        _parts("C", 16),
    ),
    "OMBRIA": Study(
        "flood_ombria", "ombria", {"image": "s1"}, "flood", ("A+B+H", "C", "D", "E"), ("J", "K"), ("F", "I"),
        ("L", "M", "N", "P"),
    ),
}  # fmt: skip
"""A region of Landslide4Sense is sixteen runs of its numbers; that it has runs matters to A alone. Images after the event."""


@dataclass(frozen=True)
class Start:
    """Where an encoder begins: what it learned without labels for so many steps, or, with 0, its first weights."""

    recipe: str
    steps: int
    encoder: str
    decoder: str
    overrides: tuple[str, ...] = ()
    layers: tuple[str, ...] = ("after",)
    part: str = ""
    """Of a model of several layers, the one that sees what the others see."""


_CONTRAST = ("steps.0.train.settings.elevation=0.0",)
STARTS = {
    "mae": Start("mae-small", 400, "vit_micro8", "upward"),
    "glcnet": Start("contrast-elevation-small", 150, "resnet18_half", "unet", _CONTRAST),
    "dino": Start("dino-small", 150, "vit_micro8", "upward"),
    "clip": Start("clip-small", 300, "vit_micro8", "upward", layers=("s1", "s2"), part="s1"),
    "scratch": Start("mae-small", 0, "vit_micro8", "upward"),
    "scratch-resnet": Start("contrast-elevation-small", 0, "resnet18_half", "unet", _CONTRAST),
}
TWIN = {"mae": "scratch", "dino": "scratch", "glcnet": "scratch-resnet", "clip": "scratch"}
FINE_TUNED = ("mae", "scratch", "glcnet", "scratch-resnet", "dino")
""" "clip" is of OMBRIA, which has two sensors, and frozen alone."""
ARMS = {
    "": (), "frozen": ("surgery=['freeze_encoder']",), "bitfit": ("surgery=['bitfit']",),
    **{f"lora-{rank}": ("surgery=['lora']", f"lora.rank={rank}", "lora.layers=attention") for rank in (4, 16, 64, 256)},
}  # fmt: skip
SHARES = (0.01, 0.05, 0.1, 0.5, 1.0)
TUNED_STEPS, BATCH = 100, 16
MAPPED, RUN = "mapped.npz", "python -m benchmarks.label_efficiency"
PAGE = """hazard = "{hazard}"
inputs = ["after"]
chips = {{ size = {size}, most = {most} }}
model = {{ encoder = "{encoder}", decoder = "{decoder}", weights = "{weights}" }}
[[steps]]
train = {{ objective = "segment", losses = {{ dice = 1, focal = 10 }}, steps = {steps}, batch = {batch}, lr = 1e-3, warmup = 10, every = {steps} }}
"""  # noqa: E501


@dataclass(frozen=True)
class One:
    """One training with labels."""

    study: str
    start: str
    share: float
    seed: int
    arm: str = ""
    """Of ARMS: what of the encoder learns."""

    def folder(self, runs: Path) -> Path | None:
        """Where it is; None where it was not trained."""
        out = self._out(runs)
        return out if (out / MAPPED).exists() else None

    def _out(self, runs: Path) -> Path:
        of = f"tuned-{self.start}" + (f"-{self.arm}" if self.arm else "")
        return runs / "labels" / self.study / of / f"{self.share:g}-{self.seed}"

    def scored(self, runs: Path) -> Scored | None:
        """Of every test square."""
        found = self.folder(runs)
        return None if found is None else Scored.read(found / MAPPED)

    def train(self, runs: Path, data: Path) -> None:
        """Where it was not trained; what its encoder begins with too. The squares are surveyed once for all trainings."""
        if self.folder(runs) is not None:
            return
        start, samples = STARTS[self.start], surveyed(self.study, data)
        out = self._out(runs)
        out.mkdir(parents=True, exist_ok=True)
        first = learn(self.study, self.start, self.seed, runs, data) if start.steps else "none"
        count = max(4, round(self.share * len(samples.ids("train"))))
        text = PAGE.format(
            hazard=STUDIES[self.study].hazard, size=SIZE, most=count, encoder=start.encoder, decoder=start.decoder, weights=first,
            steps=TUNED_STEPS, batch=BATCH,
        )  # fmt: skip
        (out / "page.toml").write_text(text, encoding="utf-8")
        page = recipe.read(out / "page.toml", ARMS[self.arm])
        learn_labels(out / "model", page, samples, seed=self.seed, name=self.start, made_by=RUN, progress=lambda *_: None)
        scored.score(samples.each("test", lambda *_: None, ""), batched(out / "model", samples))[1].write(out / MAPPED)


@torch.no_grad()
def batched(folder: Path, samples: Samples, split: str = "test") -> Callable[[Chip], F32]:
    """Probabilities (y, x) of a square of a split by the network of a folder; all are worked out at once."""
    network = load(folder)[0].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    names = samples.ids(split)
    found: dict[int, F32] = {}
    for first in range(0, len(names), 64):
        chips = [samples.read(name) for name in names[first : first + 64]]
        given = torch.from_numpy(np.stack([samples.normaliser.of(chip) for chip in chips]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = network(given.contiguous(memory_format=torch.channels_last))[:, 0].float().sigmoid().numpy()
        found |= {id(chip): score for chip, score in zip(chips, scores, strict=True)}
    return lambda chip: found[id(chip)]


def _listed(split: dict[str, tuple[str, ...]]) -> str:
    return str({side: list(events) for side, events in split.items()})


def learn(study: str, start: str, seed: int, runs: Path, data: Path) -> Path:
    """The model folder of a training without labels, made where it is not there; of first weights by one step at a rate of 0."""
    own, how = STUDIES[study], STARTS[start]
    data_line = own.data if how.layers == ("after",) else replace(own, settings={**own.settings, "image": "after"}).data
    split, steps = {"train": own.labelled + own.seen, "validation": own.chosen}, max(1, how.steps)
    overrides = [
        data_line, f"split={_listed(split)}",
        f"inputs={list(how.layers)}", "steps.0.train.epochs=0", f"steps.0.train.steps={steps}",
        f"steps.0.train.every={max(1, steps // 4)}", *how.overrides, *([] if how.steps else ["steps.0.train.lr=0.0"]),
    ]  # fmt: skip
    about, out = {"study": study, "start": start, "seed": seed, "steps": steps}, runs / "labels" / study / start
    return finished.train(how.recipe, data / own.folder, out, about, seed=seed, overrides=overrides) / "model" / how.part


def learned(study: str, start: str, seed: int, runs: Path) -> Path | None:
    """Its model folder; None where it was not trained."""
    about = {"study": study, "start": start, "seed": seed, "steps": max(1, STARTS[start].steps)}
    found = finished.find(runs / "labels" / study / start, about)
    return None if found is None else found / "model" / STARTS[start].part


@cache
def surveyed(study: str, data: Path) -> Samples:
    """Squares with their truth, as trainings see them."""
    own = STUDIES[study]
    split = {"train": own.labelled, "validation": own.chosen, "test": own.seen + own.unseen}
    return survey(open_dataset(data / own.folder, own.kind, **own.settings), ["after"], split=split, size=SIZE)


@dataclass(frozen=True, eq=False)
class Squares:
    """Squares of a study: event, picture and split (n,) each, and the share of each that is hazard (n,)."""

    event: np.ndarray
    picture: np.ndarray
    split: np.ndarray
    hazard: F64

    def at(self, events: Sequence[str], split: str) -> np.ndarray:
        """Places of those of events and a split."""
        return np.flatnonzero(np.isin(self.event, events) & (self.split == split))


@cache
def squares(study: str, data: Path) -> Squares:
    """As the class says."""
    samples = surveyed(study, data)
    rows = []
    for name in names_of(samples):
        chip = samples.read(name)
        known = chip.labelled
        assert chip.truth is not None
        rows.append(
            (chip.event, samples.places[name][0], samples.sides[name], float(chip.truth[known].mean()) if known.any() else np.nan)
        )
    event, picture, split, hazard = zip(*rows, strict=True)
    return Squares(np.array(event), np.array(picture), np.array(split), np.array(hazard, np.float64))


def names_of(samples: Samples) -> Iterator[str]:
    """Of every square, side by side."""
    yield from (name for side in ("train", "validation", "test") for name in samples.ids(side))


def features(study: str, name: str, seed: int, runs: Path, data: Path) -> F64 | None:
    """Embeddings (n, d) of every square; "statistics": mean, deviation and quantiles of each band. None where not trained."""
    folder = None if name == "statistics" else learned(study, name, seed, runs)
    if name != "statistics" and folder is None:
        return None
    path = runs / "labels" / study / "statistics.npz" if folder is None else folder / "embedded.npz"
    if not path.exists():
        samples = surveyed(study, data)
        network = None if folder is None else Network.open(folder, precision="f32", engine="openvino")
        given = (samples.as_mapped(samples.read(one)) for one in names_of(samples))
        plain = Statistics(samples.bands)
        made = [plain(pixels) if network is None else network.embeddings(pixels[None])[0] for pixels in given]
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays.write(path, z=np.stack(made).astype(np.float32))
    return np.asarray(arrays.read(path, "z")[0], np.float64)


def every(seeds: Sequence[int]) -> Iterator[One]:
    """All trainings with labels, the first seed of all before the second of any."""
    yield from (One(study, start, share, seed) for seed in seeds for start in FINE_TUNED for study in STUDIES for share in SHARES)


def unlabelled(seeds: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """All trainings without: study, start, seed."""
    yield from ((study, start, s) for s in seeds for study in STUDIES for start in STARTS if (study, start) != (PICTURES, "clip"))
