"""Half a million linear probes at 768 numbers a chip: seconds, memory, and the same cells by a loop over scikit-learn.

8 encoders x 7 tasks x 11 areas to fit in x 11 to ask in x 5 numbers of labels x 15 draws, by least squares and by ridge
(methods.md H). Embeddings are drawn at random, with a spectrum that falls as those of networks do: arithmetic alone is measured.

Run:     python -m benchmarks.probing
Writes:  benchmarks/results/probing.md
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.preprocessing import StandardScaler

from aftermap.probe import ARMS, Area, Cells, Plan, cells, draws
from benchmarks.sar_landslides_table import measured

RESULTS = Path(__file__).parent / "results"
ENCODERS, AREAS, CHIPS, WIDE, SAMPLE = 8, 11, 3000, 768, 6
PLAN = Plan(tuple(f"task {k}" for k in range(7)))


def area(encoder: int, number: int) -> Area:
    """Features whose deviation falls as one over the root of their place; half of the chips test."""
    rng = np.random.default_rng([encoder, number])
    factors = rng.normal(size=(CHIPS, WIDE)) / np.sqrt(np.arange(1, WIDE + 1))
    turned, _ = np.linalg.qr(np.random.default_rng([encoder]).normal(size=(WIDE, WIDE)))
    known = factors[:, :20] @ np.random.default_rng(7).normal(size=(20, 7)) * 0.1
    shares = np.clip(0.5 + known + rng.normal(size=known.shape) * 0.1, 0, 1)
    return Area(f"area {number}", factors @ turned, shares, np.arange(CHIPS) % 2 == 0)


@dataclass(frozen=True)
class Kind:
    """What scikit-learn took for a sample of cells of one arm and number of labels; medians, in seconds."""

    arm: str
    labels: int
    fit: float
    ask: float
    apart: float
    """Largest relative difference of an RMSE to ours."""


def looped(areas: list[Area], ours: Cells) -> list[Kind]:
    """A cell at a time: standardise and fit, then ask and score; of the first area and draw, a few tasks and test areas."""
    here, found = areas[0], []
    for repeat, rows in (one for one in draws(here, PLAN) if one[0] == 0):
        for arm in ARMS:
            each = [_cell(here, rows, arm, k % len(PLAN.tasks), areas[k % len(areas)]) for k in range(SAMPLE)]
            apart = []
            for k, (_, _, rmse) in enumerate(each):
                (place,) = np.flatnonzero(
                    (ours.task == PLAN.tasks[k % len(PLAN.tasks)]) & (ours.test == areas[k % len(areas)].name) & (ours.arm == arm)
                    & (ours.labels == len(rows)) & (ours.repeat == repeat)
                )  # fmt: skip
                apart.append(abs(rmse / ours.rmse[place] - 1))
            fit, ask, _ = np.median(each, axis=0)
            found.append(Kind(arm, len(rows), float(fit), float(ask), max(apart)))
    return found


def _cell(here: Area, rows: npt.NDArray[np.intp], arm: str, task: int, test: Area) -> tuple[float, float, float]:
    """Seconds to fit, to ask, and the RMSE."""
    began = time.perf_counter()
    scaler = StandardScaler().fit(here.features[rows])
    model = LinearRegression() if arm == ARMS[0] else RidgeCV(PLAN.penalties)
    model.fit(scaler.transform(here.features[rows]), here.shares[rows, task])
    fitted = time.perf_counter()
    wrong = model.predict(scaler.transform(test.features[test.held])) - test.shares[test.held, task]
    rmse = float(np.sqrt((wrong**2).mean()))
    return fitted - began, time.perf_counter() - fitted, rmse


HEAD = """# Half a million linear probes

{measured} `python -m benchmarks.probing`. {encoders} encoders of {wide} numbers, {tasks} tasks, {areas} areas of {chips} chips
to fit in and to ask in, {budgets} labels, {repeats} draws: {count:,} cells by least squares and as many by ridge, its penalty
chosen by leaving one out. float64. Ours: **{ours:.0f} s**, {peak:.2f} GB at most. A loop over scikit-learn, timed on {sample}
cells of each kind in the same run, would take {loop:,.0f} s, **{ratio:.0f} times** as long; one that fits once for all areas
that are asked {shared:,.0f} s, {shared_ratio:.0f} times.

| arm | labels | scikit-learn: fit, ms | ask, ms | largest relative difference of an RMSE |
| --- | --- | --- | --- | --- |
"""


@click.command()
@click.option("--encoders", default=ENCODERS, show_default=True, help="Fewer, to see that it runs; the table says how many.")
def main(encoders: int) -> None:
    """As the module says."""
    ours, count, first = 0.0, 0, None
    for encoder in range(encoders):
        areas = [area(encoder, number) for number in range(AREAS)]
        began = time.perf_counter()
        found = [cells(one, areas, PLAN)[0] for one in areas]
        ours += time.perf_counter() - began
        count += sum(map(len, found)) // len(ARMS)
        first = first or (areas, found[0])
        click.echo(f"encoder {encoder}: {ours:.0f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert first is not None
    kinds = looped(*first)
    a_kind = count / len(PLAN.budgets)
    loop, shared = (a_kind * sum(one.ask + one.fit / fits for one in kinds) for fits in (1, AREAS))
    text = HEAD.format(
        measured=measured(), encoders=encoders, wide=WIDE, tasks=len(PLAN.tasks), areas=AREAS, chips=CHIPS,
        budgets=", ".join(map(str, PLAN.budgets)), repeats=PLAN.repeats, count=count, ours=ours, peak=peak, sample=SAMPLE,
        loop=loop, ratio=loop / ours, shared=shared, shared_ratio=shared / ours,
    )  # fmt: skip
    rows = [f"| {one.arm} | {one.labels} | {1000 * one.fit:.1f} | {1000 * one.ask:.1f} | {one.apart:.1e} |" for one in kinds]
    (RESULTS / "probing.md").write_text(text + "\n".join(rows) + "\n", encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
