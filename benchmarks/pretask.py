"""Chips of a pre-task: what networks learn on before they meet a hazard that they never saw. Pictures of three bands, 128 px.

Run:     aftermap simulate building --vary 0-89 -o sim-building
         python -m benchmarks.pretask sim-building --ggaba ../shared/data/building_fair_ggaba -o pretask-building
         python -m benchmarks.pretask sim-flood sim-fracture sim-building sim-landslide -o pretask-mixed
Then:    aftermap run building-pretask-small --on pretask-building -o runs, or mixed-hazards --on pretask-mixed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from odc.geo.geobox import GeoBox

from aftermap import bandmaps, chipfolder
from aftermap.chips import Chip
from aftermap.datasets.dataset import Dataset, open_dataset
from aftermap.tiles import blocks

SIZE = 128
BANDS = ("red", "green", "blue")
PARENTS = 19
"""Zoom of Ggaba's tiles whose children show the same ground: parts go by these."""
Row = tuple[Chip, str, GeoBox | None]


def simulated(folder: Path, most: int) -> Iterator[Row]:
    """Chips of varied scenes, at most so many of each split in proportion, evenly spread; towns before the event: whole roofs."""
    dataset = open_dataset(folder, "simulated", size=SIZE)
    if any(name.startswith("building") for name in dataset.members):
        dataset = open_dataset(folder, "simulated", size=SIZE, image="before")
    for name in _some(dataset, most):
        chip = dataset.read(name)
        mapped = bandmaps.of_bands(chip.bands, str(chip.unit))(chip.pixels[None])[0]
        yield (
            replace(chip, pixels=mapped, bands=BANDS, unit="digital_number", name=chip.name.replace("@", "-").replace(",", "-")),
            dataset.members[name].split,
            None,
        )


def _some(dataset: Dataset, most: int) -> Sequence[str]:
    names = dataset.ids()
    return [names[k] for k in np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int))]


def ggaba(folder: Path) -> Iterator[Row]:
    """Squares of the drone tiles; two of the three zoom-19 parents train, the third chooses."""
    dataset = open_dataset(folder, "folder", images="input", polygons="labels.geojson")
    of = {name: _parent(name) for name in dataset.members}
    order = sorted(set(of.values()))
    for name, parent in of.items():
        chip, place = dataset.read(name), order.index(parent)
        assert chip.truth is not None
        for window in blocks(chip.shape, SIZE):
            part = replace(
                chip, pixels=chip.pixels[:, *window.slices], valid=chip.valid[window.slices], truth=chip.truth[window.slices],
                bands=BANDS, name=f"{chip.name}-{window.row}-{window.col}", event=f"ggaba-{place}", domain="ggaba",
            )  # fmt: skip
            yield part, ("train", "train", "validation")[place], None


def _parent(name: str) -> tuple[int, int]:
    x, y, zoom = map(int, name.split("-")[-3:])
    return x >> (zoom - PARENTS), y >> (zoom - PARENTS)


@click.command(help=__doc__)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--ggaba", "data", type=click.Path(path_type=Path, exists=True), help="Also real drone tiles with footprints.")
@click.option("--most", default=1600, show_default=True, help="Chips of each simulated folder.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
def main(folders: Sequence[Path], data: Path | None, most: int, out: Path) -> None:
    """Writes the chips."""

    def every() -> Iterator[Row]:
        for folder in folders:
            yield from simulated(folder, most)
        if data is not None:
            yield from ggaba(data)

    facts = {"licence": "chips of Ggaba: OpenAerialMap and OpenStreetMap (ODbL); simulated ones: Apache-2.0"}
    count = chipfolder.write(out, every(), classes=("other", "target"), facts=facts if data else {"licence": "Apache-2.0"})
    click.echo(f"{count} chips in {out}")


if __name__ == "__main__":
    main()
