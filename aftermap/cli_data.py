"""The command line of data sets and chips: `aftermap data list | fetch | check | stats | tiles | component` and `aftermap chips`;
arguments only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from aftermap.errors import UsageError
from aftermap.manyfiles import ManyFiles
from aftermap.pieces import PIECES
from aftermap.progress import Progress
from aftermap.strict import setting

_FILES = click.Path(path_type=Path)
_REFUSED_EXIT = 3


@click.group()
def data() -> None:
    """Published data sets: list them, fetch one, check a folder, see what it holds."""


def _folder(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.argument("folder", type=_FILES),
        click.option("--kind", default="", help="Name of the data set, where its layout does not tell."),
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of it, as docs/data.md lists."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option("--quiet", is_flag=True, help="No progress."),
    ):
        command = option(command)
    return command


def _open(folder: Path, kind: str, settings: Sequence[str]) -> Any:
    from aftermap.datasets.dataset import open_dataset

    return open_dataset(folder, kind, **dict(map(setting, settings)))


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def list_command(as_json: bool) -> None:
    """Every data set that can be read: name, title, licence, settings."""
    from aftermap.datasets.dataset import published

    rows = [
        {"name": name, "title": (p := published(name)).facts.title, "licence": p.facts.licence, "home": p.facts.home,
         "fetched_by": "aftermap" if p.facts.record else "hand", "settings": list(p.settings),
         "citation": p.facts.citation, "cautions": list(p.facts.cautions)}
        for name in PIECES["dataset"]
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(f"{row['name']:20} {row['title']}; {row['licence']}")
        if row["settings"]:
            click.echo(f"{'':20} settings: {', '.join(row['settings'])}")


@data.command("fetch")
@click.argument("name", type=click.Choice([n for n in PIECES["dataset"] if n != "folder"]))
@click.option("-o", "--out", type=_FILES, required=True, help="Folder for the files; what is there and right is kept.")
@click.option("--accept-licence", is_flag=True, help="Do not ask.")
@click.option("--no-unpack", is_flag=True, help="Leave archives packed.")
@click.option("--quiet", is_flag=True, help="No progress.")
def fetch_command(name: str, out: Path, accept_licence: bool, no_unpack: bool, quiet: bool) -> None:
    """Fetch a data set: resumed where it was cut, checked by size and checksum, unpacked."""
    from aftermap.acquire import acquire
    from aftermap.datasets.dataset import published

    facts = published(name).facts
    click.echo(f"{facts.title}\nlicence: {facts.licence}\ncite:    {facts.citation}\nhome:    {facts.home}", err=True)
    if not accept_licence:
        if not sys.stdin.isatty():
            raise UsageError("the licence was not accepted", repair="read it, then say --accept-licence", code="licence")
        click.confirm("Accept it?", abort=True, err=True)
    out.mkdir(parents=True, exist_ok=True)
    with Progress(quiet) as progress:
        done = acquire(facts, out, unpacking=not no_unpack, progress=progress)
    click.echo(f"{len(done.files)} files in {out}, {done.unpacked} unpacked; {len(done.unchecked)} without a known checksum")
    for missing in done.by_hand:
        click.echo(f"by hand: {missing}; {facts.access}")


@data.command("check")
@_folder
def check_command(folder: Path, kind: str, settings: Sequence[str], as_json: bool, quiet: bool) -> None:
    """Read every member of a data set once and name each that is missing, damaged or has strange labels."""
    from aftermap.bandstats import examine

    dataset = _open(folder, kind, settings)
    with Progress(quiet) as progress:
        found = examine(dataset, progress=progress)
    if as_json:
        said = {"name": dataset.name, "members": found.members, "absent": found.absent, "unseen": found.unseen,
                "corrupt": [e.what for e in found.corrupt], "codes": found.codes}  # fmt: skip
        click.echo(json.dumps(said))
    else:
        for error in found.corrupt:
            click.echo(f"corrupt: {error.what} [{error.code}]")
        for name in found.absent:
            click.echo(f"missing: {name}")
        for name in found.unseen:
            click.echo(f"unseen:  {name} has no pixel that is both observed and labelled")
        click.echo(f"{dataset.name}: {found.members} members, {len(found.corrupt)} corrupt, {len(found.absent)} files missing")
        click.echo("labels:  " + (", ".join(f"{name} {n:,} px" for name, n in found.codes.items()) or "none"))
    if found.corrupt or found.absent:
        sys.exit(_REFUSED_EXIT)


@data.command("stats")
@_folder
@click.option("--on-corrupt", type=click.Choice(["stop", "skip"]), default="stop", show_default=True, help="A damaged member.")
@click.option("-o", "--out", type=_FILES, help="Also write stats.json and stats.png into this folder.")
def stats_command(
    folder: Path, kind: str, settings: Sequence[str], as_json: bool, quiet: bool, on_corrupt: Any, out: Path | None
) -> None:
    """Mean, deviation and percentiles of each band, and the share of each class, per split."""
    from aftermap.bandstats import gather

    dataset = _open(folder, kind, settings)
    with Progress(quiet) as progress:
        found = gather(dataset, on_corrupt=on_corrupt, progress=progress)
    rows = found.rows()
    said = {"name": dataset.name, "unit": dataset.unit, "splits": rows, "corrupt": [e.what for e in found.corrupt]}
    if out is not None:
        from aftermap.figures import draw_bands
        from aftermap.journal import write_json

        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "stats.json", said)
        draw_bands(out / "stats.png", dataset.name, rows)
    click.echo(json.dumps(said) if as_json else "\n".join(_table(rows)))
    for error in found.corrupt:
        click.echo(f"corrupt: {error.what} [{error.code}]", err=True)


@data.command("tiles", cls=ManyFiles)
@click.argument("area")
@click.option("--aoi", type=_FILES, help="Polygons: tiles whose middle lies within.")
@click.option("--like", multiple=True, type=_FILES, help="In place of polygons: rasters, whose extent is laid with tiles.")
@click.option("-o", "--out", type=_FILES, required=True, help="Folder for the area's folder, its polygons and splits.")
@click.option("--angle", default=45.0, show_default=True, help="Of the stripes of the splits, in degrees from east.")
@click.option("--seed", default=0, show_default=True, help="Which stripe is of which split.")
def tiles_command(area: str, aoi: Path | None, like: Sequence[Path], out: Path, angle: float, seed: int) -> None:
    """Lay tiles of 4480 m over an area of your own, as M3LEO has them, with splits in 60 stripes."""
    from aftermap.tilegrid import lay, read

    folder = lay(out, area, aoi=aoi, like=like, angle_deg=angle, seed=seed)
    click.echo(f"{len(read(folder))} tiles; add components: aftermap data component NAME --to {folder} --from RASTERS")


@data.command("component", cls=ManyFiles)
@click.argument("name")
@click.option("--to", "area", type=_FILES, required=True, help="The area's folder, of `aftermap data tiles` or of M3LEO.")
@click.option("--from", "rasters", multiple=True, type=_FILES, help="Raster(s); where they overlap the first counts.")
@click.option("--stac", type=_FILES, help="In place of rasters: a folder of STAC items, or an item collection.")
@click.option("--asset", default="", help="Of the items, the raster to take; the newest counts.")
@click.option("--resampling", type=click.Choice(["nearest", "bilinear", "average"]), required=True, help="nearest for classes.")
@click.option("--px", default=448, show_default=True, help="Pixels along each side of a tile.")
@click.option("--bands", default="", help="Names of the bands, where the files do not say.")
@click.option("--unit", default="", help="Their unit, where the files do not say.")
@click.option("--quiet", is_flag=True, help="No progress.")
def component_command(
    name: str, area: Path, rasters: Sequence[Path], stac: Path | None, asset: str, quiet: bool, bands: str, **given: Any
) -> None:
    """Cut rasters to the tiles of an area: a component that M3LEO's reader takes as an input or as the label."""
    from aftermap.cli_words import names
    from aftermap.component import Component, make

    if bool(rasters) == bool(stac) or bool(stac) != bool(asset):
        raise UsageError(
            "a component is made of rasters, or of an asset of STAC items", repair="give --from, or --stac and --asset"
        )
    if stac is not None:
        from aftermap.stacfiles import rasters as of_items

        rasters = of_items(stac, asset)
    with Progress(quiet) as progress:
        made = make(area, Component(name, tuple(rasters), bands=names(bands), **given), progress=progress)
    click.echo(f"{made.written} tiles written, {made.kept} kept, {made.uncovered} that no raster saw")
    if not made.written + made.kept:
        sys.exit(4)


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    def number(value: float | None) -> str:
        return f"{'-' if value is None else format(value, '.4g'):>10}"

    lines = []
    for row in rows:
        seen = "-" if row["observed_share"] is None else f"{row['observed_share']:.1%}"
        lines.append(f"{row['split']}: {row['chips']} chips, {seen} observed")
        if row["classes"]:
            lines.append("  " + ", ".join(f"{k} {'-' if v is None else format(v, '.2%')}" for k, v in row["classes"].items()))
        heads = list(next(iter(row["bands"].values())))
        lines.append(f"  {'band':22}" + "".join(f"{h:>10}" for h in heads))
        lines += [f"  {band:22}" + "".join(number(v[h]) for h in heads) for band, v in row["bands"].items()]
    return lines


