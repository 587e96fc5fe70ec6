"""The command line of `aftermap explain`; arguments and words only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from aftermap.cli_words import declared, number
from aftermap.manyfiles import ManyFiles
from aftermap.progress import Progress

_FILES = click.Path(path_type=Path)


@click.command(cls=ManyFiles)
@click.argument("model")
@click.argument("scene", nargs=-1, type=_FILES)
@click.option("--after", multiple=True, type=_FILES, help="Image(s): bands stacked or one per file; the same as SCENE.")
@click.option("--before", multiple=True, type=_FILES, help="Image(s) before the event, for a model that reads them.")
@click.option("-o", "--out", type=_FILES, required=True, help="Folder for attention.tif, clusters.tif and explain.json.")
@click.option("--reference", type=_FILES, help="Raster of classes, or polygons of the hazard: how like them is it?")
@click.option("--reference-band", default=1, show_default=True, help="Band of the raster of classes.")
@click.option("--clusters", default=11, show_default=True, help="Groups of tokens, at most.")
@click.option("--mass", type=float, help="Also write mask.tif: the fewest patches that hold this share of attention, as 0.6.")
@click.option("--bands", default="", help="Names of the bands of --after (and --before) in file order, for example VV,VH.")
@click.option("--before-bands", default="", help="The same for --before, where they differ.")
@click.option("--sensor", default="", help="Sensor of --after (and --before), where the files do not say.")
@click.option("--before-sensor", default="", help="Sensor of --before, where it differs.")
@click.option("--unit", default="", help="dB, power, amplitude, reflectance or digital_number, where the files do not say.")
@click.option("--nodata", type=float, help="Value of pixels that were not observed, where the files do not say.")
@click.option("--name", default="", help="Name of the scene.  [default: that of the first file]")
@click.option("--seed", default=0, show_default=True, help="Of the clusters.")
@click.option("--overwrite", is_flag=True, help="Replace another explanation in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print explain.json.")
@click.option("--quiet", is_flag=True, help="No progress.")
def explain(model: str, scene: tuple[Path, ...], out: Path, as_json: bool, quiet: bool, **given: Any) -> None:
    """What a MODEL (name or folder) with a vision transformer looks at in a SCENE, one file or several: attention and clusters as
    rasters, beside a reference."""
    from aftermap import card
    from aftermap import explain as explaining

    if not (after := (*scene, *given["after"])):
        raise click.UsageError("no image is given: aftermap explain MODEL SCENE -o OUT")
    options = explaining.Options(
        given["clusters"], given["mass"], given["seed"], given["reference_band"], overwrite=given["overwrite"]
    )
    with Progress(quiet) as progress:
        record = explaining.explain(
            card.find(model), after, given["before"], out=out, reference=given["reference"], declared=declared(given),
            name=given["name"], options=options, progress=progress,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(record))
        return
    _say(record, out)


def _say(record: dict[str, Any], out: Path) -> None:
    settings = record["settings"]
    for finding in record["warnings"]:
        click.echo(f"warning: {finding['what']} ({finding['where']}); {finding['repair']} [{finding['code']}]", err=True)
    click.echo(f"attention {out / 'attention.tif'}: {settings['heads']} heads and their mean, 1 is as much as at any patch")
    click.echo(f"clusters  {out / 'clusters.tif'}: {record['clusters']} of the tokens, patches of {settings['patch_px']} px")
    if "mask.tif" in record["files"]:
        click.echo(f"mask      {out / 'mask.tif'}: what holds {settings['mass']:g} of the attention")
    if record["likeness"]:
        _say_likeness(record["likeness"])
    click.echo(f"all       {out / 'explain.json'}")


def _say_likeness(found: dict[str, Any]) -> None:
    """The words of each class: what was chosen on one half of the ground, scored on the other."""
    click.echo(f"beside the reference, {found['patches']:,} patches; chosen on one half of the ground, scored on the other:")
    for one in found["classes"]:
        click.echo(f"  {one['class']}, {one['scored_px']:,} pixels; marking everything: IoU {number(one['iou_of_all'])}")
        for row in found["best"]:
            if row["class"] == one["class"]:
                _say_row(row["plane"], row)
        for row in found["probes"]:
            if row["class"] == one["class"]:
                _say_row(f"probe of {row['of']}", row)
    for of, row in found["clusters"].items():
        alone, joined = number(row["miou"]), number(row["miou_joined"])
        click.echo(f"  clusters of {of}: purity {number(row['purity'])}, mean IoU {alone} one to one, {joined} joined by class")


def _say_row(name: str, row: dict[str, Any]) -> None:
    click.echo(f"    {name:30} IoU {number(row['iou'])}  correlation {number(row['correlation'])}")
