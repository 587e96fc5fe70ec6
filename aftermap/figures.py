"""Figures of scores. The door to matplotlib for drawings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from aftermap.evaluate import Evaluation

_SHOWN = ("mean", "std")


def draw_scores(path: Path, result: Evaluation) -> None:
    """Precision against recall, and the reliability of the scores, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    ranked, calibrated = figure.subplots(1, 2)
    precision, recall = result.ranking.precision_recall()
    ranked.step(recall, precision, where="post")
    prevalence = result.row()["prevalence"] or 0
    ranked.axhline(prevalence, linestyle=":", color="grey", label=f"trivial predictor {prevalence:.3f}")
    score, share = result.reliability.curve()
    calibrated.plot([0, 1], [0, 1], ":", color="grey", label="perfectly calibrated")
    calibrated.plot(score, share, "o-")
    ranked.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=result.event)
    calibrated.set(
        xlabel="mean score", ylabel="share of hazard", xlim=(0, 1), ylim=(0, 1), title=f"{result.counts.total:,} pixels"
    )
    for axes in (ranked, calibrated):
        axes.legend(loc="lower left" if axes is ranked else "upper left", frameon=False)
    figure.savefig(path, dpi=120)


def draw_bands(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Statistics of a data set as a PNG: mean and deviation of each band per split, and the share of each class."""
    from matplotlib.figure import Figure

    bands = list(rows[0]["bands"])
    figure = Figure(figsize=(min(4 + 0.5 * len(bands) * max(1, len(rows) / 2), 24), 4), layout="constrained")
    of_bands, of_classes = figure.subplots(1, 2, width_ratios=(3, 1))
    for k, row in enumerate(rows):
        places = [i + 0.8 * (k + 0.5) / len(rows) - 0.4 for i in range(len(bands))]
        mean, spread = ([row["bands"][b][word] if row["bands"][b][word] is not None else nan for b in bands] for word in _SHOWN)
        of_bands.errorbar(places, mean, yerr=spread, fmt="o", capsize=2, label=f"{row['split']} ({row['chips']:,} chips)")
        shares = [v or 0 for v in row["classes"].values()]
        bars = [i + 0.8 * (k + 0.5) / len(rows) - 0.4 for i in range(len(shares))]
        drawn = of_classes.barh(bars, shares, height=0.8 / len(rows))
        of_classes.bar_label(drawn, [f"{share:.1%}" for share in shares], padding=2, fontsize=7)
    of_bands.set_xticks(range(len(bands)), bands, rotation=90 if sum(map(len, bands)) > 30 else 0)
    of_bands.set(title=name, ylabel="mean and standard deviation")
    of_bands.legend(frameon=False)
    words = [c if len(c) < 24 else c[:23] + "…" for c in rows[0]["classes"]]
    of_classes.set_yticks(range(len(words)), words)
    of_classes.set(xlim=(0, 1.2), xlabel="share of labels")
    figure.savefig(path, dpi=120)


def draw_results(path: Path, lines: Sequence[Any]) -> None:
    """Each metric of each recipe (results.Line): dots for seeds, mean, intervals, and what takes no training; a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.4 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for place, line in enumerate(lines):
        for ends, width in (((line.low, line.high), 10), ((line.image_low, line.image_high), 4)):
            if None not in ends:
                axes.plot(ends, [place, place], "-", color="tab:blue", lw=width, alpha=0.3)
        known = [v for v in line.each if v is not None]
        axes.plot(known, [place] * len(known), "o", color="tab:blue", markersize=4)
        axes.plot([nan if line.mean is None else line.mean], [place], "|", color="black", markersize=14)
        axes.plot([nan if line.everything is None else line.everything], [place], "x", color="grey")
        axes.plot([nan if line.without_training is None else line.without_training], [place], "D", color="tab:orange")
    axes.set_yticks(range(len(lines)), [f"{line.recipe}, {line.metric}" for line in lines])
    axes.set(
        xlim=(0, 1), xlabel="dots: seeds; bars: 95 % over events (broad), over images; diamond: without training; x: everything"
    )
    axes.invert_yaxis()
    figure.savefig(path, dpi=120)


def draw_unseen(path: Path, lines: Sequence[Any]) -> None:
    """Networks on targets that they never saw (unseen_table.Line): balanced accuracy and AP by how many crops they were adapted
    to, beside their first weights, the methods without training and, dotted, what the rule can reach; a PNG or JPEG."""
    from matplotlib.figure import Figure

    targets = list(dict.fromkeys(one.target for one in lines))
    recipes = list(dict.fromkeys(one.recipe for one in lines if one.variant != "classical"))
    places = {shots: k for k, shots in enumerate(sorted({_shots(one) for one in lines}))}
    figure = Figure(figsize=(2.6 * len(targets) + 1, 6), layout="constrained")
    axes = figure.subplots(2, len(targets), squeeze=False, sharex=True)
    for column, target in enumerate(targets):
        own = [one for one in lines if one.target == target]
        axes[0, column].set_title(f"{target}\n{100 * own[0].prevalence:.1f} % hazard", fontsize=9)
        for row, metric in enumerate(("ba", "ap")):
            for number, recipe in enumerate(recipes):
                _by_shots(axes[row, column], [one for one in own if one.recipe == recipe], metric, places, f"C{number}")
            for one in (one for one in own if one.variant == "classical"):
                axes[row, column].axhline(getattr(one, metric), color="black", ls="--", lw=1, label="without training")
        axes[1, column].set(ylim=(0, None), xlabel="crops")
        axes[1, column].set_xticks([*places.values()], [*map(str, places)])
        if own[0].ceiling is not None:
            axes[0, column].axhline(own[0].ceiling, color="grey", ls=":")
        axes[0, column].axhline(0.5, color="grey", lw=0.5)
    axes[0, 0].set_ylabel("balanced accuracy, top 5 %")
    axes[1, 0].set_ylabel("average precision")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)


