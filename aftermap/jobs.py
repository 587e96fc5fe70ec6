"""Images that somebody brought and the maps that are made of them: a folder of jobs, and the queue in it.

FOLDER/<id>/job.json says what a job is; FOLDER/<id>/in holds its images, each in a folder of its own, FOLDER/<id>/out the map.
Nothing is written anywhere else. A job is changed by renaming a new job.json into place, so that whatever ends this process, the
next one finds every job as it was; one that was running waits again, and goes on from the windows that it finished.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aftermap import journal, tiffhead
from aftermap.errors import UnknownNameError, UsageError
from aftermap.job import MB, OPEN, ROLES, Image, Job, JobRefusedError, Limits, bad_request, label, stored, too_large, wrong_state
from aftermap.pieces import HAZARDS

_MOST_COMING, _ABANDONED_S, _PATIENCE_S = 8, 86_400, 30.0


@dataclass
class Coming:
    """A file on its way: where it is written, and how much may come."""

    job: str
    role: str
    label: str
    path: Path
    most: int
    room: str
    """Which limit that is, in words."""
    came: int = 0

    def take(self, count: int) -> None:
        """Counts bytes before they are written. Raises JobRefusedError ("too-large")."""
        self.came += count
        if self.came > self.most:
            raise too_large(self.room)


class Jobs:
    """The jobs of one folder, for one process at a time; may be asked from several threads."""

    def __init__(self, folder: Path, limits: Limits | None = None):
        """Raises UsageError: "busy" where another viewer has the folder, "unwritable"."""
        self.folder, self.limits = folder.absolute(), limits or Limits()
        self.changed = threading.Condition(threading.RLock())
        self._coming: list[Coming] = []
        self._at_work: set[str] = set()
        self._jobs: dict[str, Job] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._held = (self.folder / "lock").open("a+")
            journal.lock(self._held)
        except BlockingIOError as error:
            self._held.close()
            raise UsageError(f"another viewer is using {folder}", repair="give another --jobs", code="busy") from error
        except OSError as error:
            raise UsageError(f"{folder} cannot be written: {error}", repair="give another --jobs", code="unwritable") from error
        self._load()

    def _load(self) -> None:
        for path in self.folder.glob("*/job.json"):
            try:
                job = Job.read(path)
            except (ValueError, TypeError, KeyError, OSError):
                continue  # not ours, or damaged: nothing of it is shown, nothing removed
            for left in path.parent.glob("in/*.partial"):
                left.unlink()
            self._jobs[job.id] = replace(job, state="queued") if job.state == "running" else job

    def close(self) -> None:
        """Lets other processes have the folder."""
        self._held.close()

    def listed(self) -> list[Job]:
        """The latest first."""
        with self.changed:
            return sorted(self._jobs.values(), key=lambda j: (j.made, j.id), reverse=True)

    def get(self, name: str) -> Job:
        """Raises JobRefusedError ("job-unknown")."""
        with self.changed:
            if name not in self._jobs:
                raise JobRefusedError("there is no such job", repair="start a new one", code="job-unknown", status=404)
            return self._jobs[name]

    def home(self, job: Job) -> Path:
        """Its folder."""
        return self.folder / job.id

    def position(self, job: Job) -> int:
        """1 for the next of the queue; 0 where it does not wait."""
        return self._queue().index(job.id) + 1 if job.state == "queued" else 0

    def _queue(self) -> list[str]:
        with self.changed:
            return [j.id for j in sorted(self._jobs.values(), key=lambda j: (j.turn, j.id)) if j.state == "queued"]

    def next(self) -> Job | None:
        """The first of the queue."""
        waiting = self._queue()
        return self._jobs[waiting[0]] if waiting else None

    def change(self, job: Job, **what: Any) -> Job:
        """The job as it is from now on, on disk too."""
        with self.changed:
            new = replace(job, changed=time.time(), **what)
            journal.write_json(self.home(job) / "job.json", asdict(new))
            self._jobs[job.id] = new
            self.changed.notify_all()
            return new

    def lose(self, job: Job, error: OSError) -> None:
        """What could not be written down has failed, as far as this process knows."""
        with self.changed:
            told = {"code": "disk", "what": f"the disk failed: {error}", "repair": "free space or mend the disk, then run again"}
            self._jobs[job.id] = replace(self._jobs[job.id], state="failed", error=told)

    def start(self) -> Job:
        """A job without images. Raises JobRefusedError ("jobs-full", "disk-low")."""
        with self.changed:
            self._forget_abandoned()
            if len(self._jobs) >= self.limits.kept:
                what = f"{self.limits.kept} jobs are kept here, and no more"
                raise JobRefusedError(what, repair="delete one that is no longer needed", code="jobs-full", status=429)
            self._refuse_low_disk(0)
            now = time.time()
            job = Job(secrets.token_hex(8), now, now)
            (self.home(job) / "in").mkdir(parents=True)
            return self.change(job)

    def _forget_abandoned(self) -> None:
        """What was brought and never run, a day later."""
        old = [j for j in self._jobs.values() if j.state in ("uploaded", "checked") and time.time() - j.changed > _ABANDONED_S]
        for job in old:
            if job.id not in self._at_work and all(c.job != job.id for c in self._coming):
                self.delete(job.id)

    def expect(self, name: str, role: str, called: str, length: int | None) -> Coming:
        """Room for a file of `length` bytes, where that is said. Raises JobRefusedError: "job-unknown", "job-state",
        "bad-request", "jobs-full", "too-large", "disk-low"."""
        with self.changed:
            job, limits = self._open(name, wait=False), self.limits
            if role not in ROLES:
                raise bad_request(f"{role[:20]!r} is no role of an image", f"known: {', '.join(ROLES)}")
            mine = [c for c in self._coming if c.job == name]
            if len(job.files) + len(mine) >= limits.files:
                what = f"a job takes {limits.files} files"
                raise JobRefusedError(what, repair="stack bands in one file", code="jobs-full", status=429)
            if len(self._coming) >= _MOST_COMING:
                what = f"{_MOST_COMING} files are coming already"
                raise JobRefusedError(what, repair="try again when they are here", code="jobs-full", status=429)
            rooms = {
                f"{limits.file_mb:,} MB, the most for a file": limits.file_mb * MB,
                f"what is left of {limits.job_mb:,} MB for a job": limits.job_mb * MB - sum(f.bytes for f in job.files)
                - sum(c.most for c in mine),
                f"what is left of {limits.folder_mb:,} MB for all jobs": limits.folder_mb * MB - self.used()
                - sum(c.most for c in self._coming),
            }  # fmt: skip
            room, most = min(rooms.items(), key=lambda one: one[1])
            if most <= 0 or (length or 0) > most:
                raise too_large(room)
            self._refuse_low_disk(length or 0)
            partial = self.home(job) / "in" / f"{secrets.token_hex(8)}.partial"
            coming = Coming(name, role, called, partial, length or most, room)
            self._coming.append(coming)
            return coming

    def keep(self, coming: Coming) -> Image:
        """Makes a file that has come whole one of its job. Raises InputRefusedError as tiffhead.claims does, JobRefusedError."""
        told = tiffhead.claims(coming.path, self.limits.header)
        with self.changed:
            job = self._open(coming.job)
            number = 1 + max((f.number for f in job.files if f.role == coming.role), default=0)
            image = Image(coming.role, number, stored(coming.label), label(coming.label), coming.came, told.width, told.height,
                          told.bands)  # fmt: skip
            target = self.home(job) / image.place
            shutil.rmtree(target.parent, ignore_errors=True)
            target.parent.mkdir()
            coming.path.replace(target)
            self._alter(job, (*job.files, image))
            return image

    def drop(self, coming: Coming) -> None:
        """Gives back its room, and removes what came of it and was not kept."""
        with self.changed:
            self._coming.remove(coming)
        coming.path.unlink(missing_ok=True)

    def remove(self, name: str, role: str, number: int) -> Job:
        """The job without one of its images. Raises JobRefusedError ("job-unknown", "job-state")."""
        with self.changed:
            job = self._open(name)
            gone = [f for f in job.files if (f.role, f.number) == (role, number)]
            if not gone:
                raise JobRefusedError("there is no such file in the job", code="job-unknown", status=404)
            shutil.rmtree((self.home(job) / gone[0].place).parent, ignore_errors=True)
            return self._alter(job, tuple(f for f in job.files if f not in gone))

    def _alter(self, job: Job, files: tuple[Image, ...]) -> Job:
        return self.change(job, files=files, state="uploaded", findings=(), understood=(), error={})

    @contextmanager
    def checking(self, name: str, hazard: str, called: str, declared: Mapping[str, str]) -> Iterator[Job]:
        """While the doctor looks at a job, which stays as it is. Raises JobRefusedError, UnknownNameError."""
        if hazard not in HAZARDS:
            raise UnknownNameError("hazard", hazard, HAZARDS)
        with self.changed:
            job = self._open(name)
            if not any(f.role == "after" for f in job.files):
                raise bad_request("there is no image after the event", "add one")
            said = label(called) if called else ""
            job = self.change(job, hazard=hazard, name=said, declared=dict(declared), findings=(), error={}, state="uploaded")
            self._at_work.add(name)
        with self.working(name):
            yield job

    @contextmanager
    def working(self, name: str) -> Iterator[None]:
        """While a process has the folder of a job, which nobody else changes or removes."""
        with self.changed:
            self._at_work.add(name)
        try:
            yield
        finally:
            with self.changed:
                self._at_work.discard(name)
                self.changed.notify_all()

    def enqueue(self, name: str) -> Job:
        """The job as one that waits. Raises JobRefusedError: "job-state" where the doctor has not seen it or refuses it,
        "jobs-full", "disk-low"."""
        with self.changed:
            job = self._open(name)
            if job.state == "uploaded" or job.refused:
                what = "the images are refused" if job.refused else "the images have not been checked"
                raise wrong_state(what, "see the findings" if job.refused else "check them first")
            if len(self._queue()) >= self.limits.queued:
                what = f"{self.limits.queued} jobs are waiting already"
                raise JobRefusedError(what, repair="try again when one is done", code="jobs-full", status=429)
            self._refuse_low_disk(0)
            return self.change(job, state="queued", turn=time.time(), error={})

    def cancel(self, name: str) -> Job:
        """The job as one that is not run; who runs it ends it. Raises JobRefusedError ("job-unknown", "job-state")."""
        with self.changed:
            job = self.get(name)
            if job.state not in ("queued", "running"):
                raise wrong_state(f"the job is {job.state}", "only what waits or runs can be cancelled")
            return self.change(job, state="cancelled")

    def delete(self, name: str) -> None:
        """Removes a job with its map. Raises JobRefusedError ("job-unknown", "job-state")."""
        with self.changed:
            job = self._free(name)
            if job.state in ("queued", "running"):
                raise wrong_state(f"the job is {job.state}", "cancel it first")
            if any(c.job == name for c in self._coming):
                raise wrong_state("a file of the job is still coming", "end that first")
            del self._jobs[name]
        # job.json goes first: of a folder that was removed by half, nothing is shown.
        (self.home(job) / "job.json").unlink(missing_ok=True)
        shutil.rmtree(self.home(job), ignore_errors=True)

    def _open(self, name: str, *, wait: bool = True) -> Job:
        """A job that may still change; waits for the process that has its folder."""
        job = self._free(name) if wait else self.get(name)
        if job.state not in OPEN:
            raise wrong_state(f"the job is {job.state}", "cancel it, or start a new one")
        return job

    def _free(self, name: str) -> Job:
        """A job that no process has, once that has ended. Raises JobRefusedError ("job-unknown", "job-state")."""
        self.changed.wait_for(lambda: self.get(name).state not in OPEN or name not in self._at_work, _PATIENCE_S)
        job = self.get(name)
        if job.state in OPEN and name in self._at_work:
            raise wrong_state("the job is being worked on", "try again soon")
        return job

    def used(self) -> int:
        """Bytes in the folder."""
        whole = 0
        for home, _, names in os.walk(self.folder):
            for name in names:
                with suppress(FileNotFoundError):  # a run renames and removes its files meanwhile
                    whole += os.lstat(os.path.join(home, name)).st_size
        return whole

    def _refuse_low_disk(self, wanted: int) -> None:
        free = shutil.disk_usage(self.folder).free - wanted
        if free < self.limits.free_mb * MB:
            what = f"the disk has {max(free, 0) // MB:,} MB left, and {self.limits.free_mb:,} are to stay free"
            raise JobRefusedError(what, repair="delete jobs, or make room", code="disk-low", status=507)
