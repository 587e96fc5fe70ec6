"""The shape of the ground: slope, aspect and curvature of a window, in metres on the ground whatever the CRS; also as bands.

Height above drainage stands in drainage.py, radar shadow and layover in sight.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aftermap.area import pixel_spacing_m
from aftermap.drainage import ELEVATION
from aftermap.errors import UnknownNameError
from aftermap.scene import Scene
from aftermap.tiles import Window

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ground:
    """Elevation (y + 2, x + 2) in m of a window with a rim of one pixel, and the pixels' spacing (y, x) in m."""

    rimmed: F64
    across_m: F64
    down_m: F64

    @property
    def elevation(self) -> F32:
        """Elevation (y, x) in m of the window itself, NaN where not known."""
        return self.rimmed[1:-1, 1:-1].astype(np.float32)

    @property
    def slope_deg(self) -> F32:
        """Slope (y, x) in degrees (Horn 1981); NaN where a neighbour's elevation is not known."""
        return np.degrees(np.arctan(np.hypot(*self._gradient()))).astype(np.float32)

    @property
    def aspect_deg(self) -> F32:
        """Where the slope faces (y, x): degrees clockwise from the image's upward direction; NaN where flat or not known."""
        right, up = self._gradient()
        facing = np.degrees(np.arctan2(-right, -up)) % 360
        return np.where((right == 0) & (up == 0), np.nan, facing).astype(np.float32)

    def facing(self) -> tuple[F32, F32]:
        """Sine and cosine (y, x) of the aspect: numbers that lie near where directions do. Both 0 where flat; NaN where a
        neighbour's elevation is not known."""
        right, up = self._gradient()
        steep = np.hypot(right, up)
        steep[steep == 0] = 1
        return (-right / steep).astype(np.float32), (-up / steep).astype(np.float32)

    @property
    def aspect_vector(self) -> F32:
        """Where the slope faces (2, y, x), as sine and cosine of `aspect_deg`; both 0 where flat, NaN where not known."""
        right, up = self._gradient()
        length = np.hypot(right, up)
        facing = np.stack([-right, -up]) / np.where(length == 0, 1, length)
        return np.asarray(facing + 0.0, np.float32)  # no minus zero

    @property
    def curvature(self) -> F32:
        """Minus the Laplacian (y, x) in 1/m (Zevenbergen and Thorne 1987): above 0 on ridges, below 0 in hollows."""
        z = self.rimmed
        centre = z[1:-1, 1:-1]
        right = (z[1:-1, 2:] + z[1:-1, :-2] - 2 * centre) / self.across_m**2
        down = (z[2:, 1:-1] + z[:-2, 1:-1] - 2 * centre) / self.down_m**2
        return np.asarray(-(right + down), np.float32)

    def _gradient(self) -> tuple[F64, F64]:
        """Rise (y, x) in m/m to the right and upward in the image, from all eight neighbours, the nearer ones twice."""
        z = self.rimmed
        down = z[:-2] + 2 * z[1:-1] + z[2:]  # (y, x + 2)
        across = z[:, :-2] + 2 * z[:, 1:-1] + z[:, 2:]  # (y + 2, x)
        centre = 0 * z[1:-1, 1:-1]  # Horn leaves the centre out; a void has no slope
        return (down[:, 2:] - down[:, :-2]) / (8 * self.across_m) + centre, (across[:-2] - across[2:]) / (
            8 * self.down_m
        ) + centre


def read_ground(scene: Scene, window: Window, *, gsd_m: float | None = None) -> Ground:
    """The ground of a window from the scene's `dem`; the same bits whatever the window.

    Beyond the image's edge the ground goes on as it came. `gsd_m` is the pixel size of a scene without CRS.
    """
    wide = window.pad(1, scene.shape)
    z = scene.read(ELEVATION, wide)[0].astype(np.float64)
    rim = [
        (int(window.row == 0), int(window.stop_row == scene.shape[0])),
        (int(window.col == 0), int(window.stop_col == scene.shape[1])),
    ]
    straight = np.pad(z, rim, mode="reflect", reflect_type="odd") if min(z.shape) > 1 else np.pad(z, rim, mode="edge")
    return Ground(straight, *pixel_spacing_m(scene.grid, window, gsd_m=gsd_m))


@dataclass(frozen=True)
class Derivative:
    """What is worked out of elevation: its bands, their units, and their values (band, y, x)."""

    bands: tuple[str, ...]
    units: tuple[str, ...]
    of: Callable[[Ground], F32]


DERIVATIVES = {
    "elevation": Derivative(("elevation",), ("metres",), lambda ground: ground.elevation[None]),
    "slope": Derivative(("slope",), ("degrees",), lambda ground: ground.slope_deg[None]),
    # an angle jumps at north: networks get its sine and cosine (methods.md B3)
    "aspect": Derivative(("aspect_sin", "aspect_cos"), ("1", "1"), lambda ground: ground.aspect_vector),
    "curvature": Derivative(("curvature",), ("1/m",), lambda ground: ground.curvature[None]),
}


def derivatives(names: Sequence[str]) -> list[Derivative]:
    """Those of that name. Raises UnknownNameError ("unknown-terrain")."""
    for name in names:
        if name not in DERIVATIVES:
            raise UnknownNameError("terrain", name, DERIVATIVES)
    return [DERIVATIVES[name] for name in dict.fromkeys(names)]


@dataclass(frozen=True, eq=False)
class TerrainBands:
    """Derivatives of a scene's `dem` as a source of bands: "dem.slope"."""

    scene: Scene
    wanted: tuple[Derivative, ...]

    @property
    def bands(self) -> tuple[str, ...]:
        """Own names, the layer in front."""
        return tuple(f"dem.{band}" for one in self.wanted for band in one.bands)

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of each band."""
        return tuple(unit for one in self.wanted for unit in one.units)

    def read(self, window: Window) -> F32:
        """Values (band, y, x) of a window; NaN where a neighbour's elevation is not known."""
        ground = read_ground(self.scene, window)
        return np.concatenate([one.of(ground) for one in self.wanted])
