"""What is typed as values, and values as words: what the commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from aftermap.layer import Declared


def names(given: str | None) -> tuple[str, ...]:
    """The names of a list with commas."""
    return tuple(name.strip() for name in given.split(",")) if given else ()


def declared(given: Mapping[str, Any]) -> dict[str, Declared]:
    """What the options say of the images of each date, as `map` and `explain` have them; before is as after unless it differs."""
    from aftermap.layer import Declared

    both = {"unit": given["unit"], "nodata": given["nodata"]}
    after = Declared(bands=names(given["bands"]), sensor=given["sensor"], acquired=given.get("after_date", ""), **both)
    before = Declared(
        bands=names(given["before_bands"] or given["bands"]), sensor=given["before_sensor"] or given["sensor"],
        acquired=given.get("before_date", ""), **both,
    )  # fmt: skip
    return {"after": after, "before": before}


def with_workers(command: Callable[..., Any]) -> Callable[..., Any]:
    """--workers and --cluster, of a command whose work others can share (workers.py)."""
    alone = "Processes that share the work, by Dask.  [default: this one alone]"
    scheduler = "Scheduler of a Dask cluster that shares it: tcp://HOST:8786."
    command = click.option("--cluster", default="", metavar="ADDRESS", help=scheduler)(command)
    return click.option("--workers", type=click.IntRange(0), default=0, help=alone)(command)


def number(value: float | None) -> str:
    """Three digits, or that there is none."""
    return "undefined" if value is None else f"{value:.3f}"
