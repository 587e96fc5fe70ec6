"""What it is worth to normalise each domain by itself (methods.md C.2), where the shift is real and where stretching hides it.

One network per seed learns region a of benchmarks/domains.py; region b is scored by that same network in several ways: brought
to its level by the statistics of region a, as if nothing had changed; by those of b itself; by those of the other half of b.

Run:     python -m benchmarks.domains -o domains
         python -m benchmarks.domains -o domains-known --offset 0
         python -m benchmarks.domains -o domains-snow --offset 0 --snow
         python -m benchmarks.domains -o domains-stretched --stretch
         python -m benchmarks.separated . --runs runs        # the folder of these four
Writes:  benchmarks/results/domains.csv (a row per seed, way and event) and domains.md; RUNS holds what is not made again.
"""

from __future__ import annotations

import csv
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import click
import numpy as np

from aftermap import learn, recipe, scored, stats
from aftermap.chips import F32, Chip
from aftermap.datasets.dataset import open_dataset
from aftermap.engine import Network
from aftermap.metrics import Ranking
from aftermap.normalise import Normaliser, fit
from aftermap.samples import Samples, survey
from aftermap.scored import Scored
from aftermap.untrained import Untrained

RESULTS = Path(__file__).parent / "results"
PAGE = (
    "normalise=all", "data={'kind': 'folder'}", "split={}", "steps.0.train.losses={'ce': 1}", "steps.0.train.augmentation={}",
    "steps.0.train.batch=8",
)  # fmt: skip
"""What differs from the recipe landslide-rgb."""
DATA = {
    "domains": ("physical units, offset left in b", "domains"),
    "domains-known": ("physical units, offset taken off", "domains"),
    "domains-snow": ("the same, snow and clouds in b", "domains"),
    "domains-stretched": ("each chip stretched", "domains-stretched"),
}
"""Folder -> what it is, and the folder whose region a trained its networks: that of all in physical units is the same."""
COMMON = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}
"""Bands that the methods without training know by name, whatever else a chip has."""
Level = Callable[[Chip], Normaliser]


@dataclass(frozen=True)
class Way:
    """One column of scores: region, and whose statistics."""

    data: str
    region: str
    statistics: str
    seed: int


def ways(samples: Samples, *, at_home: bool) -> Iterator[tuple[str, str, Level]]:
    """Split, words for the statistics, and the normaliser of a chip; region a only `at_home`, where it trained."""
    halves = [fit(_half(samples, k)) for k in (0, 1)]
    whole, home = fit(_half(samples, 0, 1)), samples.reference
    if at_home:
        yield "validation", "a", lambda _: home
    yield "test", "a", lambda _: home
    yield "test", "b", lambda _: whole
    yield "test", "other half of b", lambda chip: halves[1 - _part(chip)]


def _half(samples: Samples, *parts: int) -> Iterator[Chip]:
    """Chips of region b of scenes with even numbers (0) or odd ones (1)."""
    return (chip for _, chip in samples.each("test", lambda *_: None, "") if _part(chip) in parts)


def _part(chip: Chip) -> int:
    return int(chip.event.rpartition("-")[2]) % 2


def network_scores(folder: Path, runs: Path, *, seeds: Sequence[int], steps: int) -> dict[Way, Scored]:
    """What every network makes of its region's validation scenes and of region b, in each way."""
    page = recipe.read("landslide-rgb", (*PAGE, f"steps.0.train.steps={steps}"))
    found: dict[Way, Scored] = {}
    for data, (_, trained_on) in DATA.items():
        samples = survey(open_dataset(folder / data, "folder"), page.inputs, size=page.chips.size)
        levels = list(ways(samples, at_home=data == trained_on))
        for seed in seeds:
            model = runs / f"{trained_on}-{seed}"
            if not (model / "done").is_file():
                card = learn.learn(model, page, samples, seed=seed, name=model.name, made_by=__name__, progress=_said)
                (model / "done").write_text(card.name)
            for split, statistics, level in levels:
                way = Way(data, "a" if split == "validation" else "b", statistics, seed)
                path = runs / f"{data}-{seed}-{way.region}-{statistics.replace(' ', '-')}.npz"
                if not path.is_file():
                    _scored(model, samples, split, level).write(path)
                found[way] = Scored.read(path)
    return found


