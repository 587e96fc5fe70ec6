"""What stops a run from outside as errors of our tree: Ctrl-C, a full disk, no memory; and own faults, whose trace is kept."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOMEM
from pathlib import Path

from aftermap.errors import AftermapError, InputRefusedError, JobInterruptedError
from aftermap.journal import WORK, cache_folder

_NO_MEMORY = ("can't start new thread", "failed to map segment", "annot allocate memory")
"""What Python and the loader of libraries say, in a RuntimeError or an ImportError, where there is none."""


@contextmanager
def told(out: Path, kept: str = "") -> Iterator[None]:
    """Raises JobInterruptedError ("interrupted", "disk", "out-of-memory") for what stops a run that writes into `out`; `kept`
    says what an interrupted one leaves, finished windows where nothing else is said."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise JobInterruptedError(f"interrupted; {kept or f'finished windows are kept in {out / WORK}'}") from error
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        if (known := _known(error, f"{out} could not be written")) is None:
            raise
        raise known from error


@contextmanager
def own(out: Path) -> Iterator[None]:
    """What a run finds missing or damaged of all that it wrote into `out` was taken away: OSError, for no input is at fault."""
    try:
        yield
    except InputRefusedError as error:
        if str(out / WORK) not in error.what and error.code not in ("no-map", "damaged"):
            raise
        raise FileNotFoundError(f"{error.what}: what was written there is gone") from error


def as_ours(error: Exception) -> AftermapError:
    """What a verb failed of, as an error with a code: what it knows of, else "internal", its trace kept in a file."""
    known = _known(error, "files could not be read or written")
    if known is not None:
        return known
    what = f"a fault of ours: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no words'}"
    path = cache_folder() / f"fault-{os.getpid()}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return AftermapError(what, repair="report it")
    return AftermapError(what, repair=f"report it with {path}")


def _known(error: Exception, disk: str) -> JobInterruptedError | None:
    said = isinstance(error, RuntimeError | ImportError) and any(words in str(error) for words in _NO_MEMORY)
    if said or isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == ENOMEM):
        repair = "give less to --memory, or the process more, then run the same command to resume"
        what = f"there was no memory left ({str(error) or type(error).__name__})"
        return JobInterruptedError(what, repair=repair, code="out-of-memory")
    if isinstance(error, OSError):
        repair = "free space or mend the disk, then run the same command to resume"
        return JobInterruptedError(f"{disk}: {error}", repair=repair, code="disk")
    return None
