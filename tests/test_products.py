"""The delivered files open elsewhere: valid COGs, a valid STAC item, layers that QGIS styles, a page that Chromium shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

import aftermap as am
from aftermap import journal
from tests.conftest import flood_pair, grid, write

SHAPE = (700, 560)
QGIS_PYTHON = Path("/usr/bin/python3")
QGIS_SCRIPT = """
import sys
from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer
app = QgsApplication([], False); app.initQgis()
out = sys.argv[1]
for name in ("likelihood", "extent", "exclusion", "agreement", "density"):
    layer = QgsRasterLayer(f"{out}/{name}.tif", name)
    assert layer.isValid(), name
    message, ok = layer.loadNamedStyle(f"{out}/styles/{name}.qml")
    assert ok, (name, message)
for name in ("observed_event", "not_analysed", "area_of_interest", "image_footprint", "source", "summary", "priority"):
    layer = QgsVectorLayer(f"{out}/map.gpkg|layername={name}", name, "ogr")
    assert layer.isValid(), name
    if layer.isSpatial():
        message, ok = layer.loadDefaultStyle()
        assert ok, (name, message)
    print(name, layer.featureCount(), ",".join(f.name() for f in layer.fields()))
from qgis.core import QgsProject
project = QgsProject.instance()
assert project.read(f"{out}/map.qgz"), project.error()
layers = project.mapLayers()
assert layers and all(layer.isValid() for layer in layers.values()), [k for k, v in layers.items() if not v.isValid()]
assert project.crs().authid() == "EPSG:32633", project.crs().authid()
shown = [node.name() for node in project.layerTreeRoot().findLayers() if node.isVisible()]
order = [node.name() for node in project.layerTreeRoot().findLayers()]
renderers = {k: v.renderer().type() for k, v in layers.items()}
print("project", len(layers), "|".join(shown), "|".join(order), renderers["raster_extent"], renderers["raster_likelihood"],
      renderers["outline_not_analysed"], project.fileName() == f"{out}/map.qgz", sep=";")
sys.stdout.flush()
import os
os._exit(0)  # QGIS may crash while Python takes its layers apart, after all was asserted
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("products")
    before, after, _ = flood_pair(SHAPE)
    after[:, :40, :60] = np.nan
    tags = {"ACQUISITION_DATETIME": "2024-05-13T05:00:00Z"}
    old = write(folder / "old.tif", before, grid(SHAPE), ("VV", "VH"), unit="dB", nodata=float("nan"))
    new = write(folder / "new.tif", after, grid(SHAPE), ("VV", "VH"), unit="dB", nodata=float("nan"), tags=tags)
    return am.map(new, old, out=folder / "out", options=am.Options(keep_scores=True, density_m=100)).folder


RASTERS = ("likelihood", "extent", "exclusion", "agreement", "score")


@pytest.mark.parametrize("name", RASTERS)
def test_rasters_are_valid_cogs_on_the_grid_of_after(out: Path, name: str) -> None:
    valid, errors, warnings = cog_validate(out / f"{name}.tif", strict=True)
    assert valid, (errors, warnings)
    with rasterio.open(out / f"{name}.tif") as src:
        assert src.shape == SHAPE
        assert src.crs.to_epsg() == 32633
        assert src.transform == grid(SHAPE).affine
        assert src.descriptions[0]
        assert src.overviews(1)


def test_codes_are_those_of_the_documentation(out: Path) -> None:
    with rasterio.open(out / "extent.tif") as src:
        assert src.nodata == 255
        assert set(np.unique(src.read(1))) == {0, 1, 255}
        assert src.colormap(1)[1][3] == 255
    with rasterio.open(out / "exclusion.tif") as src:
        assert set(np.unique(src.read(1))) == {0, 1}
        assert "7 outside AOI" in src.descriptions[0]
    with rasterio.open(out / "likelihood.tif") as src:
        values = src.read(1)
        assert values[values != 255].max() <= 100
        assert "uncalibrated" in src.descriptions[0]
    with rasterio.open(out / "score.tif") as src:
        assert np.isnan(src.read(1)[:40, :60]).all()