def _said(words: str, done: int, whole: int) -> None:
    if words == "train" and done % 50 == 0:
        click.echo(f"{words} {done} of {whole}", err=True)


def _scored(model: Path, samples: Samples, split: str, level: Level) -> Scored:
    network = Network.open(model, precision="f32")

    def scores_of(chip: Chip) -> F32:
        pixels = np.where(chip.valid, samples.reference.invert(level(chip).of(chip)), np.float32(np.nan))
        return np.asarray(network(pixels[None], chip.valid[None])[0, 0])

    return scored.score(samples.each(split, lambda *_: None, ""), scores_of)[1]


def without_training(folder: Path, data: str, runs: Path) -> Scored:
    """What the methods without training make of region b, from blue, green, red and near infrared; they made a map of each."""
    path = runs / f"{data}-without-training.npz"
    if not path.is_file():
        dataset, mapped = open_dataset(folder / data, "folder"), Untrained("landslide")
        chips = ((name, _named(dataset.read(name))) for name in dataset.ids("test"))
        found = scored.score(chips, mapped)[1]
        said = f"{data}: {sorted(mapped.made_by)}, refused {len(mapped.refused)}"
        click.echo(" ".join([said, *list(mapped.refused.values())[:1]]), err=True)
        found.write(path)
    return Scored.read(path)


def _named(chip: Chip) -> Chip:
    """The chip with the common bands alone, by their common names."""
    rows = [chip.bands.index(band) for band in COMMON]
    unit = chip.unit if isinstance(chip.unit, str) else chip.unit[rows[0]]
    return replace(chip, pixels=np.ascontiguousarray(chip.pixels[rows]), bands=tuple(COMMON.values()), unit=unit)


def f1(each: Sequence[Scored], places: Sequence[int]) -> float | None:
    """Of pixels pooled over these images, mean over seeds."""
    found = [one.of(places).f1 for one in each]
    return None if None in found else float(np.mean([v for v in found if v is not None]))


def _cells(each: Sequence[Scored]) -> list[str]:
    every = list(range(len(each[0].names)))
    own = [one.of(every).f1 or 0.0 for one in each]
    std = f" ± {np.std(own, ddof=1):.3f}" if len(own) > 1 else ""
    limits = []
    for parts in (_of_events(each[0]), [[k] for k in every]):
        pooled = lambda drawn: f1(each, [k for p in drawn for k in p])  # noqa: E731
        found = stats.interval(parts, pooled, np.random.default_rng(0), resamples=1000)
        limits.append(f"{found.low:.3f} to {found.high:.3f}")
    ranks = [Ranking(one.levels.sum(axis=0, dtype=np.int64)).average_precision or 0.0 for one in each]
    return [f"{np.mean(own):.3f}{std}", *limits, f"{np.mean(ranks):.3f}"]


def _of_events(one: Scored) -> list[list[int]]:
    return [[k for k, e in enumerate(one.events) if e == event] for event in sorted(set(one.events))]


def table(found: Mapping[Way, Scored], beside: Mapping[str, Scored]) -> Iterator[str]:
    """A row per data, region and statistics, and what needs no network."""
    head = ("data", "scored", "statistics of", "seeds", "F1 ± std of seeds", "over events", "over images", "AP", "F1 of all")
    yield from (f"| {' | '.join(head)} |", "|" + " --- |" * len(head))
    for data, (words, _) in DATA.items():
        for region, statistics in dict.fromkeys((w.region, w.statistics) for w in found if w.data == data):
            each = [s for w, s in found.items() if (w.data, w.region, w.statistics) == (data, region, statistics)]
            scored_on = "b" if region == "b" else "a, validation"
            yield f"| {' | '.join([words, scored_on, statistics, str(len(each)), *_cells(each), _all(each[0])])} |"
        if data in beside:
            own = beside[data]
            yield f"| {' | '.join([words, 'b', 'no network: `bare-soil`', '', *_cells([own]), _all(own)])} |"


