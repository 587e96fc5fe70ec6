"""The trainings of benchmarks/pretraining.py without labels, and what each makes of every chip: embeddings, once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import arrays
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.engine import Network
from aftermap.looks import Statistics
from aftermap.simulate import landcover
from benchmarks import finished

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
SEEDS = range(40)
"""Scenes of each region."""
SEEN, UNSEEN = ("plain", "hills", "andes"), "alps"
"""Regions that are learned from without labels, and one that is not."""
REGIONS = (*SEEN, UNSEEN)
KIND = "simulated-landcover"
TRUTHS = ("vegetation", "built", "dominant")


@dataclass(frozen=True)
class Learned:
    """One training without labels; `modality` stands for the image after, none for all."""

    recipe: str
    steps: int
    modality: str = ""
    overrides: tuple[str, ...] = ()
    untrained: bool = False


_NO_ELEVATION = "steps.0.train.settings.elevation=0.0"
LEARNED = {
    "mae": Learned("mae-small", 2400, "s1"),
    "dino": Learned("dino-small", 300, "s1"),
    "clip": Learned("clip-small", 900),
    "elevation": Learned("contrast-elevation-small", 250),
    "glcnet": Learned("contrast-elevation-small", 250, overrides=(_NO_ELEVATION,)),
    "simclr": Learned("contrast-elevation-small", 250, overrides=(_NO_ELEVATION, "steps.0.train.settings.whole=1.0")),
    "relative": Learned("contrast-elevation-small", 250, overrides=("steps.0.train.settings.relative=true",)),
    "dino-coherence": Learned("dino-small", 300, "coherence"),
    "untrained": Learned("mae-small", 1, "s1", untrained=True),
    "untrained-rgb": Learned("contrast-elevation-small", 1, untrained=True),
    "untrained-coherence": Learned("dino-small", 1, "coherence", untrained=True),
}
"""What tells most first. What is untrained has its first weights: one step at a rate of 0."""


def scenes(runs: Path) -> Path:
    """The folder of scenes, simulated where they are not there."""
    landcover.many(runs / "landcover", SEEDS)
    return runs / "landcover"


def folder_of(name: str, seed: int, runs: Path) -> Path | None:
    """Where its model is; None where it was not trained."""
    found = finished.find(runs / "pretraining" / name, _about(name, seed))
    return None if found is None else found / "model"


def _about(name: str, seed: int) -> dict[str, Any]:
    return {"name": name, "seed": seed, "steps": LEARNED[name].steps}


def learn(name: str, seed: int, runs: Path) -> None:
    """Trains it, where that was not done."""
    how, out = LEARNED[name], runs / "pretraining" / name
    settings = {"regions": ",".join(SEEN), "truth": "none"} | ({"after": how.modality} if how.modality else {})
    overrides = [
        f"data={{'kind': '{KIND}', 'settings': {settings}}}", "steps.0.train.epochs=0", f"steps.0.train.steps={how.steps}",
        f"steps.0.train.every={max(1, how.steps // 4)}", *how.overrides, *(("steps.0.train.lr=0.0",) if how.untrained else ()),
    ]  # fmt: skip
    finished.train(how.recipe, scenes(runs), out, _about(name, seed), seed=seed, overrides=overrides)


@dataclass(frozen=True, eq=False)
class Chips:
    """Every chip of every region: region (n,), split (n,), scene (n,), and its labels by name (n,)."""

    names: tuple[str, ...]
    region: npt.NDArray[np.str_]
    split: npt.NDArray[np.str_]
    scene: npt.NDArray[np.str_]
    labels: dict[str, F64]

    def at(self, region: str, split: str) -> npt.NDArray[np.intp]:
        """Places of those of a region and split."""
        return np.flatnonzero((self.region == region) & (self.split == split))


@cache
def chips(runs: Path) -> Chips:
    """As the class says; labels are read once."""
    path = runs / "pretraining" / "labels.npz"
    data = _opened(runs, "none")
    names = tuple(data.members)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {truth: [float(_target(d, name)) for name in names] for truth in TRUTHS for d in [_opened(runs, truth)]}
        arrays.write(path, **{truth: np.array(values) for truth, values in found.items()})
    labels = dict(zip(TRUTHS, arrays.read(path, *TRUTHS), strict=True))
    of = [data.members[name] for name in names]
    scene = np.array([member.event for member in of])
    return Chips(names, np.array([s.rpartition("-")[0] for s in scene]), np.array([m.split for m in of]), scene, labels)


def _opened(runs: Path, truth: str) -> Dataset:
    return open_dataset(scenes(runs), KIND, truth=truth)


def _target(data: Dataset, name: str) -> float:
    found = data.read(name).target
    return float("nan") if found is None else float(found)  # type: ignore[arg-type]


def embedded(name: str, seed: int, runs: Path, *, part: str = "", without: str = "") -> F32 | None:
    """Embeddings (n, d) of every chip; `part` of a model of several, `without` a band. None where it was not trained."""
    folder = folder_of(name, seed, runs)
    if folder is None:
        return None
    path = folder.parent / f"{'-'.join(['embedded', *filter(None, (part, without))])}.npz"
    if not path.exists():
        network = Network.open(folder / part, precision="f32", engine="openvino")
        arrays.write(path, z=np.concatenate([*_seen(network, LEARNED[name].modality, runs, without)]).astype(np.float32))
    found: F32 = arrays.read(path, "z")[0]
    return found


def _seen(network: Network, modality: str, runs: Path, without: str) -> Iterator[F32]:
    """Chip by chip; a band left out is NaN."""
    data = open_dataset(scenes(runs), KIND, truth="none", **({"after": modality} if modality else {}))
    wanted = [b if one.layer == "after" else f"{one.layer}.{b}" for one in network.card.inputs for b in one.bands]
    places = [data.bands.index(band) for band in wanted]
    for name in data.members:
        pixels = data.read(name).pixels[places]
        if without:
            pixels = np.where(np.array(wanted)[:, None, None] == without, np.float32(np.nan), pixels)
        yield network.embeddings(pixels[None])


def statistics(modality: str, runs: Path) -> F32:
    """Mean, deviation and quantiles of each band of a modality (n, 5 bands): what needs no network."""
    path = runs / "pretraining" / f"statistics-{modality}.npz"
    if not path.exists():
        data = _opened(runs, "none")
        places = [k for k, band in enumerate(data.bands) if band.startswith(f"{modality}.")]
        made = Statistics(tuple(data.bands[k] for k in places))
        rows = [made(data.read(name).pixels[places]) for name in data.members]
        arrays.write(path, z=np.array(rows, np.float32))
    found: F32 = arrays.read(path, "z")[0]
    return found


PAGE = """hazard = "none"
inputs = ["after"]
data = {{ kind = "simulated-landcover", settings = {{ truth = "vegetation", regions = "{region}", after = "s1" }} }}
model = {{ encoder = "vit_micro8", decoder = "pool" }}
[[steps]]
train = {{ objective = "regress", losses = {{ mse = 1 }}, steps = {steps}, batch = 32, lr = {lr}, warmup = 20, every = {every} }}
"""
FRACTIONS = (0.01, 0.05, 0.1, 0.5, 1.0)
TUNED_STEPS, TUNED_LR = 150, 5e-4


def _out_of_tuned(start: str, region: str, runs: Path) -> Path:
    return runs / "pretraining" / f"tuned-{start}-{region}"


def _about_tuned(start: str, region: str, fraction: float, seed: int) -> dict[str, Any]:
    return {"start": start, "region": region, "fraction": fraction, "seed": seed}


def embedded_tuned(start: str, region: str, seed: int, runs: Path) -> F32 | None:
    """Embeddings (n, d) of every chip by a network that learned tree cover from all labels of a region."""
    folder = finished.find(_out_of_tuned(start, region, runs), _about_tuned(start, region, 1.0, seed))
    if folder is None:
        return None
    if not (path := folder / "embedded.npz").exists():
        network = Network.open(folder / "model", precision="f32", engine="openvino")
        arrays.write(path, z=np.concatenate([*_seen(network, "s1", runs, "")]).astype(np.float32))
    found: F32 = arrays.read(path, "z")[0]
    return found


def tuned(start: str, region: str, fraction: float, seed: int, runs: Path, *, training: bool) -> tuple[float, float] | None:
    """RMSE and R2 of tree cover of the test scenes of a region, the whole encoder learning from a share of its labels.

    `start` is a name of LEARNED, or "scratch". None where it was not trained and is not to be.
    """
    first = None if start == "scratch" else folder_of(start, seed, runs)
    if start != "scratch" and first is None:
        return None
    every = len(chips(runs).at(region, "train"))
    out, about = _out_of_tuned(start, region, runs), _about_tuned(start, region, fraction, seed)
    page = out / "page.toml"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(PAGE.format(region=region, steps=TUNED_STEPS, every=TUNED_STEPS // 3, lr=TUNED_LR))
    if not training and finished.find(out, about) is None:
        return None
    few = [f"chips.most={max(8, round(fraction * every))}", *([f"model.weights={first}"] if first else [])]
    done = finished.train(page, scenes(runs), out, about, seed=seed, overrides=few)
    scores = json.loads((done / "row.json").read_text(encoding="utf-8"))["scores"]
    return float(scores["rmse"]), float(scores["r2"])
