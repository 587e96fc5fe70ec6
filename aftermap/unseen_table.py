"""Tables of networks on targets that they never saw: thresholds without labels, ceilings, gains of adaptation, and tests.

After figure 1 of Jakubik et al. (arXiv 2301.09318); methods.md 0.1, 0.2 and A.5 to A.8.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap import cuts
from aftermap.adapt.decide import SHOTS
from aftermap.errors import UsageError
from aftermap.experiment import ROW
from aftermap.metrics import Counts, Ranking
from aftermap.stats import holm, signed_rank_over_images
from aftermap.unseen import FACTS, RANKS, Counted

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
RESAMPLES = 1000
AT = round(RANKS * cuts.PERCENTILE / 100)
"""First rank above the percentile of the paper's rule."""
LIKE_NETWORK = ("untrained", "source")


@dataclass(frozen=True, eq=False)
class Runs:
    """One variant of one recipe on one target, a Counted for each seed, of the same images."""

    recipe: str
    target: str
    variant: str
    seeds: tuple[int, ...]
    each: tuple[Counted, ...] = field(repr=False)
    crops: int = 0
    """That it was adapted to, which may be fewer than it asked for."""
    taken: tuple[frozenset[str], ...] = ()
    """For each seed the images that those crops are of."""


@dataclass(frozen=True)
class Line:
    """A cell of the figure; means over seeds, None where undefined."""

    recipe: str
    target: str
    variant: str
    seeds: int
    images: int
    crops: int
    prevalence: float
    ba: float | None
    """Balanced accuracy of all pixels pooled, by the percentile in each image."""
    ba_std: float | None
    ceiling: float | None
    """The best that rule could reach."""
    iou: float | None
    f1: float | None
    ba_best: float | None
    """With the one percentile, the same in every image, that is best for the labels: not to be had without them."""
    ba_even: float | None
    """With our threshold without labels, one for the target."""
    f1_even: float | None
    ba_otsu: float | None
    ba_ki: float | None
    ba_half: float | None
    """Above a score of one half."""
    f1_half: float | None
    auc: float | None
    ap: float | None
    ap_std: float | None
    gain_ap: float | None
    """Over the network as it was trained."""
    gain_ap_low: float | None
    gain_ap_high: float | None
    """95 % over images."""
    gain_ap_rest: float | None
    """On the images that it was not adapted to."""
    gain_ba: float | None
    p: float | None
    """That it is no better than the worse of noise and the untrained network, over images."""
    p_holm: float | None
    starred: bool


def gather(folder: Path) -> list[Runs]:
    """Every variant below a folder of aftermap run, seeds together; empty where nothing was tried on a target."""
    found: dict[tuple[str, str, str], list[tuple[int, Counted, int, frozenset[str]]]] = {}
    classical: dict[str, Counted] = {}
    auto: dict[tuple[str, str], bool] = {}
    for facts in sorted(folder.rglob(f"*/unseen/*/{FACTS}")):
        said = json.loads(facts.read_text(encoding="utf-8"))
        recipe, seed = _recipe(facts.parents[2])
        target = facts.parent.name
        for variant, about in said["variants"].items():
            counted = Counted.read(facts.parent / f"{variant}.npz")
            one = (seed, counted, int(about["crops"]), frozenset(about["pictures"]))
            found.setdefault((recipe, target, variant), []).append(one)
        if "auto" in said:
            auto[recipe, target] = said["auto"]
        if "classical" in said:
            classical[target] = Counted.read(facts.parent / said["classical"])
    runs = [
        Runs(*key, tuple(o[0] for o in own), tuple(o[1] for o in own), max(o[2] for o in own), tuple(o[3] for o in own))
        for key, own in found.items()
    ]
    of = {(r.recipe, r.target, r.variant): r for r in runs}
    for recipe, target in auto:
        chosen = of.get((recipe, target, f"bn-ema-{SHOTS}" if auto[recipe, target] else "source"))
        runs += [replace(chosen, variant="auto")] if chosen else []
    return [*runs, *(Runs("without training", target, "classical", (0,), (one,)) for target, one in classical.items())]


def _recipe(folder: Path) -> tuple[str, int]:
    """The recipe of a run's folder, NAME-seedN-HASH, and its seed; with what was said in place of the page."""
    name, _, rest = folder.name.rpartition("-seed")
    row = folder / ROW
    said = json.loads(row.read_text(encoding="utf-8"))["made_by"] if row.is_file() else ""
    own = [part.split()[0] for part in said.split("--set ")[1:]]
    return " ".join([name, *own]), int(rest.partition("-")[0])