@click.command(cls=ManyFiles)
@click.option("--data", type=_FILES, help="In place of images and labels: a data set, such as a folder of datacubes.")
@click.option("--kind", default="", help="Its name, where its layout does not tell.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of it, as docs/data.md lists.")
@click.option("--scenes", type=_FILES, help="A folder of images, each an event of its own; with --unlabelled.")
@click.option("--unlabelled", is_flag=True, help="Chips without any label, to pretrain on.")
@click.option("--after", multiple=True, type=_FILES, help="Image(s) after the event.")
@click.option("--before", multiple=True, type=_FILES, help="Image(s) before the event.")
@click.option("--after-pass", multiple=True, type=_FILES, help="Further pass(es) after it, from the event outward.")
@click.option("--before-pass", multiple=True, type=_FILES, help="Further pass(es) before it, from the event outward.")
@click.option("--dem", multiple=True, type=_FILES, help="Elevation model: its derivatives become bands.")
@click.option("--terrain", default="", help="Which of them: elevation, slope, aspect, curvature.  [default: all]")
@click.option("--truth", multiple=True, type=_FILES, help="Labels: a raster of codes, or polygons.")
@click.option("--points", type=_FILES, help="An inventory of points: heads or centroids of landslides.")
@click.option("--band", default=1, show_default=True, help="Band of the truth raster.")
@click.option("--hazard-code", type=int, help="Code of the hazard in the truth raster.  [default: 1]")
@click.option("--classes", default="", help="Names of the codes of the truth from 0 on, where there are several classes.")
@click.option("-o", "--out", type=_FILES, required=True, help="Folder for images/, masks/, index.csv and facts.toml.")
@click.option("--size", default=256, show_default=True, help="Pixels along each side.")
@click.option("--how", type=click.Choice(["regular", "balanced", "random", "published"]), default="regular", show_default=True)
@click.option("--count", type=int, help="Chips at most, for balanced and random.  [default: 100]")
@click.option("--stride", type=int, help="Pixels between chips, for regular and balanced.")
@click.option("--least-valid", type=float, help="Least share of a chip that was observed.  [default: 0.9; published: 1]")
@click.option(
    "--split",
    type=click.Choice(["none", "blocks", "random"]),
    default="none",
    show_default=True,
    help="blocks: by ground; random: chip by chip, as published, which leaks.",
)
@click.option("--shares", default="", metavar="SIDE=SHARE,...", help="Of each split; or whole numbers of chips, for random.")
@click.option("--block-px", type=int, help="Side of those blocks.  [default: 4 x --size; published: and 2 km at least]")
@click.option("--gap-px", type=int, help="Least pixels between chips of two splits.  [default: 0; published: --size]")
@click.option("--bands", default="", help="Names of the bands in file order, where the files do not say.")
@click.option("--unit", default="", help="dB, power, amplitude, reflectance or digital_number, where the files do not say.")
@click.option("--event", default="", help="Name of the event.  [default: that of the first file]")
@click.option("--seed", default=0, show_default=True)
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def chips(
    context: click.Context, /, out: Path, quiet: bool, data: Path | None, kind: str, settings: Sequence[str],
    scenes: Path | None, **given: Any,
) -> None:  # fmt: skip
    """Cut training chips from an event's images and labels, or take those of a data set, into a folder that other tools open."""
    if data is not None:
        told = _recut(context, out, quiet, data, kind, settings)
    elif scenes is not None:
        told = _cut_scenes(context, out, quiet, scenes)
    else:
        told = _cut(out, quiet, kind, settings, given)
    _say_chips(out, told, given["split"], given["unlabelled"])


