"""The command line of `aftermap view`; arguments and words only."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

import click

_FILES = click.Path(path_type=Path)


@click.command()
@click.argument("maps", nargs=-1, required=True, type=_FILES)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page.  [default: any free one]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Another address lets other machines in, and needs --token.")
@click.option("--token", default="", help="Only who brings it is let in.")
@click.option("--browser/--no-browser", default=True, help="Open the page.  [default: yes]")
def view(maps: Sequence[Path], port: int, host: str, token: str, browser: bool) -> None:
    """Look at delivered MAPS in a browser; Ctrl-C ends it. Nothing leaves this machine."""
    from aftermap.view import serve

    def ready(address: str) -> None:
        click.echo(f"looking at {len(maps)} folder{'s' * (len(maps) != 1)}: {address}   (Ctrl-C ends it)")
        if browser:
            webbrowser.open(address)

    serve(maps, host=host, port=port, token=token, ready=ready)
