"""Progressive label refinement across regions: tables 1 and 2 of Zhao et al. 2022 anew, on pictures in colour, with intervals.

Run:     python -m benchmarks.refinement --runs runs [--data ../shared/data] [--only STUDY] [--seeds 0,1] [--no-training]
Writes:  benchmarks/results/refinement.md and refinement.csv; RUNS/STUDY holds models, rounds and scores, and what is there is not
         made again. Some hours on two cores.
"""

from __future__ import annotations

import csv
import json
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from aftermap import cuts, experiment
from aftermap.errors import UsageError
from aftermap.metrics import Ranking
from aftermap.stats import holm, signed_rank_over_images
from aftermap.unseen import FACTS, Counted

RESULTS = Path(__file__).parent / "results"
F64 = npt.NDArray[np.float64]
RESAMPLES = 1000
L4S, BIJIE, OMBRIA = "landslide_l4s_rgb", "landslide_bijie", "flood_ombria"
_STATISTICS = '{"method": "bn", "mode": "reset", "shots": [200]}'
NO_ROUNDS = (f"steps.2.adapt={_STATISTICS}", f"steps.3.adapt={_STATISTICS}")
"""In place of self-training, which is dear: its rows stay away."""
SUBSET = 400
FLOODS = (
    "hazard=flood", 'inputs=["after", "before"]', 'data={"kind": "ombria", "settings": {"image": "s2"}}',
    'split={"train": ["A+B+H", "C", "D", "J", "M", "N"], "test": ["E", "I", "L"]}', "steps.0.train.steps=400",
    'targets={"E": {"hazard": "flood", "data": {"kind": "ombria", "settings": {"image": "s2"}}, "events": ["E"]}, '
    '"I": {"hazard": "flood", "data": {"kind": "ombria", "settings": {"image": "s2"}}, "events": ["I"]}, '
    '"L": {"hazard": "flood", "data": {"kind": "ombria", "settings": {"image": "s2"}}, "events": ["L"]}}',
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One recipe as it is run: what it learns on, what is said in place of the page, where it is tried."""

    data: str
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    rounds: tuple[int, ...]
    """Seeds that are also self-trained."""
    overrides: tuple[str, ...] = ()
    on: str = L4S
    """Data of the targets."""
    folder: str = ""
    """Of the study whose networks it takes; empty: its own."""
    subset: bool = False
    """Of the first region `SUBSET` pictures alone."""


_ALL = ("B", "B-inductive", "C", "C-inductive")
_PLAIN = ('steps.0.train.losses={"ce": 1}', "steps.0.train.hard_pixels=1.0")
_OTHERS = (
    'ensemble=[{"encoder": "mit_b0", "decoder": "segformer", "widths": [64]}, '
    '{"encoder": "hrnet_w18_small", "decoder": "ocr", "widths": [64]}]'
)
_SHORT = ("steps.0.train.steps=300", "steps.0.train.batch=8")
STUDIES = {
    "plain": Study(L4S, _ALL, (0, 1, 2, 3, 4), (), _PLAIN),
    "refined": Study(L4S, _ALL, (0, 1, 2, 3, 4), (0,)),
    "second": Study(L4S, ("B",), (1,), (1,), folder="refined"),
    "ensemble": Study(L4S, ("B",), (0,), (0,), (_OTHERS,)),
    "source-free": Study(L4S, ("B",), (0,), (0,), ("steps.3.adapt.settings.source_free=True",), folder="refined"),
    "balanced": Study(L4S, ("B",), (0,), (0,), ("steps.2.adapt.settings.balanced=0.1",), folder="refined"),
    "x1": Study(L4S, ("B", "C"), (0,), (), _SHORT, subset=True),
    "x2.5": Study(L4S, ("B", "C"), (0,), (), (*_SHORT, "chips.upsample=2.5"), subset=True),
    "x4": Study(L4S, ("B", "C"), (0,), (), (*_SHORT, "chips.upsample=4"), subset=True),
    "bijie": Study(
        BIJIE, ("B",), (0,), (0,),
        ('data={"kind": "folder", "settings": {"hazard_code": 255}}', "split={}", "steps.0.train.steps=400"),
    ),
    "ombria": Study(OMBRIA, ("E",), (0,), (0,), FLOODS, on=OMBRIA),
}  # fmt: skip


def run(name: str, runs: Path, data: Path, seeds: Sequence[int]) -> None:
    """Trains, adapts and scores what of a study is not there."""
    study = STUDIES[name]
    folder = subset(runs, data / study.data) if study.subset else data / study.data
    targets = dict.fromkeys(study.targets, data / study.on)
    for seed in (s for s in study.seeds if s in seeds):
        said = study.overrides if seed in study.rounds else (*study.overrides, *NO_ROUNDS)
        experiment.run(
            "label-refinement-small", folder, runs / (study.folder or name), seeds=[seed], overrides=said, targets=targets
        )


def subset(runs: Path, data: Path) -> Path:
    """The data set with every so-manieth picture of its first region, the others whole."""
    out = runs / f"l4s-{SUBSET}"
    if not (out / "index.csv").exists():
        rows = list(csv.DictReader((data / "index.csv").open(newline="", encoding="utf-8")))
        first = [r for r in rows if r["region_inferred"].startswith("A")]
        kept = [first[k] for k in np.linspace(0, len(first) - 1, SUBSET).round().astype(int)]
        out.mkdir(parents=True, exist_ok=True)
        for part in ("images", "masks"):
            (out / part).symlink_to((data / part).resolve())
        with (out / "index.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows([*kept, *(r for r in rows if r not in first)])
    return out


@dataclass(frozen=True)
class Line:
    """One variant of a study on a target; means over seeds."""

    study: str
    target: str
    variant: str
    seeds: int
    images: int
    prevalence_px: float
    """Share of hazard among the known pixels."""
    f1: float
    f1_std: float | None
    f1_low: float
    """95 % when other images are drawn."""
    f1_high: float
    ap: float | None
    gain: float | None
    """Of F1 over the same network without separated normalisation."""
    gain_low: float | None
    gain_high: float | None
    p: float | None
    """That the F1 per image is no better than without; Holm over all lines."""
    labelled: float | None
    prevalence: float | None
    source_f1: float | None


def gathered(runs: Path) -> dict[tuple[str, str, str], dict[int, tuple[Counted, dict[str, object]]]]:
    """(study, target, variant) -> seed -> counts and what is known of the variant."""
    found: dict[tuple[str, str, str], dict[int, tuple[Counted, dict[str, object]]]] = {}
    for name in (name for name, study in STUDIES.items() if not study.folder):
        for facts in sorted((runs / name).glob(f"*/unseen/*/{FACTS}")):
            said, seed = json.loads(facts.read_text()), int(facts.parents[2].name.rpartition("-seed")[2].partition("-")[0])
            target = facts.parent.name
            for variant, about in said["variants"].items():
                words = json.loads(about["words"]) if about["words"].startswith("{") else {}
                counted = Counted.read(facts.parent / f"{variant}.npz")
                found.setdefault((name, target, variant), {})[seed] = counted, words
            if "classical" in said:
                found.setdefault((name, target, "without training"), {})[0] = Counted.read(facts.parent / said["classical"]), {}
    return found


def _member(variant: str) -> tuple[str, str]:
    """Variant without its member, and that: "source.1-mit_b0"."""
    found = re.fullmatch(r"(.*?)(?:\.(\d+-\w+))?", variant)
    assert found
    return found[1], found[2] or ""


def _half(one: Counted) -> F64:
    """tp, fp, fn of each image (image, 3) above a score of one half."""
    marked = one.odds[:, :, cuts.COARSE // 2 :].sum(axis=2)
    return np.stack([marked[:, 1], marked[:, 0], one.odds.sum(axis=2)[:, 1] - marked[:, 1]], axis=1).astype(np.float64)


def _f1(counts: F64) -> F64:
    """Of counts (..., 3)."""
    tp, fp, fn = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * tp / (2 * tp + fp + fn))


def lines(runs: Path) -> list[Line]:
    """Every variant, with its gain over the same networks without separated normalisation."""
    found, made, ps = gathered(runs), [], list[float]()
    for (study, target, variant), each in found.items():
        member = _member(variant)[1]
        beside = found.get((study, target, f"unseparated.{member}" if member else "unseparated"), {})
        pairs = [(one, beside[seed][0]) for seed, (one, _) in each.items() if seed in beside and variant != "without training"]
        own = [one for one, _ in each.values()]
        count = len(own[0].names)
        drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        of_images = np.mean([_f1(drawn @ _half(one)) for one in own], axis=0)
        whole = [float(_f1(_half(one).sum(axis=0))) for one in own]
        gain, low, high, p = None, None, None, None
        if pairs and not variant.startswith("unseparated"):
            gains = np.mean([_f1(drawn @ _half(a)) - _f1(drawn @ _half(b)) for a, b in pairs], axis=0)
            low, high = (float(v) for v in np.nanpercentile(gains, (2.5, 97.5)))
            gain = float(np.mean([_f1(_half(a).sum(axis=0)) - _f1(_half(b).sum(axis=0)) for a, b in pairs]))
            p = None if member or variant == "untrained" else _p(pairs)
            ps += [p] if p is not None else []
        words = [w for _, w in each.values() if w]
        aps = [Ranking(one.odds.sum(axis=0)).average_precision for one in own]
        between = np.nanpercentile(of_images, (2.5, 97.5)).tolist()
        made.append(Line(
            study, target, variant, len(own), count, _hazard(own[0]), float(np.mean(whole)),
            float(np.std(whole, ddof=1)) if len(whole) > 1 else None, between[0], between[1],
            float(np.mean([a for a in aps if a is not None])) if None not in aps else None, gain, low, high, p,
            _mean([w.get("labelled") for w in words]), _mean([w.get("prevalence") for w in words]),
            _mean([n.get("source_f1") for w in words for n in w.get("networks", [])]),  # type: ignore[attr-defined]
        ))  # fmt: skip
    adjusted = iter(holm(ps))
    return [Line(**{**vars(one), "p": next(adjusted) if one.p is not None else None}) for one in made]


def _p(pairs: Sequence[tuple[Counted, Counted]]) -> float | None:
    """That the F1 of an image is no better than beside it; None where so few images could never show it."""
    first, second = (np.stack([_f1(_half(one)) for one in side]) for side in zip(*pairs, strict=True))
    try:
        return signed_rank_over_images(first, second).p
    except UsageError:
        return None


def _hazard(one: Counted) -> float:
    clear, hazard = one.odds.sum(axis=(0, 2)).tolist()
    return float(hazard / (clear + hazard))


def _mean(values: Sequence[object]) -> float | None:
    known = [float(v) for v in values if isinstance(v, int | float)]
    return float(np.mean(known)) if known else None


WORDS = {
    "untrained": "untrained network", "unseparated": "none", "source": "separated normalisation (SN)",
    "bn-reset-200": "+ batch norm of the target", "without training": "bare-soil or mndwi, without training",
}  # fmt: skip
_LAST = len(WORDS)


def table(found: Sequence[Line], study: str) -> Iterator[str]:
    """Markdown: a row for each variant, columns for the targets."""
    own = [one for one in found if one.study == study]
    targets = sorted({one.target for one in own})
    yield f"| | seeds | {' | '.join(targets)} | labelled | of them hazard | F1 of the source |"
    yield "|---" * (len(targets) + 5) + "|"
    for variant in sorted(dict.fromkeys(one.variant for one in own), key=_place):
        row = {one.target: one for one in own if one.variant == variant}
        some = next(iter(row.values()))
        rest = [f"{v:.3f}" if v is not None else "" for v in (some.labelled, some.prevalence, some.source_f1)]
        name, member = _member(variant)
        words = WORDS.get(name, name) + (f", {member} alone" if member else "")
        yield f"| {' | '.join([words, str(some.seeds), *(_cell(row.get(t)) for t in targets), *rest])} |"
    every = {one.target: 2 * one.prevalence_px / (1 + one.prevalence_px) for one in own}
    yield f"| {' | '.join(['marking everything', '', *(f'{every[t]:.3f}' for t in targets), '', '', ''])} |"
    yield ""


def _place(variant: str) -> tuple[int, str]:
    """Members after the ensemble, and what needs no training last."""
    name, member = _member(variant)
    order = [*WORDS]
    at = _LAST + 1 if name == "without training" else order.index(name) if name in order else _LAST
    return at, f"{name} {member}"


def _cell(one: Line | None) -> str:
    if one is None:
        return "–"
    spread = f" ± {one.f1_std:.3f}" if one.f1_std is not None else ""
    gain = f"; {one.gain:+.3f} ({one.gain_low:+.3f} to {one.gain_high:+.3f})" if one.gain is not None else ""
    star = " *" if one.p is not None and one.p <= 0.01 else ""
    return f"{one.f1:.3f}{spread} ({one.f1_low:.3f} to {one.f1_high:.3f}){gain}{star}"


def write(runs: Path) -> None:
    """The tables of what is there."""
    found = lines(runs)
    head = (RESULTS / "refinement.md").read_text(encoding="utf-8").partition("<!-- tables -->")[0]
    made = f"<!-- tables -->\n\n{date.today()}, {platform.machine()}, 2 cores, `python -m benchmarks.refinement`\n"
    parts = [head.rstrip(), "", made]
    for study in dict.fromkeys(one.study for one in found):
        seeds = f"seeds {STUDIES[study].seeds}, self-trained {STUDIES[study].rounds or 'none'}"
        parts += [f"## {study}: {seeds}", "", *table(found, study)]
    (RESULTS / "refinement.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    with (RESULTS / "refinement.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Line)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(one) for one in found)


@click.command(help=__doc__)
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), default=Path("../shared/data"))
@click.option("--only", default="", help="One study, or several with commas.")
@click.option("--seeds", default="0,1,2,3,4", show_default=True)
@click.option("--training/--no-training", default=True, help="Or only the tables of what is there.")
def main(runs: Path, data: Path, only: str, seeds: str, training: bool) -> None:
    """Runs the studies and writes the tables."""
    for name in (only.split(",") if only else STUDIES) if training else ():
        run(name, runs, data, [int(s) for s in seeds.split(",")])
    if not only:
        write(runs)


if __name__ == "__main__":
    main()
