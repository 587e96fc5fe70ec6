"""The verb `verify`: arguments and words."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from aftermap.errors import UsageError

_FILES = click.Path(path_type=Path)


@click.command()
@click.argument("folder", metavar="OUT", type=_FILES)
@click.option("--sample", "count", type=click.IntRange(1), help="Make so many windows of the map anew and compare them.")
@click.option("--seed", default=0, show_default=True, help="Of --sample: another seed, other windows.")
@click.option("--repeat", is_flag=True, help="Make the whole map anew, into -o, and compare every file.")
@click.option("-o", "--out", type=_FILES, help="Of --repeat: a folder for the second map.")
@click.option("--inputs", multiple=True, type=_FILES, help="Folder with the files of the map.  [default: where they lay]")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(
    folder: Path, count: int | None, seed: int, repeat: bool, out: Path | None, inputs: Sequence[Path], as_json: bool
) -> None:
    """Check every file of a delivered map or a model against its checksum; make windows, or all, of a map anew."""
    from aftermap.sealed import wrong_in

    if repeat != (out is not None):
        raise UsageError("--repeat and -o go together", repair="give both, or neither")
    wrong, words = wrong_in(folder), ["every file is as it was written"]
    if count and not wrong:
        sampled, said = _sampled(folder, count, seed, inputs)
        wrong, words = wrong + sampled, [*words, said]
    if out is not None and not wrong:
        from aftermap.repeated import repeat as again

        wrong += [f"{name} is another when made again" for name in again(folder, out, inputs)]
        words.append(f"made again in {out}, every file is the same")
    if as_json:
        click.echo(json.dumps({"wrong": wrong, "checked": words if not wrong else words[:-1]}))
    for what in wrong:
        click.echo(f"aftermap: {what}", err=True)
    if wrong:
        sys.exit(1)
    if not as_json:
        click.echo("\n".join(words))


def _sampled(folder: Path, count: int, seed: int, inputs: Sequence[Path]) -> tuple[list[str], str]:
    import numpy as np

    from aftermap.repeated import sample

    found = sample(folder, count, np.random.default_rng(seed), inputs)
    wrong = [f"{n:,} of {found.pixels:,} pixels of {name} are others when made again" for name, n in found.differ.items() if n]
    said = f"{len(found.windows)} windows made again, {found.pixels:,} pixels: {', '.join(found.differ)} are the same"
    return wrong, f"{said} ({found.unit_px:,} pixels of hazard fell to the minimum mapping unit, which windows do not know)"
