"""The command line of `find`, of maps from what it found, and of `watch`; arguments and words only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aftermap.cli_words import names, with_workers
from aftermap.errors import UsageError
from aftermap.pieces import HAZARDS
from aftermap.progress import Progress

if TYPE_CHECKING:
    from aftermap.deliver import Options
    from aftermap.errors import AftermapError
    from aftermap.find import Wish
    from aftermap.hazardmap import HazardMap
    from aftermap.watch import Round

_FILES = click.Path(path_type=Path)
_Command = Callable[..., Any]
_LEAST = "Percent of the area that a pass should show."
_CATALOG = "Or the address of another STAC API, or earth-search, cdse."


def where(least_coverage: float) -> Callable[[_Command], _Command]:
    """Options that say where, and where to ask; `least_coverage` is the percent that is usual."""

    def optioned(command: _Command) -> _Command:
        for option in (
            click.option("--bbox", help="Or a box: west,south,east,north in degrees; west above east across the antimeridian."),
            click.option("--aoi", type=_FILES, help="Polygons of the area of interest, in any vector format."),
            click.option("--catalog", default="planetary-computer", show_default=True, help=_CATALOG),
            click.option("--token-url", default="", help="Where such an API signs addresses; ends in /{collection}."),
            click.option("--hazard", required=True, help=f"What to look for: {', '.join(HAZARDS)}."),
            click.option("--sensor", default="", help="radar, optical or radar,optical.  [default: by hazard]"),
            click.option("--beside", help="dem,reference_water,low_sensitivity, or none.  [default: by hazard]"),
            click.option("--least-coverage", default=least_coverage, show_default=True, help=_LEAST),
            click.option("--most-cloud", default=30.0, show_default=True, help="Percent of cloud in an optical pass."),
            click.option("--days-before", default=60.0, show_default=True, help="How long before the event a pass may be."),
        ):
            command = option(command)
        return command

    return optioned


def wish(given: Mapping[str, Any], days_after: float) -> Wish:
    """What these options look for. Raises UsageError."""
    from aftermap.acquisitions import Rules
    from aftermap.find import Wish

    rules = Rules(given["least_coverage"] / 100, given["most_cloud"], days_after, given["days_before"])
    beside = None if given["beside"] is None else tuple(n for n in names(given["beside"]) if n != "none")
    return Wish(given["hazard"], given["event"], names(given["sensor"]), beside, rules)


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
@where(95.0)
@click.option("--event", required=True, metavar="DATE", help="When it was: 2024-05-13, or better 2024-05-13T05:00Z.")
@click.option("--days-after", default=12.0, show_default=True, help="How long after the event a pass may be.")
@click.option("-o", "--out", type=_FILES, default=Path("items.json"), show_default=True, help="The item file.")
@click.option("--json", "as_json", is_flag=True, help="Print what was chosen as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def find(out: Path, as_json: bool, quiet: bool, **given: Any) -> None:
    """Find the images of an event: the best pass after it, the one before that fits, and the ground beside them.

    Then `aftermap map --items items.json -o OUT`.
    """
    from aftermap.catalog import catalog
    from aftermap.find import find as look

    aoi, wanted = area(given), wish(given, given["days_after"])
    with Progress(quiet) as progress:
        found = look(aoi, wanted, catalog(given["catalog"], given["token_url"]), progress=progress)
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


@click.command()
@where(20.0)
@click.option("--event", required=True, metavar="DATE", help="What lies before it is the reference: 2024-05-12T17:00Z.")
@click.option("--every", default="6h", show_default=True, help="From round to round: 30m, 6h, 1d.")
@click.option("--once", is_flag=True, help="One round, for cron.")
@click.option("-o", "--out", type=_FILES, required=True, help="Folder of the maps and the series; goes on with what it holds.")
@click.option("--method", default="auto", show_default=True, help="As `aftermap map` has it.")
@click.option("--model", multiple=True, help="Trained model to run with the methods; several as one.")
@click.option("--favour", help="Operating point: balanced, precision or recall.  [default: balanced]")
@click.option("--threshold", type=float, help="Score above which a pixel is hazard, in place of --favour.")
@click.option("--min-area-m2", type=float, help="Minimum mapping unit.  [default: 1000]")
@click.option("--memory", "memory_mb", default=1000, show_default=True, help="Memory to stay under, in MB; at least 420.")
@with_workers
@click.option("--json", "as_json", is_flag=True, help="Print each round as a line of JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def watch(out: Path, every: str, once: bool, as_json: bool, quiet: bool, **given: Any) -> None:
    """Map each new pass over an area once, and keep a series of the extent.

    Goes on until Ctrl-C or SIGTERM. With --once the exit code is 3 where a pass was refused, 6 where windows of any map could
    not be read (the next round tries them again), 4 where nothing could be analysed, else 0, also where there was nothing new.
    """
    from aftermap.catalog import catalog
    from aftermap.deliver import Options
    from aftermap.watch import Watch, keep, seconds
    from aftermap.watch import once as one_round

    between = seconds(every)
    chosen = {n: given[n] for n in ("favour", "threshold", "min_area_m2", "memory_mb", "workers", "cluster")}
    options = Options(model=given["model"] or None, **chosen)
    where_to = catalog(given["catalog"], given["token_url"])
    watched = Watch(area(given), wish(given, 0.0), where_to, out, given["method"], options)
    shown = partial(Progress, quiet)
    if once:
        found = one_round(watched, shown)
        _say_round(found, out, as_json)
        sys.exit(found.exit_code)
    keep(watched, between, lambda found: _say(found, out, every, as_json), shown)


def _say(found: Round | AftermapError, out: Path, every: str, as_json: bool) -> None:
    if not isinstance(found, Exception):
        _say_round(found, out, as_json)
        return
    if as_json:
        click.echo(json.dumps({"error": found.code, "what": found.what, "repair": found.repair}))
    click.echo(f"aftermap: {found.what} [{found.code}]; asked again in {every}", err=True)


def _say_round(found: Round, out: Path, as_json: bool) -> None:
    for folder, why in found.refused.items():
        click.echo(f"aftermap: {folder} is refused: {why}", err=True)
    for folder, count in found.failed.items():
        click.echo(f"warning: {count} windows of {folder} could not be read; the next round tries them again", err=True)
    if as_json:
        told = {"mapped": found.mapped, "skipped": found.skipped, "refused": found.refused, "failed": found.failed}
        click.echo(json.dumps({**told, "series": [r for r in found.rows if Path(r["folder"]).name in found.mapped]}))
        return
    for row in found.rows:
        if Path(row["folder"]).name in found.mapped:
            click.echo(_row(row))
    for folder, why in found.skipped.items():
        click.echo(f"not {folder}: {why}")
    if found.mapped:
        click.echo(f"series  {out / 'series.csv'}, {out / 'maximum_extent.tif'}, {out / 'change.tif'}")
    elif not found.skipped:
        click.echo("no new pass")


def _row(row: Mapping[str, Any]) -> str:
    """A line of the series in words."""
    name = Path(row["folder"]).name
    if row["affected_percent"] is None:
        return f"{name}  not analysed"
    change = "" if row["new_ha"] is None else f", {row['new_ha']:,.1f} ha new, {row['receded_ha']:,.1f} ha receded"
    return f"{name}  {row['affected_ha']:,.1f} ha, {row['affected_percent']:.1f} % of what was analysed{change}"
