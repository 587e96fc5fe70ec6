"""The trainings of benchmarks/sar_landslides.py: two simulated regions, the arms of the study, and what each of them maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from aftermap import arrays, recipe
from aftermap.cutting import Cut, cut
from aftermap.datasets.dataset import open_dataset
from aftermap.model import load
from aftermap.samples import Samples, survey
from aftermap.simulate import landslide
from aftermap.torchdoor import torch
from benchmarks import finished

SIZE, PASSES, GSD_M = 64, 5, 10.0
SHARES = "pretrain=0.55,train=0.2,validation=0.1,test=0.15"
"""By ground, in blocks of 2 km with a chip between two sides, in place of the published 60/20/10/10 at random."""


@dataclass(frozen=True)
class Region:
    """One simulated mountain region."""

    terrain: str
    seed: int
    looks: float
    size: int = 3072


REGIONS = {"andes": Region("andes", 11, 4.9), "alps": Region("alps", 12, 3.5)}
"""Where few chips are segmented, and the other region."""
STEPS, LARGE, LARGE_STEPS, BATCH, KEPT = 60, 110, 120, 8, 3
"""Steps of a training on few chips, and on all of the published budget; chips in a step at most; checkpoints kept of four."""
QUICK = (
    f"chips.size={SIZE}", "pretrain.train.epochs=0", "pretrain.train.steps=400", "pretrain.train.every=80",
    "pretrain.train.batch=16", "pretrain.train.patience=0", "steps.0.train.epochs=0", "steps.0.train.patience=0",
    f"steps.0.train.keep={KEPT}",
)  # fmt: skip
ARMS = {
    "none": ("pretrain.use=none",),
    "same": (),
    "other": (),
    "random": ("pretrain.use=untrained",),
    "wide": ("pretrain.use=none", "model.encoder=conv8_wide"),
    "simple": ("pretrain.model.encoder=conv8_embedding",),
}
"""What stands beside the network: nothing; one that classified chips of the same region, or of the other; one that learned
nothing; nothing, but as many parameters; a plain CNN that classified."""
FEW, AT_LARGE = (20, 5, 2, 10), ("none", "same", "random")
"""Budgets, what tells most first; arms that are dear."""
L4S = (
    "data={'kind': 'landslide4sense-rgb', 'settings': {'runs': 4}}", "inputs=['after']", "normalise=chip", "model.fusion=single",
    "pretrain.split={'train': ['A1', 'A2', 'A3'], 'validation': ['A4']}",
    "split={'train': ['B1'], 'validation': ['B2'], 'test': ['B3', 'B4']}", "pretrain.model.fusion=single",
)  # fmt: skip
FLOODS = (
    "hazard=flood", "data={'kind': 'ombria', 'settings': {'image': 's1'}}",
    "pretrain.split={'train': ['A+B+H', 'C', 'D'], 'validation': ['J']}",
    "split={'train': ['M'], 'validation': ['N'], 'test': ['E', 'I', 'L']}",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """Where few chips are segmented, with what beside, and what differs from the recipe."""

    arms: tuple[str, ...]
    budgets: tuple[int, ...]
    overrides: tuple[str, ...] = ()
    data: str = ""
    """Below --data; empty: the simulated region."""


LONG = ("pretrain.train.steps=500", "pretrain.train.every=100")
"""Some 15 passes over the chips of a region, which are harder to tell apart than real pictures."""
STUDIES = {
    "simulated": Study(tuple(ARMS), FEW, LONG),
    "large": Study(AT_LARGE, (LARGE,), LONG),
    "l4s": Study(AT_LARGE, (20,), L4S, "landslide_l4s_rgb"),
    "ombria": Study(AT_LARGE, (20,), FLOODS, "flood_ombria"),
    "five-passes": Study(("none", "same"), (20,), (*LONG, f"data.settings={{'passes': {PASSES}}}")),
    "fc": Study(("same",), (20,), (*LONG, "pretrain.model.decoder=fc")),
    "faults": Study(("same",), (20,), (*LONG, "fidelity=['norm_bug', 'batch_softmax', 'bn_leak']")),
}  # fmt: skip


def event_of(scene: Path, passes: int) -> Cut:
    """All files of a simulated event, so many passes of each side."""
    more = range(2, passes + 1)
    return Cut(
        (scene / "after.tif",), scene / "truth.tif", (scene / "before.tif",),
        after_pass=tuple(scene / f"after-{k}.tif" for k in more), before_pass=tuple(scene / f"before-{k}.tif" for k in more),
        dem=(scene / "dem.tif",), points=scene / "inventory.gpkg",
    )  # fmt: skip


def chips(runs: Path, name: str) -> Path:
    """The chips of a region, simulated and cut where they are not there."""
    scene, out, region = runs / "regions" / name, runs / f"chips-{name}", REGIONS[name]
    if not (scene / "truth.tif").exists():
        landslide.simulate(
            scene, size=region.size, seed=region.seed, sensor="sentinel-1", terrain=region.terrain, looks=region.looks,
            passes=PASSES,
        )  # fmt: skip
    if not (out / "index.csv").exists():
        how = event_of(scene, PASSES)
        cut(out, replace(how, size=SIZE, how="published", split="blocks", shares=SHARES, event=name))
    return out


@dataclass(frozen=True)
class One:
    """One training of a study."""

    study: str
    arm: str
    budget: int
    seed: int

    @property
    def overrides(self) -> tuple[str, ...]:
        """What differs from the recipe sar-siamese."""
        steps, batch = STEPS if self.budget < LARGE else LARGE_STEPS, min(BATCH, self.budget)
        long = (f"steps.0.train.steps={steps}", f"steps.0.train.every={steps // 4}", f"steps.0.train.batch={batch}")
        return (*QUICK, *long, f"chips.most={self.budget}", *STUDIES[self.study].overrides, *ARMS[self.arm])

    def data(self, runs: Path, shared: Path) -> Path:
        """The folder it learns from."""
        own = STUDIES[self.study].data
        return shared / own if own else chips(runs, "andes")

    def folder(self, runs: Path) -> Path | None:
        """Where its model and rows are; None where it was not trained."""
        return finished.find(runs / self.study, asdict(self))

    def train(self, runs: Path, shared: Path) -> None:
        """Trains and maps it, where that was not done."""
        data = self.data(runs, shared)
        finished.train(
            "sar-siamese", data, runs / self.study, asdict(self), seed=self.seed, overrides=self.overrides,
            pretrain_on=chips(runs, "alps") if self.arm == "other" else None,
            then=lambda found: predict(found, self.samples(data)),
        )  # fmt: skip

    def samples(self, folder: Path) -> Samples:
        """The chips as the recipe reads them."""
        return _surveyed(
            folder, tuple(o for o in self.overrides if not o.startswith(("model", "steps", "pretrain", "chips.most")))
        )


@cache
def _surveyed(folder: Path, overrides: tuple[str, ...]) -> Samples:
    page = recipe.read("sar-siamese", overrides)
    dataset = open_dataset(folder, page.data.kind, **page.data.settings)
    return survey(
        dataset, page.inputs, split=page.split, size=page.chips.size, normalise=page.normalise,
        norm_bug="norm_bug" in page.fidelity,
    )  # fmt: skip


@torch.no_grad()
def predict(folder: Path, samples: Samples) -> None:
    """Logits (checkpoint, chip, y, x) of the kept checkpoints on the test chips, in mapped.npz."""
    found, names = [], samples.ids("test")
    for model in (folder / "model", *sorted((folder / "model" / "checkpoints").glob("*"))):
        network = load(model)[0].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        logits = []
        for first in range(0, len(names), 16):
            given = np.stack([samples.normaliser.of(samples.read(n)) for n in names[first : first + 16]])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits.append(network(torch.from_numpy(given).contiguous(memory_format=torch.channels_last))[:, 0].float())
        found.append(torch.cat(logits).numpy().astype(np.float16))
    arrays.write(folder / "mapped.npz", names=np.asarray(names), logits=np.stack(found))


def every(only: str, seeds: Sequence[int]) -> Iterator[One]:
    """All trainings, the first seed of all before the second of any."""
    for seed in seeds:
        for name, study in STUDIES.items():
            if only in ("", name):
                yield from (One(name, arm, budget, seed) for budget in study.budgets for arm in study.arms)
