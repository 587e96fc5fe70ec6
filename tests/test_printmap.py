"""The page to print: one page, the same bytes for the same map, with or without a place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import aftermap as am
from aftermap.cli import main
from aftermap.printmap import write_pdf
from tests.conftest import flood_pair, grid, write


@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_a_map_is_one_page_with_the_same_bytes_again(tmp_path: Path, crs: str | None) -> None:
    before, after, _ = flood_pair((160, 220))
    on = grid((160, 220), crs=crs)
    files = [write(tmp_path / f"{n}.tif", p, on, ("VV", "VH"), unit="dB") for n, p in (("after", after), ("before", before))]
    mapped = am.map(*files, out=tmp_path / "out")
    said = CliRunner().invoke(main, ["report", str(mapped.folder), "--pdf"])
    assert said.exit_code == 0, said.output
    first = (mapped.folder / "map.pdf").read_bytes()
    assert first.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", first)) == 1
    write_pdf(mapped, tmp_path / "again.pdf")
    assert (tmp_path / "again.pdf").read_bytes() == first
    assert not list(tmp_path.rglob("*.partial"))
    assert am.verify(mapped.folder) == []


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["report", str(tmp_path), "--pdf"])
    assert said.exit_code == 3
    assert "no-map" in said.output
