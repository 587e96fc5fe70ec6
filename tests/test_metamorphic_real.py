"""Real scenes changed in ways that must not change their maps, or must move them along, by five methods: to the last pixel where
that can be, and as near as NEAR states where not. tests/test_metamorphic.py has the radar method in more depth.

Measured here as IoU of the extents (greatest difference of likelihood in percent); what is not said is alike to the last pixel:
- *shifted* by 32 and 64 px: sar-threshold 0.990 (7), bare-soil 0.830 (16), gabor 0.914 (12), the network 0.991 (22). Another crop
  has other tiles, and scene-wide numbers come from what lies in it: a threshold from its tiles, a filter's scale from its pixels;
  a network's tiles begin elsewhere. mndwi, whose numbers are fixed, is exact.
- *turned* by 90 degrees: gabor 0.978 (4), whose filters are correlated in another order, over blocks that are laid from the first
  corner; the network 0.895 (82), whose weights know up from down. The others are exact.
- *an unseen collar*: the network 0.968 (72), which sees "not observed" where it saw its own padding; the others are exact.
- *a wider type*: optical whole numbers of 16 bits are reflectance, of 8 bits a picture's: bare-soil divides other floats, 1 (1).
- *reprojected* by nearest neighbour: sar-threshold 0.992, mndwi 0.986. Pixels double and drop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from odc.geo.geobox import GeoBox

import aftermap as am
from aftermap import card, raster
from aftermap.sensors import convert
from aftermap.tiles import Window
from tests.real_scenes import COLS, REAL, ROWS, Given

U8 = npt.NDArray[np.uint8]
WHOLE = Window(0, 0, ROWS, COLS)
HOLE = np.s_[:, 100:140, 60:120]
EDGE, SHIFT = 32, (32, 64)
"""Pixels that are left out along edges that a relation moves; and by how much a crop is moved, in whole pixels."""
COLLAR = 64


@dataclass(frozen=True)
class Both:
    """Likelihood and extent (y, x) of a map and of the changed one, laid back on it."""

    likelihood: tuple[U8, U8]
    extent: tuple[U8, U8]

    @classmethod
    def of(cls, plain: am.HazardMap, other: am.HazardMap, back: Callable[[U8], U8], part: Window = WHOLE) -> Both:
        """`back` undoes the change; compared is a part of the plain one."""

        def pair(name: str) -> tuple[U8, U8]:
            mine, its = getattr(plain, name)(part), getattr(other, name)(Window(0, 0, *other.shape))
            return mine, back(its)

        return cls(pair("likelihood"), pair("extent"))

    @property
    def exact(self) -> bool:
        """Alike to the last pixel."""
        return all(np.array_equal(*pair) for pair in (self.likelihood, self.extent))

    @property
    def iou(self) -> float:
        """Of the extents where both were analysed; 1 where neither finds anything."""
        mine, its = self.extent
        both = (mine != 255) & (its != 255)
        union = (((mine == 1) | (its == 1)) & both).sum()
        return float(((mine == 1) & (its == 1) & both).sum() / union) if union else 1.0

    @property
    def unseen_alike(self) -> float:
        """Share of pixels that both or neither analysed."""
        return float(((self.extent[0] == 255) == (self.extent[1] == 255)).mean())


def stored(**layout: Any) -> Callable[[Path, Given], Path]:
    """Saves a file in another layout."""

    def save(path: Path, given: Given) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"driver": "GTiff", "count": len(given.pixels), "height": ROWS, "width": COLS, "dtype": given.pixels.dtype}
        placed = {"crs": given.grid.crs, "transform": given.grid.affine} if given.grid.crs else {}
        with rasterio.open(path, "w", **facts, **placed, nodata=given.nodata, **layout) as out:
            out.write(given.pixels)
            out.descriptions, out.units = given.bands, (given.unit,) * len(given.bands)
        return path

    return save


def holed(given: Given) -> Given:
    """With pixels that were not observed, and room for a mark of them at both ends of whole numbers."""
    pixels = given.pixels.copy()
    if np.issubdtype(pixels.dtype, np.integer):
        pixels = pixels.clip(1, np.iinfo(pixels.dtype).max - 1)
    pixels[HOLE] = given.nodata
    return replace(given, pixels=pixels)


def another_nodata(given: Given) -> Given:
    mark = -9999.0 if np.isnan(given.nodata) else float(np.iinfo(given.pixels.dtype).max)
    hole = np.isnan(given.pixels) if np.isnan(given.nodata) else given.pixels == given.nodata
    assert not (given.pixels == mark).any()
    return replace(given, pixels=np.where(hole, given.pixels.dtype.type(mark), given.pixels), nodata=mark)


def wider(given: Given) -> Given:
    kind = {"uint8": "uint16", "uint16": "float32", "int16": "float32", "float32": "float64"}[str(given.pixels.dtype)]
    return replace(given, pixels=given.pixels.astype(kind))


def turned_bands(given: Given) -> Given:
    return replace(given, pixels=given.pixels[::-1], bands=given.bands[::-1])


def framed(given: Given) -> Given:
    """An unseen collar."""
    around = ((0, 0), (COLLAR, COLLAR), (COLLAR, COLLAR))
    grid = GeoBox(
        (ROWS + 2 * COLLAR, COLS + 2 * COLLAR), given.grid.affine @ Affine.translation(-COLLAR, -COLLAR), given.grid.crs
    )
    return replace(given, pixels=np.pad(given.pixels, around, constant_values=given.nodata), grid=grid)


def turned(given: Given) -> Given:
    grid = GeoBox((COLS, ROWS), given.grid.affine, given.grid.crs)
    return replace(given, pixels=np.rot90(given.pixels, axes=(1, 2)), grid=grid)


def reprojected(given: Given) -> Given:
    """In metres of Web Mercator, by nearest neighbour."""
    on = given.grid.to_crs("EPSG:3857")
    out = np.full((len(given.pixels), *on.shape), given.nodata, given.pixels.dtype)
    placed = {"src_transform": given.grid.affine, "src_crs": given.grid.crs, "dst_transform": on.affine, "dst_crs": on.crs}
    rasterio.warp.reproject(given.pixels, out, src_nodata=given.nodata, dst_nodata=given.nodata, **placed)
    return replace(given, pixels=out, grid=on)


STORED: dict[str, Callable[[Given], Given]] = {
    "another mark of nodata": another_nodata,
    "a wider type": wider,
    "in tiles": lambda g: replace(g, save=stored(tiled=True, blockxsize=64, blockysize=128, compress="zstd")),
    "in one strip": lambda g: replace(g, save=stored(compress="lzw", blockysize=ROWS)),
    "bands in another order": turned_bands,
    "another memory": lambda g: replace(g, memory_mb=600),
}
"""What changes how an image is stored or read, and no map of any method."""
MOVED: dict[str, tuple[Callable[[Given], Given], Callable[[U8], U8]]] = {
    "an unseen collar": (framed, lambda p: p[COLLAR:-COLLAR, COLLAR:-COLLAR]),
    "turned by 90 degrees": (turned, lambda p: np.rot90(p, -1)),
}
"""What moves the pixels, and what moves the map back."""
NEAR = {
    ("an unseen collar", "network"): 0.95, ("turned by 90 degrees", "network"): 0.85, ("turned by 90 degrees", "fracture"): 0.95,
    ("shifted", "radar"): 0.97, ("shifted", "landslide"): 0.8, ("shifted", "fracture"): 0.88, ("shifted", "network"): 0.97,
    ("reprojected", "radar"): 0.97, ("reprojected", "optical"): 0.97, ("a wider type", "landslide"): 1.0,
    ("stored", "landslide"): 1.0,
}  # fmt: skip
"""Relation and scene -> the least IoU; every other is exact."""


@dataclass(frozen=True)
class Plain:
    """A scene with pixels that were not observed, and its map."""

    name: str
    given: Given
    map: am.HazardMap

    def judge(self, relation: str, both: Both) -> None:
        """As near as is stated, and not observed where it was not."""
        assert both.unseen_alike == 1
        if (relation, self.name) not in NEAR:
            assert both.exact, f"IoU {both.iou:.4f}"
        assert both.iou >= NEAR.get((relation, self.name), 1)


@pytest.fixture(autouse=True, scope="module")
def bundled() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "BUNDLED", Path(card.__file__).parent / "models")
        yield


@pytest.fixture(scope="module", params=REAL)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plain:
    given = holed(Given.of(REAL[request.param]))
    mapped = given.map(tmp_path_factory.mktemp("plain"))
    assert 0.01 < (mapped.extent(WHOLE) == 1).mean() < 0.6
    assert (mapped.extent(WHOLE)[HOLE[1:]] == 255).all()
    return Plain(request.param, given, mapped)


def test_how_an_image_is_stored_changes_nothing(plain: Plain, tmp_path: Path) -> None:
    """All at once."""
    given = plain.given
    for change in STORED.values():
        given = change(given)
    plain.judge("stored", Both.of(plain.map, given.map(tmp_path), lambda p: p))


@pytest.mark.full
@pytest.mark.parametrize("relation", STORED)
def test_each_way_to_store_an_image_changes_nothing(plain: Plain, tmp_path: Path, relation: str) -> None:
    plain.judge(relation, Both.of(plain.map, STORED[relation](plain.given).map(tmp_path), lambda p: p))


@pytest.mark.parametrize("relation", MOVED)
def test_what_moves_an_image_moves_its_map(plain: Plain, tmp_path: Path, relation: str) -> None:
    change, back = MOVED[relation]
    plain.judge(relation, Both.of(plain.map, change(plain.given).map(tmp_path), back))


@pytest.mark.full
@pytest.mark.parametrize("name", REAL)
def test_a_crop_elsewhere_has_the_map_of_there(name: str, tmp_path: Path) -> None:
    """Compared away from the edges of both crops."""
    real, (down, right) = REAL[name], SHIFT
    here = Given.of(real)
    there = Given.of(replace(real, corner=(real.corner[0] + down, real.corner[1] + right)))
    one, other = here.map(tmp_path / "here"), there.map(tmp_path / "there")
    part = Window(down + EDGE, right + EDGE, ROWS - down - 2 * EDGE, COLS - right - 2 * EDGE)
    rows, cols = part._replace(row=EDGE, col=EDGE).slices
    Plain(name, here, one).judge("shifted", Both.of(one, other, lambda p: p[rows, cols], part))


def test_power_maps_like_db(plain: Plain, tmp_path: Path) -> None:
    """Float32 rounds, and that moves no pixel of these."""
    if plain.given.unit != "dB":
        pytest.skip("radar alone has more than one unit")
    power = replace(plain.given, pixels=convert(plain.given.pixels, "dB", "power"), unit="power")
    plain.judge("power", Both.of(plain.map, power.map(tmp_path), lambda p: p))


@pytest.mark.full
@pytest.mark.parametrize("name", ["radar", "optical"])
def test_a_reprojected_image_has_the_reprojected_map(name: str, tmp_path: Path) -> None:
    given = Given.of(REAL[name])
    plain = Plain(name, given, given.map(tmp_path / "plain"))
    other = reprojected(given).map(tmp_path / "other")
    reader = raster.Reader(other.folder / "extent.tif", given.grid, [1], classes=True)
    back = np.nan_to_num(reader.read(WHOLE)[0], nan=255).astype(np.uint8)
    both = Both.of(plain.map, plain.map, lambda p: p)
    both = replace(both, extent=(both.extent[0], back))
    assert both.unseen_alike > 0.98
    assert both.iou > NEAR["reprojected", name], both.iou