def _shots(line: Any) -> int:
    last = line.variant.rpartition("-")[2]
    return int(last) if last.isdigit() else 0


def _by_shots(axes: Any, lines: Sequence[Any], metric: str, places: Mapping[int, int], colour: str) -> None:
    """A recipe: one line of dots for each way of adapting, its first dot the network as trained; filled where it is starred."""
    ways = list(dict.fromkeys(one.variant.rpartition("-")[0] for one in lines if _shots(one))) or [""]
    for way, marker in zip(ways, "osv^Dx*", strict=False):
        dots = [one for one in lines if one.variant == "source" or (_shots(one) and one.variant.rpartition("-")[0] == way)]
        dots.sort(key=_shots)
        at, values = [places[_shots(one)] for one in dots], [getattr(one, metric) for one in dots]
        axes.plot(
            at, values, "-", color=colour, marker=marker, fillstyle="none", label=f"{lines[0].recipe if lines else ''} {way}"
        )
        starred = [k for k, one in enumerate(dots) if one.starred]
        axes.plot([at[k] for k in starred], [values[k] for k in starred], marker, color=colour, ls="")
    for one in (one for one in lines if one.variant == "untrained"):
        axes.axhline(getattr(one, metric), color=colour, ls="-.", lw=0.7, label=f"{one.recipe} untrained")


def draw_matrices(path: Path, matrices: Mapping[str, Any], train: Sequence[str], test: Sequence[str]) -> None:
    """Scores (train, test) of each encoder as squares of colour with their numbers, -1 to 1; a PNG."""
    from matplotlib.figure import Figure

    side = 1.2 + 0.42 * max(len(train), len(test))
    across = min(3, len(matrices))
    down = -(-len(matrices) // across)
    figure = Figure(figsize=(across * side, down * side), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(matrices) :]:
        axes.set_axis_off()
    for axes, (name, values) in zip(grid.flat, matrices.items(), strict=False):
        axes.imshow(values, vmin=-1, vmax=1, cmap="RdBu")
        axes.set_title(name, fontsize=9, wrap=True)
        axes.set_xticks(range(len(test)), test, rotation=90, fontsize=7)
        axes.set_yticks(range(len(train)), train, fontsize=7)
        axes.set(xlabel="asked in", ylabel="fitted in")
        for row, line in enumerate(values):
            for col, value in enumerate(line):
                axes.text(col, row, f"{value:.2f}", ha="center", va="center", fontsize=5)
    figure.savefig(path, dpi=120)
