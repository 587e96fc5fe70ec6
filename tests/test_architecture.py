"""Floors, doors, public names, file sizes: the shape of the house, read from the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import aftermap
from aftermap import pieces
from aftermap.cli import main

PACKAGE = Path(aftermap.__file__).parent
FLOORS = (
    (
        "errors", "limits", "drivers", "places", "plain",
        "workers", "ahead", "tiles", "sensors", "pieces", "metrics", "confusion", "stats", "distances", "closedform",
        "probe", "probed", "clusters", "likeness",
    ),
    (
        "scorer", "median", "palette", "archive", "tiffhead", "safe", "meridian", "readback", "vrtfile", "rasterfile",
        "raster", "area", "ogr", "vector", "reference", "features", "naming", "mosaic", "layer", "beside", "clouds", "scene",
        "coregister", "check", "drainage", "terrain", "sight", "relief", "simulate", "tally", "outline", "indices", "journal",
        "witness", "hazardmap", "exclude", "products", "calibration", "card", "corrections", "normalise", "batchnorm",
        "running", "bandmaps", "cuts", "liveness", "arrays", "engine", "halo", "known", "since", "transfer", "ensemble",
        "chipdensity", "choice", "splits", "chips", "passes", "published", "dealing", "chipfolder", "cutting", "manyscenes",
        "datasets", "tables", "recutting", "fetch", "listing", "unpack", "acquire", "bandstats", "augment", "enlarging",
        "samples", "foundation", "stacfiles", "tilegrid", "component",
        "aoi", "stacfacts", "acquisitions", "sheets", "itemfile", "watchfile", "virtual",
    ),
    (
        "torchdoor", "batches", "shallow", "doubleconv", "vit", "satmae", "borrowed", "encoders", "unet", "ocr", "activation",
        "surgery", "domainnorm", "export", "model", "lowrank", "attention", "losses", "multicrop", "objectives", "checkpoint",
        "schedules",
    ),
    (
        "train", "adapt", "seamless", "parts", "afar", "predict", "familiarity", "evaluate", "scored", "untrained", "finish",
        "attended", "likened", "catalog", "find", "remote", "gather",
    ),
    (
        "figures", "markup", "report", "assumptions", "provenance", "mishaps", "explain", "facts", "pictured", "measured",
        "origin", "choosing", "asking", "deliver", "sealed", "repeated", "collection", "eventmap", "series", "watch", "demo",
        "progress", "manyfiles", "strict", "page", "recipe", "classed", "cost", "learn", "unlabelled", "targets", "drift",
        "areas", "looks", "bare", "probing", "unseen", "experiment", "asked", "readapt", "corrected", "results", "unseen_table",
        "photos", "shown", "printmap", "cli_words", "job", "jobs", "jobwork", "jobrun", "uploads", "patience", "correcting",
        "view", "cli_data", "cli_learn", "cli_explain", "cli_probe", "cli_cloud",
        "cli_view", "cli_verify", "cli", "__main__",
    ),
)  # fmt: skip
"""Import order, lowest first: a module may import what stands before it."""
ORDER = {name: place for place, name in enumerate(m for floor in FLOORS for m in floor)}
DOORS = {
    "rasterio": {"readback", "rasterfile", "raster", "virtual"},
    "pyogrio": {"ogr"}, "shapely": {"vector", "features"}, "sqlite3": {"vector"},
    "pystac": {"products", "stacfiles", "remote", "collection"}, "pystac_client": {"catalog"},
    "matplotlib": {"figures", "printmap"}, "PIL": {"markup", "shown", "photos", "printmap"},
    "rio_tiler": {"shown", "view"}, "fastapi": {"view", "correcting"}, "starlette": {"view", "uploads"},
    "uvicorn": {"view", "patience"},
    "rich": {"progress"},
    "click": {"progress", "manyfiles", "cli_words", "cli_data", "cli_learn", "cli_explain", "cli_probe", "cli_cloud", "cli_view",
              "cli_verify", "cli"},
    "pyproj": {"area", "vector", "features"},
    "torch": {"torchdoor"}, "torchvision": set(), "timm": {"torchdoor"},
    "terratorch": {"borrowed"}, "torchgeo": {"borrowed"}, "segmentation_models_pytorch": {"torchdoor"},
    "safetensors": {"encoders", "model", "checkpoint", "lowrank"}, "peft": {"lowrank"},
    "lightning_fabric": {"train"}, "huggingface_hub": {"encoders"},
    "openvino": {"running"}, "onnxruntime": {"running"}, "h5py": {"datasets"}, "zarr": {"datasets"},
    "pyarrow": {"datasets", "unpack", "tables"}, "dask": {"workers"}, "distributed": {"workers"},
    "duckdb": {"tables"}, "sklearn": set(),
}  # fmt: skip
FILE_DOORS = {
    "h5py": {"hdf5"},
    "zarr": {"zarrs"},
    "pyarrow": {"parquets", "unpack", "tables"},
}
"""Data sets keep their own format to their own file."""
FILES = sorted(PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Modules that a file imports, and whether only for type checking."""
    tree = ast.parse(path.read_text())
    typing = {
        n
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and ast.unparse(i.test) == "TYPE_CHECKING"
        for b in i.body
        for n in ast.walk(b)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.name, node in typing) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"aftermap.{a.name}" for a in node.names] if node.module == "aftermap" else [node.module]
            yield from ((n, node in typing) for n in names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        return
    for name, typing in _imports(path):
        if name.startswith("aftermap.") and not typing:
            other = name.split(".")[1]
            assert other == room or ORDER[other] < ORDER[room], f"{room} imports {other}, which stands above it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_have_one_door(path: Path) -> None:
    for name, _ in _imports(path):
        rooms = DOORS.get(name.split(".")[0])
        assert rooms is None or _room(path) in rooms, f"{path.name} imports {name}; its door is {rooms}"
        own = FILE_DOORS.get(name.split(".")[0])
        assert own is None or path.stem in own, f"{path.name} imports {name}; its door is {own}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_hold_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_public_names_resolve() -> None:
    for name in aftermap.__all__:
        found = getattr(aftermap, name)
        assert callable(found)
        assert getattr(aftermap, name) is found
    with pytest.raises(AttributeError, match="has no attribute"):
        _ = aftermap.nothing


def test_pieces_resolve() -> None:
    for kind, names in pieces.PIECES.items():
        for name in names:
            assert callable(pieces.load(kind, name))


def _commands() -> Iterator[str]:
    """Every verb, and every verb of a verb."""
    for name, command in main.commands.items():
        yield name
        yield from (f"{name} {inner}" for inner in getattr(command, "commands", ()))


@pytest.mark.parametrize("command", ["", *_commands()])
def test_each_command_has_help(command: str) -> None:
    result = CliRunner().invoke(main, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, aftermap.cli; print([m for m in ('numpy', 'rasterio', 'matplotlib', 'rich', 'pystac') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_base_install_needs_no_torch() -> None:
    code = "import sys, aftermap.deliver, aftermap.card, aftermap.augment; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
