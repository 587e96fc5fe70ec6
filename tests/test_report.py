"""The report: the same bytes for the same values, nothing loaded from elsewhere, no way out for hostile names."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aftermap import palette
from aftermap.palette import paint_agreement, paint_exclusion, paint_extent, paint_likelihood, photograph
from aftermap.report import write_report

HOSTILE = '"><script>alert(1)</script><img src="//evil.example/x" onerror=\'alert(2)\'>'
VOID = {"meta", "input", "img", "br"}


def _facts(name: str, acquired: str | None) -> dict[str, Any]:
    files = [{"name": name, "sha256": "0123456789abcdef" * 4, "bytes": 2048}]
    return {
        "files": files, "sensor": "sentinel-1", "bands": ["VV", "VH"], "unit": "dB", "unit_from": "tags", "acquired": acquired,
        "resampling": "none",
    }  # fmt: skip


def make_run(**changes: Any) -> dict[str, Any]:
    """A run.json of a flood seen by Sentinel-1 before and after."""
    run: dict[str, Any] = {
        "aftermap": "0.1.0", "name": "demo", "hazard": "flood", "maps": "flood", "answer": "found",
        "inputs": {"after": _facts("after.tif", "2024-05-13T05:00:00Z"), "before": _facts("before.tif", "2024-05-01T05:00:00Z")},
        "grid": {"crs": "EPSG:32633", "shape": [40, 70], "transform": [10.0, 0, 5e5, 0, -10.0, 5e6], "pixel_m": 10.0},
        "methods": {
            "lead": "sar-drop", "combined": ["sar-drop"], "percent_at_threshold": 50, "why": "both dates are radar",
            "ran": {"sar-drop": {"threshold_db": -3.25}, "sar-threshold": {}},
            "skipped": {"mndwi": "the after image has no band green"},
        },
        "parameters": {"threshold": 0.5, "min_area_m2": 1000.0}, "calibration": "uncalibrated", "area_unit": "ha",
        "warnings": [{"code": "shifted", "what": "The images are shifted.", "where": "before.tif", "repair": "align them"}],
        "assumptions": ["Both images are terrain corrected."], "versions": {"python": "3.11.0"},
    }  # fmt: skip
    return copy.deepcopy({**run, **changes})


def _row(quantity: str, value: float, unit: str, percent: float | str = "", reason: str = "") -> dict[str, Any]:
    return {"quantity": quantity, "class": "", "reason": reason, "value": value, "unit": unit, "percent_of_aoi": percent}


def make_summary(affected: float = 1234.4, unit: str = "ha") -> list[dict[str, Any]]:
    """The rows of summary.csv: 2,000 of area, a tenth of it not analysed."""
    return [
        _row("affected_area", affected, unit, affected / 20), _row("analysed_area", 1800, unit, 90.0),
        _row("not_analysed_area", 200, unit, 10.0), _row("not_analysed_area", 50, unit, 2.5, "cloud"),
        _row("not_analysed_area", 150, unit, 7.5, "slope"), _row("area_of_interest", 2000, unit, 100.0),
        _row("polygons", 3 if affected else 0, "count"), _row("largest_polygon", affected / 2, unit, affected / 40),
    ]  # fmt: skip


def make_pictures(*, without: tuple[str, ...] = ()) -> dict[str, npt.NDArray[np.uint8]]:
    """Pictures (40, 70): lopsided, so that an axis swap cannot hide."""
    backscatter = np.random.default_rng(1).normal(-10, 3, (2, 40, 70)).astype(np.float32)
    backscatter[:, :3] = np.nan
    codes = np.tile(np.linspace(0, 100, 70).astype(np.uint8), (40, 1))
    extent = (codes >= 50).astype(np.uint8)
    exclusion = np.zeros_like(codes)
    codes[:3], extent[:3], exclusion[:3] = 255, 255, 1
    pictures = {
        "before": photograph(backscatter, ["VV", "VH"]), "after": photograph(backscatter[::-1], ["VV", "VH"]),
        "likelihood": paint_likelihood(codes), "extent": paint_extent(extent), "exclusion": paint_exclusion(exclusion),
        "agreement": paint_agreement(extent, 2),
    }  # fmt: skip
    return {name: picture for name, picture in pictures.items() if name not in without}


def make_page(path: Path, **changes: Any) -> str:
    """The text of a report, made with the fixtures above where nothing else is given."""
    write_report(path, **{"run": make_run(), "summary": make_summary(), "pictures": make_pictures(), **changes})
    return path.read_text("utf-8").replace("\u00a0", " ")


class Page(HTMLParser):
    """Elements, attributes and words of a page; refuses tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words, self._open = "", list[str]()
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += "" if self._open and self._open[-1] in ("style", "script") else data