def lines(runs: Sequence[Runs]) -> list[Line]:
    """One for each; tests are corrected over all networks and targets (Holm)."""
    of = {(r.recipe, r.target, r.variant): r for r in runs}
    made = [_line(r, of.get((r.recipe, r.target, "source")), of.get((r.recipe, r.target, "untrained"))) for r in runs]
    before = {(one["recipe"], one["target"]): one["ba"] for one in made if one["variant"] == "source"}
    for one in made:
        was = before.get((one["recipe"], one["target"]))
        if one["gain_ap"] is not None and one["ba"] is not None and was is not None:
            one["gain_ba"] = one["ba"] - was
    tested = [k for k, one in enumerate(made) if one["p"] is not None]
    for k, p in zip(tested, holm([made[k]["p"] for k in tested]), strict=True):
        made[k]["p_holm"] = p
    return [Line(**one) for one in made]


def _line(run: Runs, source: Runs | None, untrained: Runs | None) -> dict[str, Any]:
    every = [_scores(one) for one in run.each]
    counted = run.each[0]
    positive = counted.odds.sum(axis=2)  # (image, 2)
    found: dict[str, Any] = {k: _mean([one[k] for one in every]) for k in every[0]}
    gains: tuple[float | None, ...] = (None, None, None, None)
    if source is not None and run.variant not in LIKE_NETWORK:
        gains = (*_gain(run, source), _gain_of_the_rest(run, source))
    p = None if untrained is None or run.variant == "untrained" else _p(run, untrained)
    return {
        "recipe": run.recipe, "target": run.target, "variant": run.variant, "seeds": len(run.each), "images": len(counted.names),
        "crops": run.crops, "prevalence": float(positive[:, 1].sum() / positive.sum()), **found,
        "ba_std": _std([one["ba"] for one in every]), "ap_std": _std([one["ap"] for one in every]),
        "ceiling": ceiling(counted), "gain_ap": gains[0], "gain_ap_low": gains[1], "gain_ap_high": gains[2],
        "gain_ap_rest": gains[3],
        "gain_ba": None, "p": p, "p_holm": None, "starred": p is not None and p <= 0.01,
    }  # fmt: skip


def _scores(one: Counted) -> dict[str, float | None]:
    """Of all images pooled."""
    ranking, pooled = Ranking(one.odds.sum(axis=0)), one.odds.sum(axis=0)
    by_rank = one.ranks.sum(axis=0)
    rule = _above(by_rank, AT)
    found: dict[str, float | None] = {
        "ap": ranking.average_precision, "auc": ranking.auc, "ba": rule.balanced_accuracy, "iou": rule.iou, "f1": rule.f1,
    }  # fmt: skip
    every = [ba for at in range(1, RANKS) if (ba := _above(by_rank, at).balanced_accuracy) is not None]
    found["ba_best"] = max(every, default=None)
    for name, rule_name in (("even", "even"), ("otsu", "otsu"), ("ki", "kittler-illingworth")):
        cut = cuts.CUTS[rule_name](pooled.sum(axis=0)).value
        marked = _above(pooled, cuts.first_above(cut, cuts.COARSE)) if cut is not None else Counts()
        found[f"ba_{name}"] = marked.balanced_accuracy
        if name == "even":
            found["f1_even"] = marked.f1
    half = _above(pooled, cuts.COARSE // 2)
    found |= {"ba_half": half.balanced_accuracy, "f1_half": half.f1}
    return found


def _above(pixels: I64, at: int) -> Counts:
    """Counts of pixels (2, bin) when bins from `at` on are marked."""
    (tn, tp), (fn, _) = pixels[:, at:].sum(axis=1), (pixels[1, :at].sum(), 0)
    return Counts(tp=int(tp), fp=int(tn), fn=int(fn), tn=int(pixels[0, :at].sum()))


def ceiling(one: Counted) -> float | None:
    """The best balanced accuracy, of all pixels pooled, of marking 5 % of every image."""
    clear, hazard = one.odds.sum(axis=2).T  # (image,)
    marked = (1 - cuts.PERCENTILE / 100) * (clear + hazard)
    tp = np.minimum(marked, hazard).sum()
    fp = np.maximum(marked - hazard, 0).sum()
    if not hazard.sum() or not clear.sum():
        return None
    return float(0.5 * (tp / hazard.sum() + 1 - fp / clear.sum()))


def per_image(one: Counted) -> F64:
    """Balanced accuracy (image,) by the percentile rule; NaN where an image lacks either class."""
    found = [_above(ranks, AT).balanced_accuracy for ranks in one.ranks]
    return np.asarray([np.nan if v is None else v for v in found])


def _p(run: Runs, untrained: Runs) -> float | None:
    """The larger p of two: against noise, whose balanced accuracy is one half, and against the untrained network.

    None where so few images could never show it.
    """
    model, first = (np.stack([per_image(one) for one in r.each]) for r in (run, untrained))
    try:
        return max(signed_rank_over_images(model, b).p for b in (first, np.full_like(model, 0.5)))
    except UsageError:  # "alpha-unreachable"
        return None


def _gain(run: Runs, source: Runs) -> tuple[float | None, float | None, float | None]:
    """Mean over seeds of AP less that of the source, and its interval when other images are drawn."""
    pairs = [(a, b) for s, a in zip(run.seeds, run.each, strict=True)
             for t, b in zip(source.seeds, source.each, strict=True) if s == t]  # fmt: skip
    whole = [(ap(a.odds.sum(axis=0)), ap(b.odds.sum(axis=0))) for a, b in pairs]
    known = [now - was for now, was in whole if now is not None and was is not None]
    if len(known) < len(pairs):
        return None, None, None
    count = len(pairs[0][0].names)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)  # (resample, image)
    gains = np.mean([_aps(drawn, a) - _aps(drawn, b) for a, b in pairs], axis=0)
    low, high = np.nanpercentile(gains, (2.5, 97.5))
    return float(np.mean(known)), float(low), float(high)


