"""Finished windows by content hash, atomic outputs, and the check that a delivered folder is whole.

A run writes into OUT/.work only: one small file a window, and a line in windows.jsonl with its SHA-256 once it is complete.
Whoever makes a window (this process, or workers, two of them at once) renames its files into place and leaves a note beside
them; the one process that has the folder turns notes into lines, so that a window is kept whoever of them dies.
Delivery renames the finished products into OUT and item.json, which holds their checksums, last of all: where item.json is,
the folder is whole. Killed at any moment, the same command goes on from the windows whose hashes still hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple
from uuid import uuid4

from aftermap import places, plain
from aftermap.errors import InputRefusedError, UsageError

WORK = ".work"
SEAL = "item.json"
"""The product that is delivered last; it holds the checksums of the others."""
OWN_SEAL = "aftermap:sha256"
"""Property of item.json: a hash of all else in it."""
UNSEALED = ("log.json",)
"""Timings and host: outside every checksum."""
NOTE = ".note.json"
PARTIAL = ".partial"
_LOOK_AGAIN_S = 0.02


class Made(NamedTuple):
    """A finished window, and its files by name with their SHA-256."""

    window: str
    files: dict[str, str]


def sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(facts: Any) -> str:
    """SHA-256 of plain facts in canonical JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, facts: Any) -> None:
    """Writes JSON that appears whole or not at all."""
    write_text(path, _text(facts))


def _text(facts: Any) -> str:
    return json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Writes text that appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def partial(work: Path, name: str) -> Path:
    """Where a file of a window is written until it is whole: a name that no other process writes to."""
    stem, dot, ending = name.partition(".")
    return work / f"{stem}{PARTIAL}-{uuid4().hex}{dot}{ending}"


def settle(work: Path, window: str, files: Mapping[str, Path]) -> Made:
    """Renames a window's partial files into place, and leaves the note that they are whole."""
    made = Made(window, {name: sha256(path) for name, path in files.items()})
    for name, path in files.items():
        os.replace(path, work / name)
    note = partial(work, window + NOTE)
    note.write_text(json.dumps(made._asdict()))
    os.replace(note, work / (window + NOTE))
    return made


def noted(work: Path, window: str) -> Made | None:
    """A window that somebody finished and nobody has written down yet; None where there is none, or it was damaged."""
    try:
        made = _parsed((work / (window + NOTE)).read_text())
    except FileNotFoundError:  # also where it was just written down
        return None
    return made if made and _holds(work, made) else None


