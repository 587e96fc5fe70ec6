"""Runs jobs, one at a time, each in a process of its own (jobwork.py): what it does to itself, it does not do to the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aftermap.job import Job, JobRefusedError, Limits
from aftermap.jobs import Jobs
from aftermap.jobwork import PROGRESS

WORK = (sys.executable, "-P", "-m", "aftermap.jobwork")
_ALONE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO", "GDAL_GEOREF_SOURCES": "INTERNAL",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none", "PYTHONIOENCODING": "utf-8",
}  # fmt: skip
"""GDAL reads what stands in the file itself, and nothing beside it or elsewhere."""
_POLL_S, _GRACE_S, _BUSY_S = 0.1, 10.0, 15.0
_MOST_SAID = 1 << 20


class Runner:
    """The one who takes jobs from the queue, in a thread of its own from `start` to `stop`."""

    def __init__(self, jobs: Jobs, *, work: Sequence[str] = WORK):
        self.jobs, self.work = jobs, tuple(work)
        self._stopping = threading.Event()
        self._one_check = threading.Semaphore(1)
        self._thread = threading.Thread(target=self._go, name="jobs", daemon=True)

    def start(self) -> None:
        """Begins with what the last process left."""
        self._thread.start()

    def stop(self) -> None:
        """Ends what runs, which the next process goes on with."""
        self._stopping.set()
        with self.jobs.changed:
            self.jobs.changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_GRACE_S + 5)
        self.jobs.close()

    def check(self, name: str, hazard: str, called: str, declared: Mapping[str, str]) -> Job:
        """The job with the doctor's findings. Raises JobRefusedError as Jobs.checking does, and "jobs-full" where another is
        being looked at for long; UnknownNameError."""
        limits = self.jobs.limits
        if not self._one_check.acquire(timeout=limits.check_seconds):
            raise JobRefusedError("other images are being checked", repair="try again soon", code="jobs-full", status=429)
        try:
            with self.jobs.checking(name, hazard, called, declared) as job:
                told = self._work("check", job, limits.check_seconds, lambda: self._stopping.is_set())
                if error := told.get("error"):
                    finding = {"severity": "refuse", "where": "", **error}
                    return self.jobs.change(job, state="checked", findings=(finding,), understood=())
                return self.jobs.change(
                    job, state="checked", findings=tuple(told["findings"]), understood=tuple(told["understood"])
                )
        finally:
            self._one_check.release()

    def progress(self, job: Job) -> dict[str, Any]:
        """Stage and how much of it is done, of how much; empty where nothing is known."""
        try:
            told = json.loads((self.jobs.home(job) / PROGRESS).read_text())
            return {"stage": str(told["stage"]), "done": int(told["done"]), "whole": int(told["whole"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _go(self) -> None:
        while not self._stopping.is_set():
            with ExitStack() as held:
                with self.jobs.changed:
                    job = self.jobs.next()
                    if job is None:
                        self.jobs.changed.wait(1)
                        continue
                    held.enter_context(self.jobs.working(job.id))
                try:
                    self._run(self.jobs.change(job, state="running"))
                except OSError as error:
                    self.jobs.lose(job, error)

    def _run(self, job: Job) -> None:
        def unwanted() -> bool:
            return self._stopping.is_set() or self.jobs.get(job.id).state != "running"

        started = time.monotonic()
        told = self._work("map", job, 60 * self.jobs.limits.run_minutes, unwanted)
        while told.get("error", {}).get("code") == "busy" and time.monotonic() - started < _BUSY_S and not unwanted():
            time.sleep(0.5)  # the process of a viewer that was killed still ends
            told = self._work("map", job, 60 * self.jobs.limits.run_minutes, unwanted)
        with self.jobs.changed:
            if unwanted():
                return
            if "error" in told:
                self.jobs.change(job, state="failed", error=told["error"])
            else:
                self.jobs.change(job, state="done", answer=told["answer"])

    def _work(self, verb: str, job: Job, seconds: float, unwanted: Callable[[], bool]) -> dict[str, Any]:
        """What the process says; {"error": ...} where it says nothing good."""
        home, limits = self.jobs.home(job), self.jobs.limits
        (home / PROGRESS).unlink(missing_ok=True)
        said = home / f"{verb}-said.json"
        command = [*self.work, verb, str(home), json.dumps(asdict(limits))]
        with said.open("wb") as out, (home / f"{verb}-log.txt").open("wb") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=log, env=os.environ | _ALONE, start_new_session=True
            )  # in a session of its own, a Ctrl-C is not for it
            late = _await(child, seconds, unwanted)
        return _too_long(verb, limits) if late else _told(said, verb, child.returncode)


def _await(child: subprocess.Popen[bytes], seconds: float, unwanted: Callable[[], bool]) -> bool:
    """Waits for a process to end, or ends it; True where its time was up."""
    deadline, late = time.monotonic() + seconds, False
    try:
        while child.poll() is None and not unwanted() and not late:
            late = time.monotonic() > deadline
            time.sleep(_POLL_S)
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
        child.wait()
    finally:
        assert child.stdin is not None
        child.stdin.close()
    return late


def _too_long(verb: str, limits: Limits) -> dict[str, Any]:
    allowed = f"{limits.check_seconds} s that a check" if verb == "check" else f"{limits.run_minutes:,} minutes that a job"
    what, repair = f"it took longer than the {allowed} has here", "cut the images to the event, or write them in tiles"
    return {"error": _words(what, repair, code="job-slow")}


def _told(said: Path, verb: str, status: int) -> dict[str, Any]:
    try:
        with said.open("rb") as stream:
            told = json.loads(stream.read(_MOST_SAID))
        wanted = ("answer",) if verb == "map" else ("findings", "understood")
        if isinstance(told, dict) and ("error" in told or all(name in told for name in wanted)):
            return told
    except (OSError, ValueError):
        pass
    what = f"the process that worked on the images ended without a word ({status}); mostly they need more memory than there is"
    return {"error": _words(what, "cut them to the event, or look whether the files are whole", code="job-crashed")}


def _words(what: str, repair: str, *, code: str) -> dict[str, str]:
    return {"code": code, "what": what, "repair": repair}