def test_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    make_page(tmp_path / "a.html")
    make_page(tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    text = make_page(tmp_path / "report.html")
    for tag, attributes in Page(text).tags:
        for name in ("src", "href", "action", "data", "srcset", "poster", "xlink:href"):
            value = attributes.get(name) or "#"
            allowed = r"#[\w-]*|data:image/(png|jpeg);base64,[\w+/=]+" + (
                r"|[a-z]+\.(tif|gpkg|qgz|csv|json)" if tag == "a" else ""
            )
            assert re.fullmatch(allowed, value), (tag, name, value[:80])
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in text


def test_pictures_are_stored_once_and_drawn_often(tmp_path: Path) -> None:
    text = make_page(tmp_path / "report.html")
    assert text.count("data:image/") == 6
    assert text.count('href="#pic-after"') >= 4
    drawn = set(re.findall(r'href="#(pic-\w+)"', text))
    assert drawn == set(re.findall(r'id="(pic-\w+)"', text))


def test_ids_are_unique_and_labels_and_links_lead_somewhere(tmp_path: Path) -> None:
    tags = Page(make_page(tmp_path / "report.html")).tags
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["for"] for tag, a in tags if tag == "label"} <= set(ids)
    assert {(a["href"] or "")[1:] for _, a in tags if (a.get("href") or "").startswith("#")} <= set(ids)


def _hostile(value: Any) -> Any:
    """The value with every text in it, names included, made hostile; words that steer the page stay."""
    if isinstance(value, dict):
        return {k if k in KEPT else k + HOSTILE: v if k in STEERS else _hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_hostile(v) for v in value]
    return value + HOSTILE if isinstance(value, str) and value else value


STEERS = {"answer", "crs", "transform", "shape", "pixel_m", "quantity", "area_unit"}
KEPT = {*make_run(), *make_summary()[0], *make_run()["grid"], *_facts("", None), "after", "before", "sha256", "bytes",
        "lead", "combined", "percent_at_threshold", "why", "ran", "skipped",
        "code", "what", "where", "repair", "threshold", "min_area_m2", "name"}  # fmt: skip


@pytest.mark.parametrize("answer", ["found", "nothing found", "not analysed"])
def test_hostile_names_stay_text(tmp_path: Path, answer: str) -> None:
    run, summary = _hostile(make_run(answer=answer)), _hostile(make_summary())
    text = make_page(tmp_path / "report.html", run=run, summary=summary)
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in page.tags}
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert page.words.count("alert(1)") > 25


def test_flood_found(tmp_path: Path) -> None:
    page = Page(make_page(tmp_path / "report.html"))
    for words in (
        "1,234 ha flooded", "In 3 polygons, the largest 617 ha.", "90.0 % of the area was analysed.",
        "The other 200 ha were not", "13 May 2024, 05:00 UTC", "1 warning", "What to do: align them",
        "sar-drop led: both dates are radar", "mndwi did not run: the after image has no band green", "0123456789ab",
        "uncalibrated", "North is up", "mapped from 50 %", "Patches below 1,000 m²", "45.15° N, 15.00° E",
    ):  # fmt: skip
        assert words in page.words, words


def test_nothing_found_is_said_in_words(tmp_path: Path) -> None:
    page = Page(make_page(tmp_path / "r.html", run=make_run(answer="nothing found"), summary=make_summary(affected=0)))
    assert "No flood found" in page.words
    assert "polygons, the largest" not in page.words


def test_not_analysed_never_reads_as_none(tmp_path: Path) -> None:
    methods: dict[str, Any] = {"lead": None, "combined": [], "why": "", "ran": {}, "skipped": {"sar-drop": "no before image"}}
    run = make_run(answer="not analysed", methods=methods, warnings=[], assumptions=[])
    page = Page(make_page(tmp_path / "r.html", run=run, summary=make_summary(affected=0)))
    assert "Could not be analysed" in page.words
    assert "No method could run." in page.words
    assert not re.search(r"Affected\s*0 ha|Polygons\s*0", page.words)
    assert page.words.count("not known") == 3


def test_open_water_is_not_called_flood(tmp_path: Path) -> None:
    run = make_run(maps="open water, permanent water not separated")
    page = Page(make_page(tmp_path / "r.html", run=run))
    assert "1,234 ha of open water" in page.words
    assert "permanent water not separated" in page.words
    assert "flood" not in page.words


