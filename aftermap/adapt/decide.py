"""Whether to adapt, without labels: where other statistics part the scores of the target better, and not otherwise.

Our own rule. Batch norm of the target helps a network that the target has confused, and harms one that it has not: its
scores then lose the two modes that they had. benchmarks/results/unseen.md says what the rule came to.
"""

from __future__ import annotations

from aftermap.cuts import APART, I64, ashman_d

SHOTS = 10
"""Crops that it tries."""


def parts_better(before: I64, after: I64) -> tuple[bool, str]:
    """Whether scores counted by log odds (bin,) have two modes after adaptation, further apart than before; and both in words."""
    was, is_now = ashman_d(before), ashman_d(after)
    found = is_now > max(was, APART)
    words = f"Ashman's D of the scores {was:.2f} before and {is_now:.2f} after"
    return found, f"{words}; {'adapted' if found else 'left as it was'}"
