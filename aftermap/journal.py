"""Finished windows by content hash, atomic outputs, and the check that a delivered folder is whole.

A run writes into OUT/.work only: one small file a window, and a line in windows.jsonl with its SHA-256 once it is complete.
Delivery renames the finished products into OUT and item.json, which holds their checksums, last of all: where item.json is,
the folder is whole. Killed at any moment, the same command goes on from the windows whose hashes still hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from aftermap.errors import InputRefusedError, UsageError

WORK = ".work"
SEAL = "item.json"
"""The product that is delivered last; it holds the checksums of the others."""
UNSEALED = ("log.json",)
"""Timings and host: outside every checksum."""


def sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(facts: Any) -> str:
    """SHA-256 of plain facts in canonical JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, facts: Any) -> None:
    """Writes JSON that appears whole or not at all."""
    write_text(path, json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text that appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


class Journal:
    """The work folder of one job: what it is (`key`) and which windows are done."""

    def __init__(self, out: Path, key: str):
        self.out, self.key, self.work = out, key, out / WORK
        self.stage = self.work / "products"
        self._held: IO[str] | None = None
        self._lines = self.work / "windows.jsonl"

    def open(self, *, overwrite: bool, lineage: str = "") -> bool:
        """Makes the folder ready; True when this very job was already delivered and is whole.

        Raises UsageError when OUT holds another job, unless `overwrite` or that is of the same `lineage`: then our files there,
        and only ours, are removed.
        """
        self._take()
        if self._holds_other():
            if not overwrite and not (lineage and self._held_of("lineage") <= {lineage}):
                raise UsageError(
                    f"{self.out} holds another run: its inputs, parameters or version differ",
                    repair="choose another -o, or --overwrite to replace it",
                    code="other-run",
                )
            remove_products(self.out)
            self._take()
        if (self.out / SEAL).exists() and not verify(self.out):
            shutil.rmtree(self.work, ignore_errors=True)
            return True
        shutil.rmtree(self.stage, ignore_errors=True)
        self.stage.mkdir(parents=True)
        write_json(self.work / "job.json", {"key": self.key} | ({"lineage": lineage} if lineage else {}))
        return False

    def close(self) -> None:
        """Lets other processes have the folder."""
        if self._held is not None:
            self._held.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> None:
        """Makes the work folder and keeps others out of it while this process lives."""
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self.close()
            self._held = (self.work / "lock").open("a+")
            _lock(self._held)
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
        told = [json.loads(path.read_text()) for path in (self.work / "job.json", self.out / "run.json") if path.exists()]
        return {one.get(name) for one in told}

    def part(self, name: str) -> Path:
        """Where a window's file lies once finished."""
        return self.work / name

    def done(self) -> set[str]:
        """Names of the windows that are finished and whose bytes still have their recorded hash."""
        if not self._lines.exists():
            return set()
        good = set()
        for line in self._lines.read_text().splitlines():
            entry = _parsed(line)
            if entry and all((self.work / f).exists() and sha256(self.work / f) == h for f, h in entry["files"].items()):
                good.add(str(entry["window"]))
        return good

    def finish(self, window: str, files: Mapping[str, Path]) -> None:
        """Renames a window's partial files into place and notes their hashes."""
        hashes = {name: sha256(partial) for name, partial in files.items()}
        for name, partial in files.items():
            os.replace(partial, self.work / name)
        with self._lines.open("a") as stream:
            stream.write(json.dumps({"window": window, "files": hashes}) + "\n")

    def deliver(self) -> None:
        """Moves every staged product into OUT, the seal last, and removes the work folder."""
        staged = sorted((p for p in self.stage.rglob("*") if p.is_file()), key=lambda p: (p.name == SEAL, str(p)))
        for path in staged:
            target = self.out / path.relative_to(self.stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        shutil.rmtree(self.work)


def _lock(stream: IO[str]) -> None:
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


def _parsed(line: str) -> dict[str, Any] | None:
    """A journal line; None for one cut off by a kill, whose window is then made again."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) and "files" in entry else None


def verify(out: Path) -> list[str]:
    """What is wrong with a delivered folder, in words; empty when every product has its checksum.

    Raises InputRefusedError when the folder holds no delivered map.
    """
    if not (out / SEAL).exists():
        raise InputRefusedError(f"{out} holds no finished map", repair="give the folder that aftermap map wrote", code="no-map")
    wrong = []
    for name, asset in sorted(_assets(out).items()):
        path = out / asset["href"]
        if not path.exists():
            wrong.append(f"{name} is missing")
        elif asset["file:checksum"] != multihash(path):
            wrong.append(f"{name} has changed since it was delivered")
    return wrong


def _assets(out: Path) -> dict[str, dict[str, Any]]:
    """The sealed files of a delivered folder."""
    try:
        assets = json.loads((out / SEAL).read_text())["assets"]
        return {str(name): {"href": str(a["href"]), "file:checksum": a["file:checksum"]} for name, a in assets.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputRefusedError(f"{out / SEAL} is damaged", repair="map again into another folder", code="damaged") from error


def multihash(path: Path) -> str:
    """SHA-256 as a multihash, as the STAC file extension wants it."""
    return "1220" + sha256(path)


def remove_products(out: Path) -> None:
    """Removes a run's own files from OUT: what its seal lists, the seal, the log and the work folder; nothing else."""
    if (out / SEAL).exists():
        for asset in _assets(out).values():
            (out / asset["href"]).unlink(missing_ok=True)
    for name in (SEAL, "run.json", *UNSEALED):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / WORK, ignore_errors=True)


def cache_folder() -> Path:
    """Where what was once tried on this machine is kept."""
    usual = Path.home() / ("AppData/Local" if sys.platform == "win32" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "aftermap"
