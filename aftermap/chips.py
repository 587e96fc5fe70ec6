"""Training samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.tiles import Window

F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
U8 = npt.NDArray[np.uint8]

UNKNOWN = 255
"""Class code of pixels whose truth is not known; losses and metrics leave them out."""


@dataclass(frozen=True, eq=False)
class Chip:
    """A training sample. Pixels (band, y, x) are in sensor units, NaN where not observed."""

    pixels: F32
    valid: Bool
    """(y, x), True where every band was observed."""
    truth: U8 | None
    """Class codes (y, x), 255 unknown; None where only the whole chip has a label, or none."""
    bands: tuple[str, ...]
    """Own names in order, the layer in front where it is not `after`: "before.VV"."""
    unit: str | tuple[str, ...]
    """One for all bands, or one for each."""
    name: str
    event: str = ""
    domain: str = ""
    """What shares statistics: sensor and place."""
    window: Window | None = None
    """Where in its scene, in pixels."""
    target: float | int | tuple[int, ...] | None = None
    """Label of the whole chip; several of 0 and 1, one per class, where classes do not exclude one another."""

    def __post_init__(self) -> None:
        assert self.pixels.dtype == np.float32
        assert self.pixels.ndim == 3
        assert len(self.bands) == len(self.pixels)
        assert self.valid.shape == self.pixels.shape[1:]
        assert self.truth is None or (self.truth.shape == self.valid.shape and self.truth.dtype == np.uint8)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.valid.shape[0], self.valid.shape[1]

    @property
    def labelled(self) -> Bool:
        """True (y, x) where the pixel was observed and its truth is known."""
        return self.valid & (self.truth != UNKNOWN) if self.truth is not None else np.zeros_like(self.valid)
