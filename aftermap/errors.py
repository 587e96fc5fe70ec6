"""One error tree. Every error has a code, says what was given, what was expected and how to repair it.

AftermapError                 exit 1
|- UsageError                 exit 2   the command or the arguments are wrong
|  `- UnknownNameError        exit 2   a name that no table holds; names the near misses
|- InputRefusedError          exit 3   the doctor refuses these files; carries its findings
|  |- RasterError             exit 3   a raster that cannot be read or written
|  `- BandError               exit 3   bands or units that are missing, ambiguous or impossible
`- JobInterruptedError        exit 5   stopped halfway; the same command resumes

Exit 4 is no error: the map is delivered and its answer is "not analysed".
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class AftermapError(Exception):
    """The root: `code` names the fault for machines, `repair` tells a person what to do."""

    exit_code = 1

    def __init__(self, what: str, *, repair: str = "", code: str = "internal") -> None:
        self.what, self.repair, self.code = what, repair, code
        super().__init__(f"{what}; {repair}" if repair else what)

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes, whatever a class is made with."""
        return _again, (type(self), self.args, vars(self))


def _again(kind: type[AftermapError], args: tuple[Any, ...], own: dict[str, Any]) -> AftermapError:
    made = kind.__new__(kind, *args)
    vars(made).update(own)
    return made


class UsageError(AftermapError):
    """Arguments that contradict one another or lie outside their range."""

    exit_code = 2

    def __init__(self, what: str, *, repair: str = "", code: str = "usage") -> None:
        super().__init__(what, repair=repair, code=code)


class UnknownNameError(UsageError):
    """A method, sensor or band name that no table holds."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        repair = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
        super().__init__(f"no {kind} is called {name!r}", repair=repair, code=f"unknown-{kind.replace(' ', '-')}")


class InputRefusedError(AftermapError):
    """Files that cannot be mapped; nothing was written."""

    exit_code = 3

    def __init__(self, what: str, *, repair: str = "", code: str = "input-refused") -> None:
        super().__init__(what, repair=repair, code=code)


class RasterError(InputRefusedError):
    """A file that GDAL cannot open, that ends too early, or a window that cannot be read."""


class BandError(InputRefusedError):
    """A band or unit that is missing, ambiguous, or impossible for the sensor."""


class JobInterruptedError(AftermapError):
    """Stopped by the user; finished windows are kept and the same command goes on from there."""

    exit_code = 5

    def __init__(self, what: str, *, repair: str = "run the same command again to resume", code: str = "interrupted") -> None:
        super().__init__(what, repair=repair, code=code)
