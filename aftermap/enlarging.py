"""By how much a network may enlarge what it sees, and what that asks of the sides of an image; no torch.

The paper of progressive refinement sees 128 px as 320 and as 512: 2.5 and 4 times (methods.md C.2).
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd, lcm

DEEPEST = 32
"""Stride of the deepest features: enlarged or not, what a network sees has sides that are multiples of it."""
MOST_TIMES, MOST_SIDE = 8, 256
ALLOWED = f"give 1 to {MOST_TIMES}, of which some multiple of {DEEPEST} px up to {MOST_SIDE} becomes one: 1.5, 2, 2.5, 3 or 4"


def ratio(times: float) -> Fraction:
    """The number as it was written: 2.5 is 5/2."""
    return Fraction(str(times))


def multiple_of(times: float) -> int:
    """What sides of an image are multiples of, so that they are whole multiples of 32 enlarged or not: 64 for 2.5.

    0 where `times` is not within 1 to 8, or no side up to 256 px will do.
    """
    if not 1 <= times <= MOST_TIMES:
        return 0
    up, down = ratio(times).as_integer_ratio()
    side = lcm(DEEPEST, down * DEEPEST // gcd(up, DEEPEST))
    return side if side <= MOST_SIDE else 0