_OF_DATA = ("data", "kind", "settings", "out", "how", "split", "shares", "block_px", "gap_px", "seed", "quiet")


def _recut(context: click.Context, out: Path, quiet: bool, data: Path, kind: str, settings: Sequence[str]) -> dict[str, Any]:
    from aftermap.recutting import Recut, recut

    told, said = context.params, _said_besides(context, _OF_DATA)
    if said or told["how"] not in ("regular", "published"):
        wrong = [f"--{n.replace('_', '-')}" for n in said] or [f"--how {told['how']}"]
        raise UsageError(f"{', '.join(wrong)} of a data set, whose chips are cut already", repair="leave it out, or give images")
    what = Recut(
        data, kind, dict(map(setting, settings)), published=told["how"] == "published",
        **{n: told[n] for n in ("split", "shares", "block_px", "gap_px", "seed")},
    )  # fmt: skip
    with Progress(quiet) as progress:
        return recut(out, what, progress=progress)


def _said_besides(context: click.Context, known: Sequence[str]) -> list[str]:
    """Options given on the command line besides those known."""
    given = click.core.ParameterSource.COMMANDLINE
    return [n for n in context.params if n not in known and context.get_parameter_source(n) is given]


_OF_SCENES = (
    "size", "how", "count", "stride", "least_valid", "split", "shares", "block_px", "gap_px", "bands", "unit", "seed",
    "unlabelled",
)  # fmt: skip


