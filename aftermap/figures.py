"""Figures of scores. The door to matplotlib for drawings."""

from __future__ import annotations

from pathlib import Path

from aftermap.evaluate import Evaluation


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