class Journal:
    """The work folder of one job: what it is (`key`) and which windows are done."""

    def __init__(self, out: Path, key: str):
        self.out, self.key, self.work = out, key, out / WORK
        self.stage = self.work / "products"
        self._held: IO[str] | None = None
        self._lines = self.work / "windows.jsonl"

    def open(self, *, overwrite: bool, lineage: str = "") -> bool:
        """Makes the folder ready; True when this very job was already delivered and is whole.

        Raises UsageError when OUT holds another job, unless `overwrite`: then our files there, and only ours, are removed. So are
        the products of one of the same `lineage`, whose parts are kept: some may be of this one, too.
        """
        self._take()
        if self._holds_other():
            kin = bool(lineage) and self._held_of("lineage") <= {lineage}
            if not overwrite and not kin:
                raise UsageError(
                    f"{self.out} holds another run: its inputs, parameters or version differ",
                    repair="choose another -o, or --overwrite to replace it",
                    code="other-run",
                )
            remove_products(self.out, parts=not kin)
            self._take()
        if (self.out / SEAL).exists() and not verify(self.out):
            if not lineage or not (self.work / "job.json").exists():
                shutil.rmtree(self.work, ignore_errors=True)
            return True
        shutil.rmtree(self.stage, ignore_errors=True)
        for left in self.work.glob(f"*{PARTIAL}*"):
            left.unlink(missing_ok=True)
        self.stage.mkdir(parents=True)
        write_json(self.work / "job.json", {"key": self.key} | ({"lineage": lineage} if lineage else {}))
        return False

    def close(self) -> None:
        """Lets other processes have the folder."""
        if self._held is not None:
            self._held.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        """Of an input that was replaced nothing is kept, so that the same command maps the new one."""
        if isinstance(error, InputRefusedError) and error.code == "input-changed":
            shutil.rmtree(self.work, ignore_errors=True)
        self.close()

    def _take(self) -> None:
        """Makes the work folder and keeps others out of it while this process lives."""
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self.close()
            self._held = (self.work / "lock").open("a+")
            lock(self._held)
        except BlockingIOError as error:
            raise UsageError(
                f"another run is using {self.out}", repair="wait for it, or choose another -o", code="busy"
            ) from error
        except OSError as error:
            raise UsageError(f"{self.out} cannot be written: {error}", repair="choose another -o", code="unwritable") from error

    def _holds_other(self) -> bool:
        return not self._held_of("key") <= {self.key}

    def _held_of(self, name: str) -> set[str | None]:
        """What unfinished and delivered jobs in OUT say of themselves."""
        told = [read_facts(path) for path in (self.work / "job.json", self.out / "run.json") if path.exists()]
        return {one.get(name) for one in told}

    def part(self, name: str) -> Path:
        """Where a window's file lies once finished."""
        return self.work / name

    def done(self) -> set[str]:
        """Names of the windows that are finished and whose bytes still have their recorded hash."""
        for path in sorted(self.work.glob(f"*{NOTE}")):
            if made := _parsed(path.read_text()):
                self.note(made)
        lines = self._lines.read_bytes().splitlines() if self._lines.exists() else []
        whole = [made for line in lines if (made := _parsed(line)) and _holds(self.work, made)]
        if len(whole) < len(lines):  # what a kill cut off would else be told of for ever (torn)
            write_text(self._lines, "".join(f"{json.dumps(made._asdict())}\n" for made in whole))
        return {made.window for made in whole}

    def note(self, made: Made) -> None:
        """Writes down a window that is finished. Raises UsageError ("not-shared") where its files are not here."""
        if away := [name for name in made.files if not self.part(name).exists()]:
            raise not_shared(self.part(away[0]))
        with self._lines.open("a") as stream:
            stream.write(json.dumps(made._asdict()) + "\n")
        self.part(made.window + NOTE).unlink(missing_ok=True)

    def deliver(self, *, keep: bool = False) -> None:
        """Moves every staged product into OUT, the seal last, and removes the work folder, unless parts are to `keep`: for a run
        of the same lineage."""
        staged = sorted((p for p in self.stage.rglob("*") if p.is_file()), key=lambda p: (p.name == SEAL, str(p)))
        for path in staged:  # on the disk before they are named, and named there before the seal: also where power is cut
            flush(path)
            if path.name == SEAL:
                flush(self.out)
            target = self.out / path.relative_to(self.stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        # A worker that nobody waits for may still write there.
        shutil.rmtree(self.stage if keep else self.work, ignore_errors=True)


def flush(path: Path) -> None:
    """Has a file, or the names in a folder, on the disk. Windows flushes no folder."""
    if path.is_dir() and sys.platform == "win32":
        return
    held = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def lock(stream: IO[str]) -> None:
    """An exclusive lock that ends with the process, however that ends; BlockingIOError where another holds it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(str(error)) from error
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def held(path: Path, seconds: float) -> Iterator[None]:
    """Keeps out all who ask for the same lock, in this process and in others. Raises UsageError ("busy", "unwritable")."""
    deadline = time.monotonic() + seconds
    try:
        stream = path.open("a+")
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be written: {error}", repair="see who owns it", code="unwritable") from error
    with stream:
        while True:
            try:
                lock(stream)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    what = f"somebody else has been writing to {path.parent} for {seconds:g} s"
                    raise UsageError(what, repair="try again", code="busy") from error
                time.sleep(_LOOK_AGAIN_S)
        yield


def _parsed(line: str | bytes) -> Made | None:
    """A journal line; None for one cut off by a kill, whose window is then made again."""
    try:
        entry = json.loads(line)
        return Made(str(entry["window"]), dict(entry["files"]))
    except (ValueError, KeyError, TypeError):
        return None


def _holds(work: Path, made: Made) -> bool:
    """Whether the files of a window are as they were recorded."""
    return all((work / name).exists() and sha256(work / name) == known for name, known in made.files.items())


def not_shared(path: Path) -> UsageError:
    """Workers that do not see the files of this machine."""
    what = f"a worker wrote {path}, and it is not here"
    return UsageError(what, repair="give workers that see the same files under the same paths", code="not-shared")


def verify(out: Path) -> list[str]:
    """What is wrong with a delivered folder, in words; empty when every product has its checksum.

    Raises InputRefusedError when the folder holds no delivered map.
    """
    if not (out / SEAL).exists():
        raise InputRefusedError(f"{out} holds no finished map", repair="give the folder that aftermap map wrote", code="no-map")
    wrong = []
    for name, asset in sorted(assets(out).items()):
        path = out / asset["href"]
        if not path.exists():
            wrong.append(f"{name} is missing")
        elif asset["file:checksum"] != multihash(path):
            wrong.append(f"{name} has changed since it was delivered")
    text = (out / SEAL).read_text(encoding="utf-8")
    item = read_facts(out / SEAL)
    if text != _text(item) or text != _text(sealed(item)):
        wrong.append(f"{SEAL} has changed since it was delivered")
    return wrong + torn(out)


def sealed(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item with a hash of itself among its properties."""
    bare = {k: v for k, v in item.get("properties", {}).items() if k != OWN_SEAL}
    return {**item, "properties": {**bare, OWN_SEAL: digest({**item, "properties": bare})}}


def torn(out: Path) -> list[str]:
    """What is wrong with the journal of a folder, in words: lines that say nothing, or windows that are not as they were."""
    lines = out / WORK / "windows.jsonl"
    said = lines.read_bytes().splitlines() if lines.exists() else []
    return [words for n, line in enumerate(said, 1) if (words := _torn(out / WORK, line, n))]


def _torn(work: Path, line: bytes, number: int) -> str:
    made = _parsed(line)
    if made is None or line.decode() != json.dumps(made._asdict()):
        return f"line {number} of the journal is damaged"
    stray = [name for name in made.files if not name.startswith(f"{made.window}.")]
    return f"window {made.window} of line {number} of the journal has changed" if stray or not _holds(work, made) else ""


def assets(out: Path) -> dict[str, dict[str, Any]]:
    """The sealed files of a delivered folder by name. Raises InputRefusedError ("damaged")."""
    try:
        assets = read_facts(out / SEAL)["assets"]
        found = {str(name): {"href": str(a["href"]), "file:checksum": a["file:checksum"]} for name, a in assets.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(out / SEAL) from error
    for asset in found.values():
        places.refuse_outside(out / asset["href"], out, SEAL)
    return found


def read_facts(path: Path) -> dict[str, Any]:
    """What a file of a delivered folder says. Raises InputRefusedError ("damaged")."""
    try:
        found = plain.read_json(path)
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(found, dict):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> InputRefusedError:
    return InputRefusedError(f"{path} is damaged", repair="map again into another folder", code="damaged")


def multihash(path: Path) -> str:
    """SHA-256 as a multihash, as the STAC file extension wants it."""
    return "1220" + sha256(path)


def remove_products(out: Path, *, parts: bool = True) -> None:
    """Removes a run's own files from OUT: what its seal lists, the seal, the log and, with its `parts`, the work folder; nothing
    else."""
    if (out / SEAL).exists():
        for asset in assets(out).values():
            (out / asset["href"]).unlink(missing_ok=True)
    for name in (SEAL, "run.json", *UNSEALED):
        (out / name).unlink(missing_ok=True)
    if parts:
        shutil.rmtree(out / WORK, ignore_errors=True)


def cache_folder() -> Path:
    """Where what was once tried on this machine is kept."""
    usual = Path.home() / ("AppData/Local" if sys.platform == "win32" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "aftermap"
