"""The command line: arguments, progress and words; every verb lives elsewhere and is imported when it is called."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import click

from aftermap import cli_cloud, cli_data, cli_explain, cli_learn, cli_probe, cli_verify, cli_view
from aftermap.cli_words import declared, names, with_workers
from aftermap.errors import AftermapError, JobInterruptedError, UsageError
from aftermap.manyfiles import ManyFiles
from aftermap.pieces import HAZARDS, PIECES
from aftermap.progress import Progress

_NOT_ANALYSED_EXIT, _FAILED_EXIT = 4, 6
_FILES = click.Path(path_type=Path)
_METHODS = "; ".join(f"{hazard}: {', '.join(PIECES[hazard])}" for hazard in HAZARDS)


class _Group(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["aftermap.json"] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _stop)
        try:
            return super().invoke(ctx)
        except AftermapError as error:
            _fail(error, as_json=ctx.meta["aftermap.json"])
        except KeyboardInterrupt:
            _fail(JobInterruptedError("interrupted"), as_json=ctx.meta["aftermap.json"])
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - nobody is shown a traceback
            from aftermap.mishaps import as_ours

            _fail(as_ours(error), as_json=ctx.meta["aftermap.json"])


def _stop(*_: object) -> NoReturn:
    """SIGTERM ends a run as Ctrl-C does, also where a shell has told this process to ignore Ctrl-C."""
    raise KeyboardInterrupt


def _fail(error: AftermapError, *, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"error": error.code, "what": error.what, "repair": error.repair}))
    click.echo(f"aftermap: {error.what} [{error.code}]", err=True)
    if error.repair:
        click.echo(f"          {error.repair}", err=True)
    sys.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="aftermap")
def main() -> None:
    """Seamless, honest natural-hazard maps from satellite images.

    Start with `aftermap demo`, or `aftermap map --after AFTER.tif --before BEFORE.tif --hazard flood -o OUT`.

    Exit codes: 0 done, also when nothing was found; 2 wrong use; 3 input refused; 4 nothing could be analysed; 5 interrupted,
    run the same command to resume; 6 mapped, but some windows could not be read; 1 a fault of ours.
    """


def _quiet(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--quiet", is_flag=True, help="No progress.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


@main.command("map", cls=ManyFiles)
@click.option("--after", multiple=True, type=_FILES, help="Image(s) after the event: bands stacked or one per file.")
@click.option("--before", multiple=True, type=_FILES, help="Image(s) before the event, warped to the grid of --after.")
@click.option("--items", type=_FILES, help="In place of --after and --before: the item file of `aftermap find`.")
@click.option("--offline", is_flag=True, help="With --items: ask nobody for windows that are not kept beside the item file.")
@click.option("--retry-failed", is_flag=True, help="With --items: try windows again that could not be read.")
@click.option("--hazard", help=f"What to map: {', '.join(HAZARDS)}.  [default: that of --items]")
@click.option("-o", "--out", type=_FILES, required=True, help="Folder for the products; resumes what it holds unfinished.")
@click.option("--method", default="auto", show_default=True, help=f"Or one of {_METHODS}.")
@click.option(
    "--model",
    multiple=True,
    help="Trained model to run with the methods: a folder, or a name of `aftermap models`; several as one.",
)
@click.option("--flips", is_flag=True, help="Each --model sees the image turned too, and the mean of all is the score.")
@click.option("--baseline/--no-baseline", default=True, help="Run the methods without training beside a model.  [default: yes]")
@click.option("--lead", is_flag=True, help="Let --model make the map, whatever its card says.")
@click.option("--precision", default="auto", show_default=True, help="Of a model: f32, bf16, or what a trial here allows.")
@click.option("--engine", default="auto", show_default=True, help="Of a model: openvino or onnxruntime.")
@click.option(
    "--adapt",
    default="0",
    callback=lambda *given: int(given[-1]) if given[-1].isdigit() else given[-1],
    help="Crops of the scene to estimate a model's batch norm anew from; or auto.",
)
@click.option("--adapt-mode", default="ema", show_default=True, help="Of --adapt: ema, reset, prior or batch.")
@click.option("--cut", help="Map a hazard that --model never saw: percentile, otsu, kittler-illingworth or even.")
@click.option("--band-map", default="auto", show_default=True, help="With --cut: rgb, s1, modis-grey, nir-red-green ...")
@click.option("--dem", multiple=True, type=_FILES, help="Elevation model.")
@click.option("--reference-water", multiple=True, type=_FILES, help="Permanent water: a raster, above 0 where water is normal.")
@click.option(
    "--low-sensitivity", multiple=True, type=_FILES, help="Where the method cannot tell: a raster above 0, or polygons."
)
@click.option("--incidence", type=float, help="Radar's angle of incidence in degrees, for shadow and layover by --dem.")
@click.option("--look", type=float, help="Azimuth in which the radar looks, in degrees clockwise from north.")
@click.option("--aoi", type=_FILES, help="Polygons of the area of interest, in any vector format.")
@click.option("--assets", type=_FILES, help="Points, lines or polygons to count as affected or not, in any vector format.")
@click.option("--footprints", type=_FILES, help="Polygons of buildings to grade one by one, in any vector format.")
@click.option(
    "--bands", help="Names of the bands of --after (and --before) in file order, for example VV,VH or red,green,blue,nir."
)
@click.option("--before-bands", help="The same for --before, where they differ.")
@click.option("--sensor", default="", help="Sensor of --after (and --before), where the files do not say.")
@click.option("--before-sensor", default="", help="Sensor of --before, where it differs.")
@click.option("--unit", default="", help="dB, power, amplitude, reflectance or digital_number, where the files do not say.")
@click.option("--nodata", type=float, help="Value of pixels that were not observed, where the files do not say.")
@click.option("--after-date", default="", help="Date or time of --after, ISO 8601, where the files do not say.")
@click.option("--before-date", default="", help="Date or time of --before.")
@click.option("--favour", help="Operating point: balanced, precision or recall: threshold 0.5, 0.8 or 0.2.  [default: balanced]")
@click.option("--threshold", type=float, help="Score above which a pixel is hazard, in place of --favour.")
@click.option("--min-area-m2", type=float, help="Minimum mapping unit.  [default: 1000, or 10 pixels without a scale]")
@click.option("--gsd-m", type=float, help="Pixel size in metres, for areas of a scene without CRS.")
@click.option(
    "--density-m", type=float, help="Side of the cells of density.tif and priority.csv; 0: none.  [default: 1280 for landslides]"
)
@click.option("--profile", help="unosat: map.gpkg also has a layer with the field names of UNOSAT (floods).")
@click.option("--event-code", help="UNOSAT's code of the event, for --profile unosat.")
@click.option(
    "--only",
    callback=lambda *given: names(given[-1]),
    help="Write these rasters alone, no polygons and no report: likelihood,extent.",
)
@click.option("--keep-scores", is_flag=True, help="Also write score.tif, the float scores.")
@click.option("--coregister", is_flag=True, help="Measure how --before lies beside --after, and take the shift out.")
@click.option(
    "--memory", "memory_mb", default=1000, show_default=True, help="Memory to stay under, in MB, and each worker; at least 420."
)
@with_workers
@click.option("--name", default="", help="Name of the scene.  [default: that of the first file]")
@click.option("--overwrite", is_flag=True, help="Replace another run's products in the folder.")
@_quiet
def map_command(**given: Any) -> None:
    """Map a hazard: one or two images in, a folder that opens in QGIS out."""
    from aftermap import deliver

    given["model"] = given["model"] or None
    options = deliver.Options(**{f.name: given[f.name] for f in fields(deliver.Options)})
    cli_cloud.refuse_images(given)
    with Progress(given["quiet"]) as progress:
        if given["items"]:
            maps = cli_cloud.map_items(given, options, progress)
        else:
            maps = [deliver.map(
                given["after"], given["before"], out=given["out"], dem=given["dem"], reference_water=given["reference_water"],
                low_sensitivity=given["low_sensitivity"], aoi=given["aoi"], assets=given["assets"],
                footprints=given["footprints"], declared=declared(given), name=given["name"], hazard=given["hazard"],
                method=given["method"], options=options, progress=progress,
            )]  # fmt: skip
    _say_maps(maps, given["as_json"])


def _say_maps(maps: Sequence[Any], as_json: bool) -> None:
    """The answers; exits with 6 where windows could not be read, with 4 where nothing could be analysed."""
    for mapped in maps:
        _say_map(mapped, as_json)
    if any(mapped.made_by.get("failed") for mapped in maps):
        sys.exit(_FAILED_EXIT)
    if all(mapped.answer == "not analysed" for mapped in maps):
        sys.exit(_NOT_ANALYSED_EXIT)


def _say_map(mapped: Any, as_json: bool) -> None:
    """The answer in words or JSON."""
    run, rows = mapped.made_by, mapped.summary
    if as_json:
        click.echo(
            json.dumps({"answer": mapped.answer, "folder": str(mapped.folder), "methods": run["methods"], "summary": rows})
        )
    else:
        for finding in run["warnings"]:
            click.echo(f"warning: {finding['what']} ({finding['where']}); {finding['repair']} [{finding['code']}]", err=True)
        click.echo(_answer(run, rows))
        click.echo(f"method    {' + '.join(run['methods']['combined'])}: {run['methods']['why']}")
        if graded := [f"{r['value']} {r['class'].lower()}" for r in rows if r["quantity"] == "buildings"]:
            click.echo(f"buildings {', '.join(graded)} ({run['buildings']['graded_by']})")
        if run["parameters"]["only"]:
            click.echo(f"rasters   {', '.join(str(mapped.folder / f'{n}.tif') for n in run['parameters']['only'])}")
        else:
            click.echo(f"report    {mapped.folder / 'report.html'}")
            click.echo(f"for QGIS  {mapped.folder / 'map.qgz'}")
            if run["parameters"]["density"]:
                click.echo(f"look at   {mapped.folder / 'priority.csv'}: the cells, the first first")


def _answer(run: dict[str, Any], rows: Sequence[dict[str, str]]) -> str:
    def of(quantity: str) -> dict[str, str]:
        return next(r for r in rows if r["quantity"] == quantity and not r["reason"])

    if run["answer"] == "not analysed":
        return "could not be analysed: no pixel was observed and left unexcluded"
    analysed = f"{float(of('analysed_area')['percent_of_aoi']):.1f} % of the area analysed"
    if run["answer"] == "nothing found":
        noun, _, caveat = run["maps"].partition(", ")
        return f"no {noun} found{f' ({caveat})' if caveat else ''}; {analysed}"
    area = of("affected_area")
    counted = next((float(r["value"]) for r in rows if r["quantity"] == "polygons"), None)
    polygons = "" if counted is None else f" in {counted:,.0f} polygon{'s' * (counted != 1)}"
    return f"{run['maps']}: {float(area['value']):,.1f} {area['unit']}{polygons}; {analysed}"


@main.command(cls=ManyFiles)
@click.argument("maps", nargs=-1, required=True, type=_FILES)
@click.option(
    "--truth", multiple=True, type=_FILES, required=True, help="Raster or polygons, one for each map in the same order."
)
@click.option("--band", default=1, show_default=True, help="Band of the truth raster.")
@click.option("--hazard-code", type=int, help="Code of the hazard in the truth raster.  [default: 1]")
@click.option("-o", "--out", type=_FILES, help="Folder for scores.json, scores.csv and scores.png.  [default: MAP/scores]")
@_quiet
def evaluate(
    maps: Sequence[Path], truth: Sequence[Path], band: int, hazard_code: int | None, out: Path | None, quiet: bool, as_json: bool
) -> None:
    """Score one or more MAPS against truth: one row per event and all pooled."""
    from aftermap.evaluate import evaluate as score
    from aftermap.evaluate import write_scores
    from aftermap.figures import draw_scores
    from aftermap.hazardmap import HazardMap

    if len(maps) != len(truth):
        raise UsageError(
            f"{len(maps)} maps and {len(truth)} truths are given", repair="give one --truth for each map, in the same order"
        )
    results = [score(HazardMap(m), t, band=band, hazard_code=hazard_code) for m, t in zip(maps, truth, strict=True)]
    folder = out or maps[0] / "scores"
    pooled = write_scores(folder, results)
    draw_scores(folder / "scores.png", pooled)
    if as_json:
        click.echo(json.dumps([r.row() for r in results]))
        return
    for result in [*results, *([pooled] if len(results) > 1 else [])]:
        _say_scores(result)
    click.echo(f"scores  {folder / 'scores.csv'}")


def _say_scores(result: Any) -> None:
    row = result.row()
    words = (
        "iou",
        "f1",
        "precision",
        "recall",
        "balanced_accuracy",
        "average_precision",
        "auc",
        "expected_calibration_error",
        "area_error",
    )
    said = "  ".join(f"{w} {row[w]:.3f}" if row[w] is not None else f"{w} undefined" for w in words)
    click.echo(f"{row['event']}: {said}")
    if row.get("found_top10") is not None:
        found, chance, best = (100 * row[f"found_top10{k}"] for k in ("", "_chance", "_best"))
        click.echo(
            f"  top 10 % of cells: {found:.0f} % of affected pixels found; any order {chance:.0f} %, the best {best:.0f} %"
        )
    missed = row["not_analysed_px"]
    click.echo(f"  {row['scored_px']:,} pixels scored, {missed:,} with known truth not analysed, ranked on {row['ranked_on']}")


@main.command()
@click.argument("kind", type=click.Choice(sorted(PIECES["simulate"])))
@click.option("-o", "--out", type=_FILES, required=True, help="Folder for truth.tif, dem.tif and the images.")
@click.option("--size", type=int, help="Pixels along each side.  [default: 2048, or all of --dem]")
@click.option("--seed", default=0, show_default=True, help="Another seed, another scene.")
@click.option("--vary", metavar="FIRST-LAST", help="Many small scenes to train on, one folder per seed, each unlike the last.")
@click.option("--dem", type=_FILES, help="flood, landslide: a real elevation model to build the scene on, on its grid.")
@click.option("--sensor", help="flood, landslide: sentinel-1, sentinel-2 or rgb.  [default: sentinel-1; sentinel-2]")
@click.option("--terrain", help="flood, landcover: plain, hills, alps, andes; landslide: alps, andes.  [default: plain; andes]")
@click.option("--looks", type=float, help="Equivalent number of looks of the speckle.  [default: 4.9]")
@click.option("--gsd-m", type=float, help="Pixel size in metres.  [default: that of the sensor]")
@click.option("--passes", type=int, help="landslide, sentinel-1: passes before and after the event, 1 to 5.  [default: 1]")
@click.option("--coherence", is_flag=True, default=None, help="sentinel-1: also coherence.tif, before and across the event.")
@click.option("--quiet", is_flag=True, help="No progress.")
def simulate(kind: str, out: Path, seed: int, vary: str | None, quiet: bool, **given: Any) -> None:
    """Write a georeferenced scene with known truth."""
    from inspect import signature

    from aftermap import pieces

    make = pieces.load("simulate", kind)
    chosen = {name: value for name, value in given.items() if value is not None}
    if vary is not None:
        _vary(kind, out, vary, quiet, list(chosen))
        return
    for name in chosen.keys() - signature(make).parameters.keys():
        raise UsageError(f"{kind} has no --{name.replace('_', '-')}", repair="leave it out")
    with Progress(quiet) as progress:
        make(out, seed=seed, progress=lambda done, whole: progress("simulate", done, whole), **chosen)
    more = "; inventory.gpkg has the heads of its slides" if (out / "inventory.gpkg").exists() else ""
    images = "s1.tif, coherence.tif, rgb.tif" if kind == "landcover" else "before.tif, after.tif"
    click.echo(f"wrote {images}, truth.tif and dem.tif to {out}{more}")


def _vary(kind: str, out: Path, seeds: str, quiet: bool, chosen: Sequence[str]) -> None:
    from aftermap.simulate.vary import simulate as many

    first, _, last = seeds.partition("-")
    if chosen or not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise UsageError(f"--vary {seeds} with {', '.join(chosen) or 'no range'}", repair="say --vary 0-199, and nothing else")
    with Progress(quiet) as progress:
        made = many(kind, out, range(int(first), int(last) + 1), progress=lambda done, whole: progress("simulate", done, whole))
    click.echo(f"{made} scenes in {out}")


@main.command()
@click.option("-o", "--out", type=_FILES, default=Path("aftermap-demo"), show_default=True)
@click.option("--size", default=2048, show_default=True, help="Pixels along each side.")
@click.option("--seed", default=0, show_default=True)
@_quiet
def demo(out: Path, size: int, seed: int, quiet: bool, as_json: bool) -> None:
    """Simulate a Sentinel-1 flood pair, map it, and score the map against its truth."""
    from aftermap.demo import demo as run

    with Progress(quiet) as progress:
        mapped, result = run(out, size=size, seed=seed, progress=progress)
    _say_map(mapped, as_json)
    if not as_json:
        _say_scores(result)


@main.command()
@click.argument("files", nargs=-1, required=True, type=_FILES)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(files: Sequence[Path], as_json: bool) -> None:
    """The input doctor: what is wrong with these FILES, each finding with its repair."""
    from aftermap.check import examine_files

    findings, understood = examine_files(files)
    if as_json:
        click.echo(json.dumps([f.facts() for f in findings]))
    else:
        for f in findings:
            click.echo(f"{f.severity}: {f.what} ({f.where}); {f.repair} [{f.code}]")
        for words in understood:
            click.echo(words)
        click.echo(f"files: {len(files)}, findings: {len(findings)}")
    if any(f.severity == "refuse" for f in findings):
        sys.exit(3)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the cards as JSON.")
def models(as_json: bool) -> None:
    """The trained models that are here: bundled ones, and your own in $AFTERMAP_MODELS or the data folder."""
    from aftermap import card

    cards = {folder: card.Card.read(folder) for folder in card.listed().values()}
    if as_json:
        facts = ("hazard", "classes", "reads", "leads", "why", "licence", "training_data", "scores")
        rows = [{"name": f.name, "folder": str(f), **{k: getattr(c, k) for k in facts}} for f, c in cards.items()]
        click.echo(json.dumps(rows, default=dict))
        return
    for folder, found in cards.items():
        leads = f"{'leads' if found.leads else 'runs beside the other methods'}{f': {found.why}' if found.why else ''}"
        click.echo(
            f"{folder.name}  {found.hazard} from {found.reads}\n  {leads}\n  {found.licence}; trained on {found.training_data}"
        )
    click.echo(f"{len(cards)} model{'s' * (len(cards) != 1)}; your own belong in {card.own_folder()}", err=True)


for _command in (
    cli_verify.verify,
    cli_explain.explain, cli_cloud.find, cli_cloud.watch, cli_view.view, cli_probe.probe, cli_data.data, cli_data.chips,
    cli_learn.train, cli_learn.run, cli_learn.report, cli_learn.export, cli_learn.adapt, cli_learn.drift,
):  # fmt: skip
    main.add_command(_command)
