"""The command line of `find`, and of maps from what it found; arguments and words only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aftermap.cli_words import names
from aftermap.errors import UsageError
from aftermap.pieces import HAZARDS
from aftermap.progress import Progress

if TYPE_CHECKING:
    from aftermap.deliver import Options
    from aftermap.hazardmap import HazardMap

_FILES = click.Path(path_type=Path)
_CATALOG = "Or the address of another STAC API, or earth-search, cdse."


def where(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where, and where to ask."""
    for option in (
        click.option("--bbox", help="Or a box: west,south,east,north in degrees; west above east across the antimeridian."),
        click.option("--aoi", type=_FILES, help="Polygons of the area of interest, in any vector format."),
        click.option("--catalog", default="planetary-computer", show_default=True, help=_CATALOG),
        click.option("--token-url", default="", help="Where such an API signs addresses; ends in /{collection}."),
        click.option("--hazard", required=True, help=f"What to look for: {', '.join(HAZARDS)}."),
        click.option("--sensor", default="", help="radar, optical or radar,optical.  [default: by hazard]"),
        click.option("--beside", help="dem,reference_water,low_sensitivity, or none.  [default: by hazard]"),
        click.option("--least-coverage", default=95.0, show_default=True, help="Percent of the area that a pass should show."),
        click.option("--most-cloud", default=30.0, show_default=True, help="Percent of cloud in an optical pass."),
    ):
        command = option(command)
    return command


def area(given: dict[str, Any]) -> Any:
    """The area that --bbox or --aoi names. Raises UsageError."""
    from aftermap.aoi import Aoi

    if bool(given["bbox"]) == bool(given["aoi"]):
        raise UsageError("the area is given twice or not at all", repair="give --bbox west,south,east,north or --aoi FILE")
    if given["aoi"]:
        return Aoi.of_file(given["aoi"])
    try:
        west, south, east, north = map(float, given["bbox"].split(","))
    except ValueError as error:
        raise UsageError(
            f"--bbox is {given['bbox']!r}", repair="give west,south,east,north, for example 11.2,44.1,12.4,44.7"
        ) from error
    return Aoi.of_box(west, south, east, north)


@click.command()
@where
@click.option("--event", required=True, metavar="DATE", help="When it was: 2024-05-13, or better 2024-05-13T05:00Z.")
@click.option("--days-after", default=12.0, show_default=True, help="How long after the event a pass may be.")
@click.option("--days-before", default=60.0, show_default=True, help="How long before it.")
@click.option("-o", "--out", type=_FILES, default=Path("items.json"), show_default=True, help="The item file.")
@click.option("--json", "as_json", is_flag=True, help="Print what was chosen as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def find(out: Path, as_json: bool, quiet: bool, **given: Any) -> None:
    """Find the images of an event: the best pass after it, the one before that fits, and the ground beside them.

    Then `aftermap map --items items.json -o OUT`.
    """
    from aftermap.acquisitions import Rules
    from aftermap.catalog import catalog
    from aftermap.find import Wish
    from aftermap.find import find as look

    aoi = area(given)
    rules = Rules(given["least_coverage"] / 100, given["most_cloud"], given["days_after"], given["days_before"])
    beside = None if given["beside"] is None else tuple(n for n in names(given["beside"]) if n != "none")
    wish = Wish(given["hazard"], given["event"], names(given["sensor"]), beside, rules)
    with Progress(quiet) as progress:
        found = look(aoi, wish, catalog(given["catalog"], given["token_url"]), progress=progress)
    found.write(out)
    if as_json:
        told = [{"sheet": p.sheet.name, "why": list(p.why), "passed_over": list(p.passed_over)} for p in found.parts]
        click.echo(json.dumps({"items": str(out), "sheets": told}))
        return
    for part in found.parts:
        if part.sheet.name:
            click.echo(f"sheet {part.sheet.name}")
        for words in part.why:
            click.echo(words)
        for words in part.passed_over:
            click.echo(f"not {words}")
    click.echo(f"items   {out}: now aftermap map --items {out} -o OUT")


def refuse_images(given: Mapping[str, Any]) -> None:
    """Raises UsageError unless images, and their hazard, are given in one way."""
    if bool(given["items"]) == bool(given["after"]):
        what = "--after and --items are both given" if given["items"] else "neither --after nor --items is given"
        raise UsageError(what, repair="give images as files, or the item file of `aftermap find`")
    if given["items"]:
        if given["before"] or given["hazard"]:
            raise UsageError("--before and --hazard are of files", repair="leave them out: the item file says both")
    elif not given["hazard"]:
        raise UsageError("--hazard is not given", repair=f"give one of {', '.join(HAZARDS)}")
    elif given["offline"] or given["retry_failed"]:
        raise UsageError("--offline and --retry-failed are of --items", repair="leave them out")


def map_items(given: Mapping[str, Any], options: Options, progress: Progress) -> list[HazardMap]:
    """As eventmap.map_event has it."""
    from aftermap.eventmap import Asked, map_event

    files = {layer: given[layer] for layer in ("dem", "reference_water", "low_sensitivity")}
    asked = Asked(
        given["items"], given["out"], given["method"], options, files, given["aoi"], given["assets"], given["footprints"],
        given["name"], offline=given["offline"], retry_failed=given["retry_failed"],
    )  # fmt: skip
    return map_event(asked, progress=progress)
