"""Every code of docs/codes.md that speaks of input, on files made for it, through the command line as a user meets it."""

from __future__ import annotations

import html
import json
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio.raw
import pytest
import rasterio
import shapely
from click.testing import CliRunner, Result
from scipy import ndimage

import aftermap
from aftermap import journal
from aftermap.cli import main
from aftermap.scorer import LayerBands
from tests.conftest import flood_pair, grid, write
from tests.networks import toy

CODES = Path(__file__).parents[1] / "docs" / "codes.md"
SHAPE = (180, 260)
POLS = ("VV", "VH")
Args = list[str | Path]
Make = Callable[[Path], Args]

ELSEWHERE = {
    "unit-mismatch": "scenes are asked in words before they are read: only Python reaches it, tests/test_layer.py",
    "input-refused": "no fault has it; it is what a refusal without a code of its own would show",
    "input-changed": "a file replaced while it is read, tests/faults/test_inputs.py",
    "no-embedding": "of aftermap drift, tests/test_familiarity.py",
}
"""Codes of refused input that no file brings about in check, map or evaluate, and why."""


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def radar(path: Path, **how: Any) -> Path:
    """An image that nothing is wrong with, but for what is given."""
    given = {"pixels": flood_pair(SHAPE)[1], "on": grid(SHAPE), "bands": POLS, "unit": "dB", "nodata": float("nan"), **how}
    return write(path, **given)


def infrared(path: Path, *, low: int = 200, bands: Sequence[str] = ("B03", "B08", "B11"), **how: Any) -> Path:
    pixels = np.random.default_rng(0).integers(low, low + 3000, (len(bands), *SHAPE)).astype(np.uint16)
    return write(path, pixels, grid(SHAPE), tuple(bands), nodata=0, **how)


def area(path: Path, *shapes: Any, crs: str | None = "EPSG:32633", layer: str = "a", kind: str = "Polygon") -> Path:
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(shapes, object)), [], [], driver="GPKG", geometry_type=kind, crs=crs, layer=layer,
        append=path.exists(),
    )  # fmt: skip
    return path


HERE = shapely.box(420100, 5348500, 421500, 5349900)


def with_area(make: Callable[[Path], Path]) -> Make:
    return lambda folder: ["--after", radar(folder / "a.tif"), "--aoi", make(folder)]


def empty(folder: Path, name: str) -> Args:
    (folder / name).mkdir()
    return ["--after", folder / name]


