"""The tables and figures of benchmarks/sar_landslides.py, in the words of Boehm et al. 2022: figures 2, 3 and A1, table A1."""

from __future__ import annotations

import csv
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.errors import UsageError
from aftermap.metrics import CountErrors, Ranking
from aftermap.samples import Samples
from aftermap.scored import Scored, read_arrays
from aftermap.stats import interval, signed_rank_over_images

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
LEVELS, BLOCK_PX, RESAMPLES = 1000, 256, 1000
PUBLISHED = {
    2: (0.048, 0.046, 0.048), 5: (0.080, 0.088, 0.075), 10: (0.132, 0.169, 0.146), 20: (0.184, 0.180, 0.181),
    110: (0.324, 0.338, 0.338),
}  # fmt: skip
"""AP on Hokkaido by chips: without, pretrained on Hokkaido, on Kaikoura (methods.md B.6, digitised)."""


@dataclass(frozen=True)
class Truth:
    """The test chips of a study."""

    names: tuple[str, ...]
    hazard: Bool
    """(chip, y, x)."""
    known: Bool

    @classmethod
    def of(cls, samples: Samples) -> Truth:
        """As the network was scored."""
        chips = [(name, samples.read(name)) for name in samples.ids("test")]
        hazard = np.stack([chip.truth == 1 for _, chip in chips if chip.truth is not None])
        return cls(tuple(name for name, _ in chips), hazard & (known := np.stack([c.labelled for _, c in chips])), known)

    @property
    def true(self) -> F64:
        """Pixels (chip,) of landslide."""
        return np.asarray(self.hazard.sum(axis=(1, 2)), np.float64)

    @property
    def blocks(self) -> list[npt.NDArray[np.intp]]:
        """Chips of one piece of ground: a block of 2.56 km, or a picture."""
        keys = [_ground(name) for name in self.names]
        return [np.flatnonzero([k == key for k in keys]) for key in sorted(set(keys))]


def _ground(name: str) -> str:
    chip, _, square = name.partition("@")
    place = chip.rsplit("_", 2)
    if (square and square != "0,0") or len(place) < 3 or not (place[1] + place[2]).isdigit():
        return chip
    return f"{int(place[1]) // BLOCK_PX}-{int(place[2]) // BLOCK_PX}"


