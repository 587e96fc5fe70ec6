"""The command line of `aftermap view`; arguments and words only."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

import click

_FILES = click.Path(path_type=Path)


@click.command()
@click.argument("maps", nargs=-1, type=_FILES)
@click.option("--jobs", type=_FILES, help="Also take images and map them: what is uploaded and made is kept in this folder.")
@click.option(
    "--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Of --jobs, for example file-mb=500; view.md lists them."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page.  [default: any free one]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Another address lets other machines in, and needs --token.")
@click.option("--token", default="", help="Only who brings it is let in.")
@click.option("--browser/--no-browser", default=True, help="Open the page.  [default: yes]")
def view(maps: Sequence[Path], jobs: Path | None, limits: Sequence[str], port: int, host: str, token: str, browser: bool) -> None:
    """Look at delivered MAPS in a browser, or make some there; Ctrl-C ends it. Nothing leaves this machine."""
    from aftermap.job import Limits
    from aftermap.view import serve

    said = Limits.of({name: value for name, _, value in (one.partition("=") for one in limits)})

    def ready(address: str) -> None:
        kept = f", jobs in {jobs}" if jobs else ""
        click.echo(f"looking at {len(maps)} folder{'s' * (len(maps) != 1)}{kept}: {address}   (Ctrl-C ends it)")
        if browser:
            webbrowser.open(address)

    serve(maps, host=host, port=port, token=token, jobs=jobs, limits=said, ready=ready)