def packed(path: Path, member: str) -> Path:
    """A zip of one member, which may be no image at all."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(member, "no image")
    return path


def text(path: Path) -> Path:
    path.write_text("no image")
    return path


def cut_short(path: Path) -> Path:
    os.truncate(radar(path), path.stat().st_size * 2 // 3)
    return path


def infrared_as_alpha(folder: Path) -> Args:
    """The fourth band marked as alpha, on a grid of its own, so that it has to be warped."""
    on = grid(SHAPE, origin=(420003, 5349997))
    facts = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "crs": "EPSG:32633", "transform": on.affine}
    pixels = np.random.default_rng(0).integers(1, 250, (4, *SHAPE)).astype(np.uint8)
    with rasterio.open(folder / "b.tif", "w", dtype="uint8", count=4, photometric="rgb", alpha="yes", **facts) as dst:
        dst.write(pixels)
    after = write(folder / "a.tif", pixels, grid(SHAPE), ("",) * 4)
    return ["--after", after, "--before", folder / "b.tif", "--bands", "red,green,blue,nir", "--sensor", "optical"]


def two_images(name: str, **how: Any) -> Make:
    """Two images of one layer, the second with what is given."""
    east = {"on": grid(SHAPE, origin=(422600, 5350000)), **how}
    return lambda folder: ["--after", radar(folder / "a_20240501.tif"), radar(folder / name, **east)]


def db(shift: float = 0.0) -> npt.NDArray[np.float32]:
    return np.asarray(np.random.default_rng(0).normal(-12 + shift, 3, (2, *SHAPE)), np.float32)


def one(**how: Any) -> Make:
    return lambda folder: ["--after", radar(folder / "a.tif", **how)]


def pair(**how: Any) -> Make:
    return lambda folder: ["--after", radar(folder / "a.tif"), "--before", radar(folder / "b.tif", **how)]


def model(spoil: Callable[[Path], object], **how: Any) -> Make:
    """A model folder of which something is wrong."""

    def make(folder: Path) -> Args:
        spoil(toy(folder / "model", **how))
        return [*one()(folder), "--model", folder / "model", "--precision", "f32"]

    return make


REFUSED: dict[str, list[Make]] = {
    "no-model": [model(lambda f: (f / "model.toml").unlink())],
    "card-invalid": [model(lambda f: text(f / "model.toml"))],
    "model-changed": [model(lambda f: (f / "graph.bin").write_bytes(b"other weights"))],
    "model-graph": [model(lambda f: (f / "graph.xml").unlink())],
    "model-input": [model(lambda f: f, inputs=(LayerBands("after", ("VV",), "reflectance"),))],
    "archive-damaged": [lambda f: ["--after", text(f / "S2A_MSIL2A_20240612T101559.zip")]],
    "archive-unsafe": [lambda f: ["--after", packed(f / "a.zip", "../a.tif")]],
    "archive-empty": [lambda f: ["--after", packed(f / "a.zip", "notes.txt")]],
    "safe-empty": [lambda f: empty(f, "S2A_MSIL2A_20240612T101559.SAFE")],
    "sar-uncalibrated": [
        lambda f: empty(f, "S1A_IW_GRDH_1SDV_20240612T165500.SAFE"),
        lambda f: [
            "--after",
            packed(f / "a.zip", "S1A_IW_GRDH_1SDV_20240612T165500.SAFE/measurement/s1a-iw-grd-vv-20240612.tiff"),
        ],
    ],
    "mosaic-dates": [two_images("b_20240513.tif")],
    "mosaic-apart": [two_images("b_20240501.tif", on=grid(SHAPE, origin=(700000, 5550000)))],
    "mosaic-mixed": [two_images("b_20240501.tif", pixels=np.full((2, *SHAPE), 90, np.uint8), unit="", nodata=0)],
    "missing-file": [
        lambda f: ["--after", f / "none.tif"],
        with_area(lambda f: f / "none.gpkg"),
        lambda f: [*one()(f), "--assets", f / "none.gpkg"],
    ],
    "folder": [lambda f: ["--after", f]],
    "unreadable": [lambda f: ["--after", text(f / "a.tif")]],
    "truncated": [lambda f: ["--after", cut_short(f / "a.tif")]],
    "complex": [one(pixels=(db() + 1j * db()).astype(np.complex64), nodata=None)],
    "alpha-as-band": [infrared_as_alpha],
    "bands-unknown": [
        one(bands=("", "")),
        one(bands=("Band 1", "Band 2")),
        lambda f: [*one()(f), "--bands", "VV,VX", "--sensor", "sentinel-1"],
    ],
    "band-twice": [
        lambda f: ["--after", *(radar(f / f"{n}_VV.tif", pixels=db()[:1], bands=("",)) for n in "ab")],
        two_images("b_20240501.tif", pixels=db()[:1], bands=("VV",)),
    ],
    "band-missing": [
        lambda f: ["--after", infrared(f / "a.tif", bands=("B02", "B04")), "--sensor", "sentinel-2-l2a"],
        lambda f: [*one()(f), "--method", "sar-drop"],
    ],
    "sensor-ambiguous": [lambda f: ["--after", infrared(f / "a.tif", bands=("B2", "B3", "B4", "B5"))]],
    "unit-unknown": [one(pixels=np.full((2, *SHAPE), 340, np.float32), unit="")],
    "unit-impossible": [
        lambda f: [*one()(f), "--unit", "power"],
        one(pixels=np.abs(db()) * 20),
        one(pixels=10 ** (db() / 10)),
        one(pixels=np.where(np.arange(SHAPE[1]) == 40, -9999, db()).astype(np.float32), nodata=None),
        lambda f: [*one(pixels=np.abs(db()) * 30)(f), "--unit", "amplitude"],
    ],
    "no-overlap": [pair(on=grid(SHAPE, origin=(820000, 5350000)))],
    "no-common-grid": [pair(on=grid(SHAPE, crs=None))],
    "aoi-outside": [with_area(lambda f: area(f / "x.gpkg", shapely.box(1, 1, 2, 2), crs="EPSG:4326"))],
    "outside-crs": [with_area(lambda f: area(f / "x.gpkg", shapely.box(-75, -5, 15, 49), crs="EPSG:4326"))],
    "vector-without-crs": [
        with_area(lambda f: area(f / "bare.gpkg", HERE, crs=None)),
        lambda f: [*one(on=grid(SHAPE, crs=None))(f), "--aoi", area(f / "x.gpkg", HERE)],
    ],
    "footprints-outside": [
        lambda f: [*one()(f), "--footprints", area(f / "x.gpkg", shapely.box(1, 1, 2, 2), crs="EPSG:4326")],
        lambda f: [*one()(f), "--footprints", area(f / "y.gpkg", shapely.box(500000, 5348500, 500100, 5349900))],
    ],
    "no-polygons": [
        with_area(lambda f: area(f / "x.gpkg", shapely.LineString([(0, 0), (1, 1)]), kind="LineString")),
        with_area(lambda f: area(f / "x.gpkg")),
    ],
    "several-layers": [with_area(lambda f: area(area(f / "x.gpkg", HERE), HERE, layer="b"))],
    "unreadable-vector": [with_area(lambda f: text(f / "x.gpkg")), lambda f: [*one()(f), "--assets", text(f / "x.gpkg")]],
}
MAKES = [pytest.param(code, make, id=f"{code}-{k}") for code, makes in REFUSED.items() for k, make in enumerate(makes)]


def refused(result: Result, code: str) -> None:
    """Exit code 3, code and repair in words and, after --json, as data."""
    assert result.exit_code == 3, result.output
    said = json.loads(result.stdout.splitlines()[0])
    assert said["error"] == code
    assert said["repair"]
    assert f"[{code}]" in result.stderr
    assert said["repair"] in result.stderr


@pytest.mark.filterwarnings("ignore:.*crs:UserWarning")
@pytest.mark.parametrize(("code", "make"), MAKES)
def test_bad_input_is_refused_and_nothing_is_written(tmp_path: Path, code: str, make: Make) -> None:
    result = run("map", *make(tmp_path), "--hazard", "flood", "-o", tmp_path / "out", "--json", "--quiet")
    refused(result, code)
    assert not (tmp_path / "out").exists()


def test_damage_that_no_header_shows_delivers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found halfway: what was finished is kept to resume from, and no product appears."""
    wide = (600, 700)
    path = radar(tmp_path / "a.tif", pixels=flood_pair(wide)[1], on=grid(wide))
    whole = path.read_bytes()
    place = len(whole) // 4
    path.write_bytes(whole[:place] + bytes(4000) + whole[place + 4000 :])
    monkeypatch.setattr("aftermap.layer.SAMPLE_SIDE", 1)
    result = run("map", "--after", path, "--hazard", "flood", "-o", tmp_path / "out", "--json", "--quiet")
    refused(result, "unreadable-window")
    assert [p.name for p in (tmp_path / "out").glob("*") if p.name != journal.WORK] == []


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delivered")
    run("map", *one()(folder), "--hazard", "flood", "-o", folder / "out", "--quiet")
    return folder / "out"