def _gain_of_the_rest(run: Runs, source: Runs) -> float | None:
    """The same on images that gave no crop; None where all did, or where nothing is known of them."""
    gains = []
    for seed, counted, taken in zip(run.seeds, run.each, run.taken, strict=False):
        rest, before = [name not in taken for name in counted.names], source.each[source.seeds.index(seed)]
        now, was = ap(counted.odds[rest].sum(axis=0)), ap(before.odds[rest].sum(axis=0))
        if now is not None and was is not None:
            gains.append(now - was)
    return float(np.mean(gains)) if gains else None


def ap(pixels: I64) -> float | None:
    """Average precision of pixels (2, bin)."""
    return Ranking(pixels).average_precision


def _aps(drawn: I64, one: Counted) -> F64:
    """Average precision (resample,) of images drawn so many times."""
    flat = one.odds.reshape(len(one.names), -1).astype(np.float64)
    pixels = (drawn @ flat).reshape(len(drawn), 2, -1)[:, :, ::-1].cumsum(axis=2)
    false, true = pixels[:, 0], pixels[:, 1]
    gains = np.diff(true, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.where(true + false > 0, gains * true / np.maximum(true + false, 1), 0)
        return np.asarray(steps.sum(axis=1) / true[:, -1])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _std(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


COLUMNS: Mapping[str, str] = {
    "variant": "", "seeds": "seeds", "crops": "crops", "ba": "BA at 95 %", "ceiling": "ceiling", "ba_best": "best percentile",
    "ba_even": "BA even", "ba_otsu": "BA Otsu", "ba_half": "BA at 0.5", "f1_half": "F1 at 0.5",
    "f1_even": "F1 even", "auc": "AUC", "ap": "AP",
    "gain_ap": "gain of AP (95 % over images)", "gain_ap_rest": "of other images", "p_holm": "p (Holm)",
}  # fmt: skip


def write(folder: Path, found: Sequence[Line]) -> None:
    """unseen.md and unseen.csv."""
    (folder / "unseen.md").write_text(table(found), encoding="utf-8")
    with (folder / "unseen.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Line)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(one) for one in found)


def table(found: Sequence[Line]) -> str:
    """Markdown: a table for each target."""
    out = []
    for target in dict.fromkeys(one.target for one in found):
        own = [one for one in found if one.target == target]
        out += [f"### {target}: {own[0].images} images, {100 * own[0].prevalence:.1f} % hazard", ""]
        out += [f"| recipe | {' | '.join(COLUMNS.values())} |", "|---" * (1 + len(COLUMNS)) + "|"]
        out += [f"| {one.recipe} | {' | '.join(_cell(one, k) for k in COLUMNS)} |" for one in own]
        out += [""]
    return "\n".join(out)


def _cell(one: Line, name: str) -> str:
    value = getattr(one, name)
    if name == "variant":
        return str(value)
    if value is None:
        return "–"
    if name in ("seeds", "crops"):
        return str(value) if value else "–"
    if name == "gain_ap":
        return f"{value:+.3f} ({one.gain_ap_low:+.3f} to {one.gain_ap_high:+.3f})"
    if name == "p_holm":
        return f"{value:.2g}{' *' if one.starred else ''}"
    if name == "gain_ap_rest":
        return f"{value:+.3f}"
    spread = {"ba": one.ba_std, "ap": one.ap_std}.get(name)
    return f"{value:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")