def _all(one: Scored) -> str:
    return f"{one.everything().of(range(len(one.names))).f1:.3f}"


def shift(folder: Path) -> Iterator[str]:
    """Mean ± std of each band in both regions, of every fifth chip, and how many deviations of a lie between the means."""
    yield from ("| band | a | b | b, offset taken off | the same, snow | apart | stretched: apart |", "|" + " --- |" * 7)
    of = {}
    for data in DATA:
        dataset = open_dataset(folder / data, "folder")
        of[data] = {r: fit(dataset.read(n) for n in [n for n in dataset.ids() if n.startswith(r)][::5]) for r in "ab"}
    plain, known, snow, flat = (of[data] for data in DATA)
    for k, band in enumerate(plain["a"].bands):
        cells = [f"{n.mean[k]:.3f} ± {n.std[k]:.3f}" for n in (plain["a"], plain["b"], known["b"], snow["b"])]
        apart = [f"{(n['b'].mean[k] - n['a'].mean[k]) / n['a'].std[k]:+.2f}" for n in (plain, flat)]
        yield f"| {' | '.join([band, *cells, *apart])} |"


def shares(folder: Path) -> Iterator[str]:
    """How much of the known pixels slid, and how much is unknown, by split."""
    yield from ("| split | scenes | chips | landslide, of known pixels | hidden |", "|" + " --- |" * 5)
    dataset = open_dataset(folder / "domains", "folder")
    for split in ("train", "validation", "test"):
        rows = [dataset.members[n].place for n in dataset.ids(split)]
        known = np.array([float(row["labelled"]) for row in rows])
        slid = known @ np.array([float(row["share_1"]) for row in rows]) / known.sum()
        yield f"| {split} | {len({row['event'] for row in rows})} | {len(rows)} | {slid:.4f} | {1 - known.mean():.3f} |"


def write(folder: Path, found: Mapping[Way, Scored], beside: Mapping[str, Scored], steps: int) -> None:
    """Both files; what was concluded from them is added by hand below and kept."""
    path = RESULTS / "domains.md"
    kept = path.read_text(encoding="utf-8").partition("## Read")[2] if path.is_file() else ""
    made = f"{date.today()}, {platform.machine()}, 2 cores; `python -m benchmarks.separated . --steps {steps}`; simulated, see"
    out = ["# Each domain normalised by itself", "", f"{made} `benchmarks/domains.py`.", "", *table(found, beside)]
    out += ["", "## The shift", "", *shift(folder), "", *shares(folder), "", f"## Read{kept}"]
    path.write_text("\n".join(out).rstrip() + "\n", encoding="utf-8")
    with (RESULTS / "domains.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("data", "region", "statistics", "seed", "event", "tp", "fp", "fn", "tn", "f1"))
        rows = [*((*vars(w).values(), s) for w, s in found.items()), *((d, "b", "no network", "", s) for d, s in beside.items())]
        for data, region, statistics, seed, own in rows:
            for event, c in own.by_event().items():
                writer.writerow((data, region, statistics, seed, event, c.tp, c.fp, c.fn, c.tn, c.f1))


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--runs", type=click.Path(path_type=Path), required=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--steps", default=400, show_default=True)
def main(folder: Path, runs: Path, seeds: str, steps: int) -> None:
    """As the module says."""
    runs.mkdir(parents=True, exist_ok=True)
    found = network_scores(folder, runs, seeds=[int(s) for s in seeds.split(",")], steps=steps)
    write(folder, found, {data: without_training(folder, data, runs) for data in DATA}, steps)


if __name__ == "__main__":
    main()
