"""What the viewer takes in: images brought by a page, jobs, and the files that they made. Door: starlette, beneath fastapi.

Every name in a path is looked up, none is opened; a body is counted as it comes, and whatever breaks off leaves nothing.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aftermap.errors import InputRefusedError
from aftermap.hazardmap import HazardMap
from aftermap.job import DECLARED, Job, JobRefusedError, bad_request
from aftermap.jobrun import Runner
from aftermap.jobs import Coming
from aftermap.journal import SEAL, UNSEALED, assets
from aftermap.pieces import HAZARDS
from aftermap.shown import Shown
from aftermap.tiffhead import refuse_start

_MOST_JSON, _MOST_WORDS = 16_384, 200
_CHUNK = 1 << 16
Answer = Any


class Gallery(Sequence[Shown]):
    """The maps that were given, and those of finished jobs as they come and go."""

    def __init__(self, given: Sequence[Shown], runner: Runner):
        self._given, self._runner = tuple(given), runner
        self._made: dict[str, Shown] = {}

    def _now(self) -> tuple[Shown, ...]:
        done = [job for job in reversed(self._runner.jobs.listed()) if job.state == "done"]
        found = {}
        for job in done:
            try:
                known = self._made.get(job.id)
                found[job.id] = known or Shown(f"job-{job.id}", HazardMap(self._runner.jobs.home(job) / "out"))
            except InputRefusedError:
                continue  # somebody removed it by hand
        self._made = found
        return (*self._given, *found.values())

    def __len__(self) -> int:
        return len(self._now())

    def __getitem__(self, at: Any) -> Any:
        return self._now()[at]

    def __iter__(self) -> Iterator[Shown]:
        return iter(self._now())


def routes(runner: Runner) -> list[Any]:
    """The routes of starlette, all below /api/jobs."""
    from starlette.routing import Route

    acts = _Acts(runner)
    return [
        Route("/api/jobs", acts.listed, methods=["GET"]),
        Route("/api/jobs", acts.start, methods=["POST"]),
        Route("/api/jobs/{id}", acts.told, methods=["GET"]),
        Route("/api/jobs/{id}", acts.delete, methods=["DELETE"]),
        Route("/api/jobs/{id}/files/{role}", acts.receive, methods=["PUT"]),
        Route("/api/jobs/{id}/files/{role}/{number}", acts.remove, methods=["DELETE"]),
        Route("/api/jobs/{id}/check", acts.check, methods=["POST"]),
        Route("/api/jobs/{id}/run", acts.run, methods=["POST"]),
        Route("/api/jobs/{id}/cancel", acts.cancel, methods=["POST"]),
        Route("/api/jobs/{id}/products.zip", acts.packed, methods=["GET"]),
        Route("/api/jobs/{id}/products/{name:path}", acts.product, methods=["GET"]),
    ]


class _Acts:
    """What is done for each path."""

    def __init__(self, runner: Runner):
        self.runner, self.jobs = runner, runner.jobs

    async def listed(self, _: Any) -> Answer:
        def tell() -> dict[str, Any]:
            limits = asdict(self.jobs.limits)
            return {"hazards": list(HAZARDS), "limits": limits, "jobs": [self._facts(job) for job in self.jobs.listed()]}

        return await _json(tell)

    async def start(self, _: Any) -> Answer:
        return await _json(lambda: self._facts(self.jobs.start()), 201)

    async def told(self, request: Any) -> Answer:
        return await _json(lambda: self._facts(self._job(request)))

    async def delete(self, request: Any) -> Answer:
        def gone() -> dict[str, Any]:
            self.jobs.delete(request.path_params["id"])
            return {"deleted": request.path_params["id"]}

        return await _json(gone)

    async def remove(self, request: Any) -> Answer:
        said = request.path_params
        number = int(said["number"]) if said["number"].isascii() and said["number"].isdigit() and len(said["number"]) < 5 else 0
        return await _json(lambda: self._facts(self.jobs.remove(said["id"], said["role"], number)))

    async def check(self, request: Any) -> Answer:
        said = await self._said(request, ("hazard", "name", *DECLARED))
        declared = {name: said[name] for name in DECLARED if said.get(name)}
        id_ = request.path_params["id"]
        return await _json(
            lambda: self._facts(self.runner.check(id_, said.get("hazard", HAZARDS[0]), said.get("name", ""), declared))
        )

    async def run(self, request: Any) -> Answer:
        return await _json(lambda: self._facts(self.jobs.enqueue(request.path_params["id"])))

    async def cancel(self, request: Any) -> Answer:
        return await _json(lambda: self._facts(self.jobs.cancel(request.path_params["id"])))

    async def receive(self, request: Any) -> Answer:
        """Raises JobRefusedError ("too-large", "upload-slow", "upload-broken"), and as Jobs.expect and Jobs.keep do."""
        from starlette.concurrency import run_in_threadpool

        said, called = request.path_params, request.query_params.get("name", "")
        length = request.headers.get("content-length")
        coming = await run_in_threadpool(self.jobs.expect, said["id"], said["role"], called, int(length) if length else None)
        try:
            await self._written(request, coming)
            image = await run_in_threadpool(self.jobs.keep, coming)
        finally:
            self.jobs.drop(coming)
        return await _json(lambda: {"file": asdict(image), "job": self._facts(self.jobs.get(coming.job))}, 201)

    async def _written(self, request: Any, coming: Coming) -> None:
        start = b""
        with coming.path.open("xb") as out:
            async for chunk in self._body(request, 60 * self.jobs.limits.upload_minutes):
                coming.take(len(chunk))
                start = (start + chunk)[:8] if len(start) < 8 else start
                refuse_start(start)
                out.write(chunk)

    async def _body(self, request: Any, seconds: float) -> AsyncIterator[bytes]:
        from starlette.requests import ClientDisconnect

        stream, deadline = request.stream(), time.monotonic() + seconds
        while True:
            try:
                idle = min(self.jobs.limits.idle_seconds, deadline - time.monotonic())
                yield await asyncio.wait_for(anext(stream), max(idle, 0))
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                what = "the request comes too slowly"
                raise JobRefusedError(what, repair="try again, nearer by", code="upload-slow", status=408) from error
            except ClientDisconnect as error:
                what = "the request broke off"
                raise JobRefusedError(what, repair="send it again", code="upload-broken", status=400) from error

    async def _said(self, request: Any, known: Sequence[str]) -> dict[str, str]:
        """A flat JSON object of words. Raises JobRefusedError ("bad-request")."""
        data = b""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise bad_request("the request is no JSON", "send Content-Type: application/json")
        async for chunk in self._body(request, self.jobs.limits.idle_seconds):
            data += chunk
            if len(data) > _MOST_JSON:
                raise bad_request("the request is too long", f"send at most {_MOST_JSON:,} bytes")
        try:
            said = json.loads(data or b"{}")
        except (ValueError, RecursionError) as error:
            raise bad_request("the request is no JSON", "send one object of names and words") from error
        if not isinstance(said, dict) or not all(isinstance(v, str) and len(v) <= _MOST_WORDS for v in said.values()):
            raise bad_request("the request is no object of words", f"send names and words of at most {_MOST_WORDS} characters")
        if strange := [name for name in said if name not in known]:
            raise bad_request(f"{strange[0][:20]!r} is nothing to be said of a job", f"known: {', '.join(known)}")
        if any(not word.isprintable() or _lone(word) for word in said.values()):
            raise bad_request("there are control characters in the words", "leave them out")
        return said

    def _job(self, request: Any) -> Job:
        return self.jobs.get(request.path_params["id"])

    def _facts(self, job: Job) -> dict[str, Any]:
        """What the page says of a job."""
        return {
            **asdict(job), "refused": job.refused, "position": self.jobs.position(job),
            "progress": self.runner.progress(job) if job.state == "running" else {},
            "map": f"job-{job.id}" if job.state == "done" else "",
            "products": {name: size for name, (_, size) in self._products(job).items()},
        }  # fmt: skip

    def _products(self, job: Job) -> dict[str, tuple[Path, int]]:
        """Delivered files by name: what the seal lists, the seal and the log."""
        out = self.jobs.home(job) / "out"
        if job.state != "done":
            return {}
        try:
            paths = {name: out / name for name in (*sorted(assets(out)), SEAL, *UNSEALED)}
        except (InputRefusedError, OSError):
            return {}
        return {name: (path, path.stat().st_size) for name, path in paths.items() if path.is_file()}

    async def product(self, request: Any) -> Answer:
        from starlette.responses import FileResponse

        path, _ = self._products(self._job(request)).get(request.path_params["name"], (None, 0))
        if path is None:
            raise _no_product()
        # Never shown in this origin: a report is a page of its own.
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    async def packed(self, request: Any) -> Answer:
        from starlette.responses import StreamingResponse

        job = self._job(request)
        if not (held := self._products(job)):
            raise _no_product()
        name = f"attachment; filename=map-{job.id}.zip"
        paths = {n: path for n, (path, _) in held.items()}
        return StreamingResponse(_zipped(paths), media_type="application/zip", headers={"Content-Disposition": name})


def _lone(word: str) -> bool:
    """Half of a surrogate pair, which no file takes."""
    return any(0xD800 <= ord(c) < 0xE000 for c in word)


def _no_product() -> JobRefusedError:
    return JobRefusedError("there is no such file", repair="see the list of the job", code="job-unknown", status=404)


async def _json(act: Callable[[], Mapping[str, Any]], status: int = 200) -> Answer:
    """What `act` gives, in a thread of its own: it may read disks and wait."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse

    return JSONResponse(await run_in_threadpool(act), status, headers={"Cache-Control": "no-store"})


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self.held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.held += data
        return len(data)

    def taken(self) -> bytes:
        held, self.held = bytes(self.held), bytearray()
        return held


def _zipped(paths: Mapping[str, Path]) -> Iterator[bytes]:
    """A zip as it is made, never whole in memory or on disk; what is packed already is not packed again."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as pack:
        for name, path in paths.items():
            entry = zipfile.ZipInfo.from_file(path, name)
            with path.open("rb") as source, pack.open(entry, "w") as target:
                while data := source.read(_CHUNK):
                    target.write(data)
                    yield sink.taken()
    yield sink.taken()
