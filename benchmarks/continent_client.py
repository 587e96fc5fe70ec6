"""The client of a map from items, as `aftermap map --items` is it, that says when each step was done and stops at a share.

Run:     python -m benchmarks.continent_client ITEMS OUT --windows DIR --steps FILE ...       (started by benchmarks/continent.py)
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from aftermap.deliver import Options
from aftermap.errors import JobInterruptedError
from aftermap.eventmap import Asked, map_event

STOPPED = 5


@click.command()
@click.argument("items", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--windows", type=click.Path(path_type=Path), required=True)
@click.option("--steps", type=click.Path(path_type=Path), required=True, help="Gets `seconds stage done all` line by line.")
@click.option("--cluster", required=True)
@click.option("--method", default="auto")
@click.option("--memory", default=1000)
@click.option("--stop", type=(str, float), default=("", 1.0), help="Stage, and share of it after which it is interrupted.")
def main(items: Path, out: Path, windows: Path, steps: Path, cluster: str, method: str, memory: int,
         stop: tuple[str, float]) -> None:  # fmt: skip
    """As the module says."""
    stage, share = stop
    with steps.open("w", buffering=1) as said:

        def told(now: str, done: int, whole: int) -> None:
            said.write(f"{time.time():.3f} {now} {done} {whole}\n")
            if now == stage and done >= share * whole:
                raise KeyboardInterrupt

        said.write(f"{time.time():.3f} start 0 1\n")
        options = Options(cluster=cluster, memory_mb=memory)
        try:
            map_event(Asked(items, out, method=method, options=options, windows=windows), progress=told)
        except JobInterruptedError:
            sys.exit(STOPPED)
        said.write(f"{time.time():.3f} end 1 1\n")


if __name__ == "__main__":
    main()
