"""Options that take files take several, as a shell's `*.tif` gives them."""

from __future__ import annotations

import click

_MANY = {"--after", "--before", "--dem", "--reference-water", "--low-sensitivity", "--truth", "--to", "--after-pass",
         "--before-pass"}  # fmt: skip


class ManyFiles(click.Command):
    """Lets `--after A B C` and a shell's `--after *.tif` stand for one option given several times."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spelled, option = [], ""
        for arg in args:
            if arg.startswith("-"):
                option = arg if arg in _MANY else ""
                spelled += [] if option else [arg]
            else:
                spelled += [option, arg] if option else [arg]
        return super().parse_args(ctx, spelled)