def codes_of_truth(*values: int) -> Callable[[Path], Path]:
    pixels = np.resize(np.array(values, np.uint8), (1, *SHAPE))
    return lambda folder: write(folder / "truth.tif", pixels, grid(SHAPE), ("truth",))


TRUTH: dict[str, Callable[[Path], Path]] = {
    "no-truth": lambda f: write(f / "far.tif", np.zeros((1, 9, 9), np.uint8), grid((9, 9), origin=(900000, 5350000)), ("truth",)),
    "truth-codes": codes_of_truth(0, 1, 7),
    "truth-ambiguous": codes_of_truth(0, 255),
}


@pytest.mark.parametrize(("code", "make"), TRUTH.items(), ids=TRUTH)
def test_truth_that_cannot_be_used_is_refused(delivered: Path, tmp_path: Path, code: str, make: Callable[[Path], Path]) -> None:
    scores = tmp_path / "scores"
    refused(run("evaluate", delivered, "--truth", make(tmp_path), "-o", scores, "--json"), code)
    assert not scores.exists()


def test_what_is_no_map_is_refused(delivered: Path, tmp_path: Path) -> None:
    truth = codes_of_truth(0, 1)(tmp_path)
    refused(run("evaluate", tmp_path, "--truth", truth, "-o", tmp_path / "scores", "--json"), "no-map")
    assert run("verify", tmp_path).exit_code == 3


@pytest.mark.parametrize("damage", ["{", "{}", '{"assets": []}', '{"assets": {"a": {}}}'])
def test_a_damaged_seal_is_said(tmp_path: Path, damage: str) -> None:
    (tmp_path / journal.SEAL).write_text(damage)
    result = run("verify", tmp_path)
    assert result.exit_code == 3
    assert "[damaged]" in result.stderr


def hidden_collar(folder: Path) -> Args:
    pixels = flood_pair(SHAPE)[1]
    pixels[:, :, :20] = 0
    return ["--after", radar(folder / "a.tif", pixels=pixels, nodata=None)]


def eight_bit(folder: Path) -> Args:
    before, after = (np.clip((p + 35) * 7, 1, 250).astype(np.uint8) for p in flood_pair(SHAPE)[:2])
    paths = [radar(folder / f"{n}.tif", pixels=p, unit="", nodata=0) for n, p in (("a", after), ("b", before))]
    return ["--after", paths[0], "--before", paths[1]]