def _cut_scenes(context: click.Context, out: Path, quiet: bool, scenes: Path) -> dict[str, Any]:
    from aftermap.cutting import Cut
    from aftermap.manyscenes import cut_scenes

    if wrong := _said_besides(context, (*_OF_SCENES, "scenes", "out", "quiet")):
        said = ", ".join(f"--{n.replace('_', '-')}" for n in wrong)
        raise UsageError(f"{said} with --scenes, whose images are events of their own without labels", repair="leave it out")
    if not context.params["unlabelled"]:
        raise UsageError("--scenes has no labels", repair="say --unlabelled, or give one event by --after with its --truth")
    what = Cut((), **{n: context.params[n] for n in _OF_SCENES})
    with Progress(quiet) as progress:
        return cut_scenes(out, scenes, what, progress=progress)


def _cut(out: Path, quiet: bool, kind: str, settings: Sequence[str], given: dict[str, Any]) -> dict[str, Any]:
    from aftermap.cutting import Cut, cut

    if not given["after"] or kind or settings:
        raise UsageError(
            "there is no image, or --kind or --set without --data", repair="give --after, or --data with its settings"
        )
    if len(given["truth"]) > 1:
        raise UsageError(f"{len(given['truth'])} truths are given", repair="give one, of the whole event")
    given["truth"] = next(iter(given["truth"]), None)
    given["classes"] = tuple(name.strip() for name in given["classes"].split(",")) if given["classes"] else ()
    with Progress(quiet) as progress:
        return cut(out, Cut(**given), progress=progress)


def _say_chips(out: Path, told: dict[str, Any], split: str, unlabelled: bool) -> None:
    for reason, n in told["left_out"].items():
        click.echo(f"{n} left out: {reason}", err=True)
    if aside := told.get("aside"):
        click.echo(f"no image, and not read: {', '.join(aside)}", err=True)
    if told["chips"] == 0:
        click.echo(f"no window was observed {'' if unlabelled else 'and labelled '}enough: nothing was written")
        sys.exit(4)
    if split == "random":
        from aftermap.splits import LEAK

        click.echo(f"warning: {LEAK}", err=True)
    if told["empty"]:
        empty = ", ".join(told["empty"])
        click.echo(f"warning: no chip is left for {empty}: give a larger area, smaller blocks or fewer --shares", err=True)
    left = "left out between splits" if split == "blocks" else "left out"
    of = f" of {told['events']} events" if "events" in told else ""
    click.echo(", ".join(f"{n} {side or left}" for side, n in told["splits"].items()) + f"{of} in {out}")
