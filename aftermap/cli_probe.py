"""The command line of `aftermap probe`; arguments and words only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from aftermap.cli_words import names, with_workers
from aftermap.errors import UsageError
from aftermap.manyfiles import ManyFiles
from aftermap.progress import Progress

_FILES = click.Path(path_type=Path)


@click.command(cls=ManyFiles)
@click.argument("models", nargs=-1)
@click.option("--on", type=_FILES, required=True, help="Folder of a data set with truth, or of `aftermap chips`.")
@click.option("-o", "--out", type=_FILES, required=True, help="Folder for embeddings, fits and tables; goes on where it stood.")
@click.option("--kind", default="", help="Name of the data set, where its layout does not tell.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the data set, as docs/data.md lists.")
@click.option("--areas", default="", metavar="REGEX", help="Its first group names the area of an event.  [default: the event]")
@click.option(
    "--inputs", default="", help="Layers or bands that what needs no network sees.  [default: those of the models, or all]"
)
@click.option("--size", default=64, show_default=True, help="Side of a square in px.")
@click.option("--most", default=4000, show_default=True, help="Squares of an area at most.")
@click.option("--labels", default="50,100,250,500,1000", show_default=True, help="Numbers of squares that are fitted on.")
@click.option("--repeats", default=15, show_default=True, help="Draws of each number.")
@click.option("--least-mixed", default=200, show_default=True, help="Squares with 2 to 98 % of a class that an area must have.")
@click.option(
    "--beside", default="statistics,patches", show_default=True, help="What needs no network, to stand beside the models."
)
@click.option("--seed", default=0, show_default=True)
@with_workers
@click.option("--json", "as_json", is_flag=True, help="Print probe.json.")
@click.option("--quiet", is_flag=True, help="No progress.")
def probe(
    models: Sequence[str], on: Path, out: Path, kind: str, settings: Sequence[str], as_json: bool, quiet: bool, **given: Any
) -> None:  # fmt: skip
    """Ask what frozen MODELS know: the share of each class of a square by a line through its embedding, fitted with few labels in
    one area and asked in all others."""
    from aftermap import card, looks, probing
    from aftermap.areas import Place
    from aftermap.page import Data
    from aftermap.probe import Plan
    from aftermap.strict import setting
    from aftermap.workers import workers

    place = Place(on, Data(kind, dict(map(setting, settings))), given["size"], given["areas"], given["most"], given["seed"])
    plan = Plan(place.tasks, _counts(given["labels"]), given["repeats"], seed=given["seed"], least_mixed=given["least_mixed"])
    named = {name: card.find(model) for name, model in looks.named(models).items()}
    encoders = looks.chosen(place, named, names(given["beside"]), names(given["inputs"]))
    with workers(given["workers"], given["cluster"]) as crew, Progress(quiet) as progress:
        facts = probing.probe(place, encoders, plan, out, progress=progress, workers=crew)
    click.echo(json.dumps(facts) if as_json else "\n".join(probing.words(facts, out)))


def _counts(said: str) -> tuple[int, ...]:
    found = names(said)
    if not found or not all(one.isdigit() and int(one) > 2 for one in found):
        raise UsageError(f"--labels is {said!r}", repair="give numbers of at least 3 with commas: 50,100,250")
    return tuple(sorted(map(int, set(found))))