@dataclass(frozen=True)
class Mapped:
    """What the trainings of one arm and budget map: logits (seed, checkpoint, chip, y, x)."""

    truth: Truth
    logits: npt.NDArray[np.float32]

    @classmethod
    def of(cls, truth: Truth, folders: Sequence[Path]) -> Mapped:
        """One folder for each seed."""
        each = []
        for folder in folders:
            names, logits = read_arrays(folder / "mapped.npz", "names", "logits")
            assert tuple(names.tolist()) == truth.names
            each.append(logits.astype(np.float32))
        least = min(map(len, each))
        return cls(truth, np.stack([one[:least] for one in each]))

    def levels(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Pixels (chip, 2, level) by truth and probability, of logits (chip, y, x)."""
        level = np.rint(LEVELS / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.intp)
        found = []
        for k, known in enumerate(self.truth.known):
            pixels = [level[k][known & (self.truth.hazard[k] == actual)] for actual in (False, True)]
            found.append([np.bincount(one, minlength=LEVELS + 1) for one in pixels])
        return np.asarray(found, np.int64)

    def average_precision(self) -> list[float]:
        """Of each seed, the mean over its checkpoints."""
        return [float(np.mean([_ap(self.levels(one)) for one in seed])) for seed in self.logits]

    def counted(self, logits: npt.NDArray[np.float32], *, hard: bool) -> F64:
        """Pixels (chip,) mapped, or summed probabilities, of logits (chip, y, x)."""
        mapped = (logits > 0).astype(np.float64) if hard else 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        return np.asarray((mapped * self.truth.known).sum(axis=(1, 2)), np.float64)

    @property
    def together(self) -> npt.NDArray[np.float32]:
        """The mean of all logits (chip, y, x): the published ensemble."""
        return np.asarray(self.logits.mean(axis=(0, 1)), np.float32)


def _ap(levels: npt.NDArray[np.int64]) -> float:
    found = Ranking(levels.sum(axis=0)).average_precision
    return float("nan") if found is None else found


@dataclass(frozen=True)
class Line:
    """One arm at one budget; counts are of the ensemble of all seeds and checkpoints, in pixels of a chip."""

    study: str
    arm: str
    chips: int
    seeds: int
    test_chips: int
    prevalence: float
    ap: float
    ap_error: float | None
    """Standard deviation over seeds, divided by the root of their number."""
    ap_together: float
    l1: float | None
    l1_mean: float | None
    l1_soft: float | None
    count_hazard: float | None
    count_hazard_soft: float | None
    count_free: float | None
    count_free_soft: float | None
    false_per_free_chip: float | None


def line(study: str, arm: str, chips: int, mapped: Mapped) -> Line:
    """As the class says."""
    aps, truth = mapped.average_precision(), mapped.truth
    error = float(np.std(aps, ddof=1) / np.sqrt(len(aps))) if len(aps) > 1 else None
    hard, soft = (CountErrors(mapped.counted(mapped.together, hard=h), truth.true) for h in (True, False))
    return Line(
        study, arm, chips, len(aps), len(truth.names), float(truth.hazard.sum() / truth.known.sum()), float(np.mean(aps)), error,
        _ap(mapped.levels(mapped.together)), hard.delta_l1, float(np.abs(hard.mapped - hard.true).mean()), soft.delta_l1,
        hard.delta_count(hazard=True), soft.delta_count(hazard=True), hard.delta_count(hazard=False),
        soft.delta_count(hazard=False), float(hard.mapped[truth.true == 0].mean()),
    )  # fmt: skip


def nothing(study: str, truth: Truth) -> Line:
    """The map that marks no pixel."""
    none = CountErrors(np.zeros(len(truth.names)), truth.true)
    prevalence = float(truth.hazard.sum() / truth.known.sum())
    return Line(
        study, "nothing marked", 0, 1, len(truth.names), prevalence, prevalence, None, prevalence, none.delta_l1,
        float(truth.true.mean()), none.delta_l1, none.delta_count(hazard=True), none.delta_count(hazard=True), 0.0, 0.0, 0.0,
    )  # fmt: skip


def classical(study: str, each: Scored, methods: str, chips: int) -> Line:
    """The methods without training on the same pixels; they are counted where they saw the same `chips`, not whole pictures."""
    tp, fp, fn = each.counts[:, :3].T.astype(np.float64)
    if len(tp) != chips:
        blank = Line(study, methods, 0, 1, len(tp), float((tp + fn).sum() / each.counts.sum()), 0, None, 0, *[None] * 8)
        ap = Ranking(each.levels.sum(axis=0, dtype=np.int64)).average_precision or float("nan")
        return replace(blank, ap=ap, ap_together=ap)
    soft = (each.levels.sum(axis=1) * np.linspace(0, 1, each.levels.shape[2])).sum(axis=1)
    true, ap = tp + fn, Ranking(each.levels.sum(axis=0, dtype=np.int64)).average_precision or float("nan")
    hard, summed = CountErrors(tp + fp, true), CountErrors(soft, true)
    return Line(
        study, methods, 0, 1, len(true), float(true.sum() / each.counts.sum()), ap, None, ap, hard.delta_l1,
        float(np.abs(hard.mapped - true).mean()), summed.delta_l1, hard.delta_count(hazard=True), summed.delta_count(hazard=True),
        hard.delta_count(hazard=False), summed.delta_count(hazard=False), float((tp + fp)[true == 0].mean()),
    )  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """What one arm is worth beyond another: on average over seeds, with 95 % over blocks of ground."""

    study: str
    arm: str
    against: str
    chips: int
    seeds: int
    false_pixels: float
    """Of landslide in a chip without any, less than the other (below 0: fewer)."""
    false_low: float
    false_high: float
    p: float | None
    """One-sided that they are no fewer, image by image over free chips."""
    ap: float
    ap_low: float
    ap_high: float


def claim(study: str, arm: str, against: str, chips: int, one: Mapped, other: Mapped) -> Claim:
    """As the class says; of the first seeds that both have."""
    seeds = min(len(one.logits), len(other.logits))
    one, other = (replace(m, logits=m.logits[:seeds]) for m in (one, other))
    truth, free = one.truth, one.truth.true == 0
    false = [np.mean([[m.counted(c, hard=True) for c in seed] for seed in m.logits], axis=(0, 1)) for m in (one, other)]
    less, ranked = false[0] - false[1], [[m.levels(np.asarray(seed.mean(axis=0))) for seed in m.logits] for m in (one, other)]

    def of_false(drawn: Sequence[Any]) -> float | None:
        places = np.concatenate(drawn)
        own = places[free[places]]
        return float(less[own].mean()) if len(own) else None

    def of_ap(drawn: Sequence[Any]) -> float | None:
        places = np.concatenate(drawn)
        means = [np.mean([_ap(seed[places]) for seed in seeds]) for seeds in ranked]
        return float(means[0] - means[1])

    try:
        p = signed_rank_over_images(-false[0][free], -false[1][free]).p
    except UsageError:
        p = None
    first, second = (interval(truth.blocks, score, np.random.default_rng(0), resamples=RESAMPLES) for score in (of_false, of_ap))
    return Claim(study, arm, against, chips, seeds, first.value, first.low, first.high, p, second.value, second.low, second.high)


def table(lines: Sequence[Any], names: Mapping[str, str]) -> list[str]:
    """Markdown: a column for each field that is named."""
    rows = [f"| {' | '.join(names.values())} |", "|" + " --- |" * len(names)]
    for one in lines:
        rows.append(f"| {' | '.join(_cell(getattr(one, name), name) for name in names)} |")
    return rows


def _cell(value: Any, name: str) -> str:
    """Pixels to a tenth where they are few, what lies between 0 and 1 to a thousandth."""
    if isinstance(value, float):
        of_pixels = name.startswith(("l1", "count", "false"))
        return f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}" if of_pixels else f"{value:.3f}"
    return "–" if value is None else str(value)


def write_csv(path: Path, rows: Sequence[Any]) -> None:
    """A row per line."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([f.name for f in fields(rows[0])])
        writer.writerows([getattr(one, f.name) for f in fields(one)] for one in rows)


def measured() -> str:
    """When and where."""
    return f"{date.today():%-d %B %Y}, {platform.processor() or platform.machine()}, 2 cores, no GPU."


def draw(path: Path, lines: Sequence[Line], colours: Mapping[str, str]) -> None:
    """Figures 2 and 3 of the paper: average precision and counting errors by the chips that were segmented by hand."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.8), layout="constrained")
    panels: list[tuple[str, Callable[[Line], float | None]]] = [
        ("average precision", lambda one: one.ap), ("median |mapped - true|, all chips", lambda one: one.l1),
        ("median mapped - true, no landslide", lambda one: one.count_free),
        ("median mapped - true, landslides", lambda one: one.count_hazard),
    ]  # fmt: skip
    for axes, (title, of) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for arm, colour in colours.items():
            own = sorted((one for one in lines if one.arm == arm), key=lambda one: one.chips)
            if own:
                error = [one.ap_error or 0 for one in own] if title == "average precision" else None
                axes.errorbar([one.chips for one in own], [of(one) for one in own], yerr=error, fmt="o-", color=colour, label=arm)
        for one in (one for one in lines if one.arm == "nothing marked"):
            axes.axhline(of(one), color="grey", ls=":", label="nothing marked")
        axes.set(xscale="log", xlabel="chips segmented by hand", title=title)
        axes.set_xticks([2, 5, 10, 20, 110], ["2", "5", "10", "20", "110"])
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_chips(path: Path, mapped: Mapping[str, Mapped]) -> None:
    """Figure A1: what each arm maps on a chip without a landslide and on the one with most, and the truth."""
    from matplotlib.figure import Figure

    truth = next(iter(mapped.values())).truth
    free = int(np.argmax([m * (truth.true[k] == 0) for k, m in enumerate(np.mean([_false(m) for m in mapped.values()], axis=0))]))
    most = int(np.argmax(truth.true))
    figure = Figure(figsize=(1.9 * (len(mapped) + 1), 4), layout="constrained")
    axes = figure.subplots(2, len(mapped) + 1)
    for row, chip in enumerate((free, most)):
        for column, (arm, one) in enumerate(mapped.items()):
            axes[row, column].imshow(one.together[chip] > 0, cmap="Greys", vmin=0, vmax=1)
            axes[row, column].set_title(arm if row == 0 else "", fontsize=9)
        axes[row, -1].imshow(truth.hazard[chip], cmap="Greys", vmin=0, vmax=1)
        axes[row, -1].set_title("true" if row == 0 else "", fontsize=9)
    for one_axes in axes.flat:
        one_axes.set_xticks([])
        one_axes.set_yticks([])
    figure.savefig(path, dpi=110)


def _false(one: Mapped) -> F64:
    return one.counted(one.together, hard=True)