def test_the_item_is_valid_stac_and_seals_every_file(out: Path) -> None:
    item = pystac.Item.from_file(str(out / "item.json"))
    item.stac_extensions = []  # their schemas are fetched from the network; the fields are checked below
    item.validate()
    facts = json.loads((out / "item.json").read_text())
    assert facts["properties"]["datetime"] == "2024-05-13T05:00:00Z"
    assert facts["properties"]["proj:code"] == "EPSG:32633"
    assert facts["properties"]["proj:shape"] == list(SHAPE)
    assert len(facts["properties"]["proj:transform"]) == 6
    delivered = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} - {"item.json", "log.json"}
    assert set(facts["assets"]) == delivered
    for name, asset in facts["assets"].items():
        assert asset["file:checksum"] == "1220" + journal.sha256(out / name)
        assert asset["file:size"] == (out / name).stat().st_size


def test_an_item_without_crs_and_date_is_valid(tmp_path: Path) -> None:
    _, after, _ = flood_pair((90, 120))
    path = write(tmp_path / "a.tif", after, grid((90, 120), crs=None), ("VV", "VH"), unit="dB")
    folder = am.map(path, out=tmp_path / "out").folder
    item = pystac.Item.from_file(str(folder / "item.json"))
    item.stac_extensions = []
    item.validate()
    assert item.geometry is None
    assert item.properties["aftermap:acquired"] is None


def test_run_json_holds_all_that_determines_the_result(out: Path) -> None:
    run = am.HazardMap(out).made_by
    assert {"inputs", "methods", "parameters", "versions", "warnings", "assumptions", "calibration", "key"} <= set(run)
    assert run["inputs"]["after"]["files"][0]["sha256"] == journal.sha256(out.parent / "new.tif")
    assert "seconds" in json.loads((out / "log.json").read_text())
    assert str(out) not in (out / "run.json").read_text()


def test_qgis_opens_and_styles_every_layer(out: Path) -> None:
    if not QGIS_PYTHON.exists() or subprocess.run([QGIS_PYTHON, "-c", "import qgis.core"], capture_output=True).returncode:
        pytest.skip("QGIS is not installed (Debian: python3-qgis)")
    env = {"QT_QPA_PLATFORM": "offscreen", "HOME": str(out.parent), "PATH": "/usr/bin:/bin"}
    result = subprocess.run([QGIS_PYTHON, "-c", QGIS_SCRIPT, str(out)], capture_output=True, text=True, env=env, timeout=120)
    assert result.returncode == 0, result.stderr
    *lines, project = result.stdout.splitlines()
    counts = dict(line.split(" ")[:2] for line in lines)
    assert int(counts["observed_event"]) > 0
    assert int(counts["not_analysed"]) == 1
    assert "event_type,obj_desc,det_method,notation,dmg_src_id,area_ha" in result.stdout
    _, count, shown, order, *kinds = project.split(";")
    assert int(count) == 5 + 5
    assert shown.split("|") == ["Look here first", "Outlines", "Area of interest", "Extent"]
    assert order.split("|")[-1] == "Density"
    assert kinds[:3] == ["paletted", "singlebandpseudocolor", "categorizedSymbol"]


def test_the_report_shows_in_a_browser(out: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no browser is installed (Debian: chromium)")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
        "--disable-component-update", "--disable-quic", f"--user-data-dir={tmp_path / 'profile'}",
    ]  # fmt: skip
    page = f"file://{out / 'report.html'}"
    result = subprocess.run([chromium, *flags, "--dump-dom", page], capture_output=True, text=True, timeout=120)
    assert "ha flooded" in result.stdout
    assert not re.findall(r"Uncaught|SyntaxError", result.stderr)