def moved(folder: Path) -> Args:
    rng = np.random.default_rng(2)
    wide = ndimage.gaussian_filter(rng.normal(0, 1, (SHAPE[0] + 40, SHAPE[1] + 40)), 2)
    land = np.asarray(-12 + 12 * wide, np.float32)[None]
    dates = (land[:, 20:-20, 20:-20], land[:, 20:-20, 14:-26])
    paths = [radar(folder / f"{n}.tif", pixels=np.ascontiguousarray(p), bands=("VV",)) for n, p in zip("ab", dates, strict=True)]
    return ["--after", paths[0], "--before", paths[1]]


def tagged(key: str, after: str, before: str) -> Make:
    return lambda f: [
        "--after", radar(f / "a.tif", tags={key: after}), "--before", radar(f / "b.tif", tags={key: before}),
    ]  # fmt: skip


def part_covered(folder: Path) -> Args:
    before = flood_pair(SHAPE)[0][:, :, :200].copy()
    return ["--after", radar(folder / "a.tif"), "--before", radar(folder / "b.tif", pixels=before, on=grid((180, 200)))]


WIDE = (400, 500)
KNOWING = Path(aftermap.__file__).parent / "models" / "flood-s1"


def stripes() -> npt.NDArray[np.float32]:
    """What no radar has seen: every second column 25 dB brighter."""
    return np.broadcast_to(np.where(np.arange(WIDE[1]) % 2, -25, 0), (2, *WIDE)).astype(np.float32)


WARNED: dict[str, Make] = {
    "no-crs": one(on=grid(SHAPE, crs=None)),
    "nodata-undeclared": hidden_collar,
    "sar-8bit": eight_bit,
    "unit-assumed": one(pixels=(10 ** (flood_pair(SHAPE)[1] / 10)).astype(np.float32), unit=""),
    "s2-offset-unknown": lambda f: ["--after", infrared(f / "a.tif", low=1100), "--sensor", "sentinel-2-l2a"],
    "bands-swapped": one(bands=POLS[::-1]),
    "constant-band": one(pixels=np.stack([flood_pair(SHAPE)[1][0], np.full(SHAPE, -18, np.float32)])),
    "cloud-mask-missing": lambda f: ["--after", infrared(f / "S2A_MSIL2A_a.tif", bands=("B02", "B03", "B04", "B08"))],
    "part-covered": part_covered,
    "beside-dates": lambda f: [
        "--after", radar(f / "a.tif", tags={"ACQUISITION_DATETIME": "2024-06-10"}),
        infrared(f / "S2A_MSIL2A_20240613T101559.tif", bands=("B03", "B04", "B08", "SCL")),
    ],
    "dates-reversed": lambda f: [*pair()(f), "--after-date", "2024-05-01", "--before-date", "2024-05-13"],
    "orbit-differs": tagged("ORBIT_DIRECTION", "ASCENDING", "descending"),
    "pair-shifted": moved,
    "same-image": lambda f: ["--after", radar(f / "a.tif"), "--before", f / "a.tif"],
    "threshold-assumed": one(pixels=db()),
    "unfamiliar": lambda f: [*one(pixels=stripes(), on=grid(WIDE))(f), "--model", KNOWING],
}  # fmt: skip


@pytest.mark.parametrize(("code", "make"), WARNED.items(), ids=WARNED)
def test_a_warning_is_in_the_record_the_report_and_on_the_screen(tmp_path: Path, code: str, make: Make) -> None:
    result = run("map", *make(tmp_path), "--hazard", "flood", "-o", tmp_path / "out", "--quiet")
    assert result.exit_code == 0, result.output
    recorded = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    finding = next(w for w in recorded if w["code"] == code)
    assert finding["repair"]
    assert f"[{code}]" in result.stderr
    report = html.unescape((tmp_path / "out" / "report.html").read_text())
    assert finding["what"] in report
    assert finding["repair"] in report


def test_nothing_wrong_is_no_warning(tmp_path: Path) -> None:
    after = radar(tmp_path / "a.tif", pixels=flood_pair(WIDE)[1], on=grid(WIDE))
    run("map", "--after", after, "--hazard", "flood", "-o", tmp_path / "out", "--quiet")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["warnings"] == []


def documented(section: str) -> set[str]:
    """Codes in the tables of one section of docs/codes.md."""
    page = re.split(r"^## ", CODES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    rows = next(part for part in page if part.startswith(section)).splitlines()
    return {code for row in rows for code in re.findall(r"^\| `([a-z0-9-]+)`", row)}


def test_every_refusal_and_warning_of_the_documentation_is_made_here() -> None:
    assert documented("Warnings") == set(WARNED)
    here = {*REFUSED, *TRUTH, "unreadable-window", "no-map", "damaged"}
    assert documented("Refused input") == here | set(ELSEWHERE)
    assert not here & set(ELSEWHERE)