def test_one_date_without_crs_in_pixels(tmp_path: Path) -> None:
    grid = {"crs": None, "shape": [40, 70], "transform": [1, 0, 0, 0, -1, 0], "pixel_m": None}
    run = make_run(grid=grid, area_unit="px", inputs={"after": _facts("after.tif", None)})
    pictures = make_pictures(without=("before", "agreement"))
    text = make_page(tmp_path / "r.html", run=run, summary=make_summary(unit="px"), pictures=pictures)
    page = Page(text)
    for words in ("1,234 pixels flooded", "no georeference", "north is not known", "date not known", "counts of pixels"):
        assert words in page.words
    assert 'type="range"' not in text
    assert 'class="scale"' not in text
    assert "agreement.tif" not in text


def test_works_without_pictures_and_on_a_local_grid(tmp_path: Path) -> None:
    grid = {**make_run()["grid"], "crs": 'LOCAL_CS["site",UNIT["metre",1]]', "transform": [8.0, 6.0, 0, 6.0, -8.0, 0]}
    page = Page(make_page(tmp_path / "r.html", run=make_run(grid=grid), pictures={}))
    assert "place not known" in page.words
    assert "svg" in {tag for tag, _ in page.tags}
    text = make_page(tmp_path / "r.html", run=make_run(grid=grid), pictures=make_pictures(without=("agreement",)))
    assert "the image is rotated" in text


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        (["blue", "green", "red", "nir"], [2, 1, 0]),
        (["red", "nir", "green", "swir1"], [3, 1, 2]),
        (["nir", "red", "green"], [0, 1, 2]),
        (["grey"], [0, 0, 0]),
        (["VH", "other"], [0, 0, 0]),
    ],
)
def test_photograph_picks_bands_by_name(bands: list[str], shown: list[int]) -> None:
    pixels = np.full((len(bands), 4, 60), -20, np.float32) + np.linspace(0, 1, 60, dtype=np.float32)
    for i in range(len(bands)):
        pixels[i, i, 5:50] += i + 2  # each band is bright in its own row
    picture = photograph(pixels, bands).astype(int)
    for display, band in enumerate(shown):
        others = [row for row in range(len(bands)) if row not in shown]
        assert all(picture[band, 20, display] >= picture[row, 20, display] for row in others)
        assert picture[band, 20, display] == picture[band, 20].max()


def test_photograph_is_grey_where_nothing_was_seen() -> None:
    pixels = np.ones((2, 3, 5), np.float32)
    pixels[:, 1, 4] = np.nan
    assert photograph(pixels, ["VV", "VH"])[1, 4].tolist() == list(palette.UNSEEN[:3])
    assert (photograph(np.full((1, 3, 5), np.nan, np.float32), ["VV"]) == np.array(palette.UNSEEN[:3])).all()


def test_radar_looks_alike_in_every_unit() -> None:
    power = np.random.default_rng(2).gamma(4, 0.02, (2, 30, 40)).astype(np.float32) + np.float32(1e-3)
    pictures = [photograph(p, ["VV", "VH"]).astype(int) for p in (10 * np.log10(power), power, np.sqrt(power))]
    assert np.abs(pictures[0] - pictures[1]).max() <= 4
    assert np.abs(pictures[0] - pictures[2]).max() <= 4


def test_like_takes_the_stretch_of_another_picture() -> None:
    dim = np.linspace(0, 1, 50, dtype=np.float32).reshape(1, 5, 10)
    assert photograph(dim, ["grey"], like=dim * 4).max() < photograph(dim, ["grey"]).max() / 3


def test_paint_says_not_analysed_apart_from_no_hazard() -> None:
    codes = np.array([[0, 1, 255]], np.uint8).repeat(9, axis=0).repeat(9, axis=1)
    for picture in (paint_extent(codes), paint_agreement(codes, 3)):
        assert (picture[:, :9, 3] == 0).all()
        assert (picture[:, 9:, 3] > 0).all()
        assert (picture[:, 18:, :3] == np.array(palette.NOT_ANALYSED[:3])).all()
        assert len(np.unique(picture[:, 18:, 3])) == 2  # hatched: told apart without colour
    excluded = paint_exclusion(np.arange(8, dtype=np.uint8).repeat(12).reshape(8, 12))
    assert (excluded[0, :, 3] == 0).all()
    assert len(np.unique(excluded[:, 0, :3], axis=0)) == 8


def test_likelihood_grows_brighter_all_the_way() -> None:
    colours = paint_likelihood(np.arange(101, dtype=np.uint8)[None])[0].astype(float)
    assert (np.diff(colours[:, :3] @ (0.2126, 0.7152, 0.0722)) > -0.6).all()
    assert (np.diff(colours[:, 3]) >= 0).all()
