"""The web viewer: delivered maps on a page of this machine. The door to fastapi.

Nobody else is let in by default: it listens on loopback, answers only to its own name (a page elsewhere that points a name of
its own here gets nothing), and on any other address asks for a token. It reads what it was given, and writes corrections.gpkg
beside the map that somebody corrects (correcting.py); and where it was given a folder for jobs, below that (uploads.py). What
changes anything must come from its own page.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from aftermap import correcting, patience, uploads
from aftermap.errors import AftermapError, InputRefusedError, UsageError
from aftermap.hazardmap import HazardMap
from aftermap.job import Limits
from aftermap.jobrun import Runner
from aftermap.jobs import Jobs
from aftermap.shown import MOST_ZOOM, Shown

PAGE = Path(str(files("aftermap").joinpath("static")))
COOKIE = "aftermap-view"
OWN = "X-Aftermap"
"""A header that no page elsewhere can send without asking first, which is refused."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip
_PAGE_FILES = {
    "view.css": "text/css", "view.mjs": "text/javascript", "maplibre-gl.mjs": "text/javascript",
    "maplibre-gl-worker.mjs": "text/javascript", "maplibre-gl.css": "text/css", "correct.mjs": "text/javascript",
    "jobs.mjs": "text/javascript", "jobs.css": "text/css",
}  # fmt: skip
_MOST_HEADERS = 32_768
"""Bytes; a browser sends about a thousand."""
Answer = Any


def shown(folders: Sequence[Path]) -> list[Shown]:
    """The maps of these folders, by time. Raises InputRefusedError ("no-map") where one holds none."""
    found = []
    for folder in folders:
        inner = [p.parent for p in sorted(folder.glob("*/run.json"))] if not (folder / "run.json").exists() else [folder]
        if not inner:
            raise InputRefusedError(f"{folder} holds no map", repair="give the folder that aftermap map wrote", code="no-map")
        found += [HazardMap(one) for one in inner]
    found.sort(key=lambda m: (str(m.made_by["inputs"]["after"].get("acquired") or ""), str(m.folder)))
    return [Shown(str(n), one) for n, one in enumerate(found)]


def application(maps: Sequence[Shown], *, hosts: Sequence[str], token: str = "", runner: Runner | None = None) -> Any:
    """The page and what it asks for. `hosts` are the names that it answers to; with a token, only to those who bring it. With a
    runner it takes images and maps them."""
    fastapi, responses = _fastapi()
    app = fastapi.FastAPI(title="aftermap", docs_url=None, redoc_url=None, openapi_url=None)

    async def guard(request: Any, call_next: Callable[[Any], Awaitable[Answer]]) -> Answer:
        refused = _refused(request, hosts, token)
        answer = responses.JSONResponse({"error": refused}, 403) if refused else await call_next(request)
        answer.headers.update(_HEADERS | ({"Connection": "close"} if refused else {}))
        if token and not refused and request.query_params.get("token") == token:
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return answer

    async def tell(_: Any, error: AftermapError) -> Answer:
        status = getattr(error, "status", 422 if isinstance(error, InputRefusedError) else 404)
        return responses.JSONResponse({"error": error.what, "repair": error.repair, "code": error.code}, status)

    gallery = uploads.Gallery(maps, runner) if runner else maps
    for path, act in (_pages() | _answers(gallery)).items():
        app.add_api_route(path, act, response_model=None)
    for path, act in correcting.writing(_finder(gallery)).items():
        app.add_route(path, act, methods=["POST"])
    app.add_api_route("/api/offers", lambda: {"jobs": runner is not None}, response_model=None)
    app.router.routes.extend(uploads.routes(runner) if runner else [])
    app.middleware("http")(guard)
    app.add_exception_handler(AftermapError, tell)
    for kind, words in _faults().items():
        app.add_exception_handler(kind, words)
    return app


def _faults() -> dict[Any, Callable[..., Any]]:
    """How the web's own faults are told, by kind: in words, and never with what was sent."""
    _, responses = _fastapi()
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    async def refused(_: Any, error: Any) -> Answer:
        return responses.JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)

    async def invalid(_: Any, error: Any) -> Answer:
        names = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        return responses.JSONResponse({"error": f"not understood: {names[:100]}"}, 422)

    return {HTTPException: refused, RequestValidationError: invalid}


def _pages() -> dict[str, Callable[..., Answer]]:
    """The page and its files, by path."""
    fastapi, responses = _fastapi()

    def page() -> Answer:
        return responses.FileResponse(PAGE / "view" / "index.html", media_type="text/html")

    def static(name: str) -> Answer:
        if name not in _PAGE_FILES:
            raise fastapi.HTTPException(404, "there is no such file")
        own = PAGE / "view" / name
        path = own if own.is_file() else PAGE / "vendor/maplibre-gl" / name
        return responses.FileResponse(path, media_type=_PAGE_FILES[name])

    return {"/": page, "/static/{name}": static}


def _finder(maps: Sequence[Shown]) -> Callable[[str], Shown]:
    """The map of a name; another is a 404."""
    fastapi, _ = _fastapi()

    def find(name: str) -> Shown:
        found = next((one for one in maps if one.id == name), None)
        if found is None:
            raise fastapi.HTTPException(404, f"there is no map {name[:20]!r}")
        return found

    return find


def _answers(maps: Sequence[Shown]) -> dict[str, Callable[..., Answer]]:
    """What the page asks of the maps, by path."""
    fastapi, responses = _fastapi()
    find = _finder(maps)

    def listed() -> list[dict[str, Any]]:
        return [one.facts() for one in maps]

    def levels(name: str) -> list[float]:
        return find(name).levels

    def photo(name: str, date: str) -> Answer:
        kind, data = find(name).photo(date)
        return responses.Response(data, media_type=kind)

    def tile(name: str, layer: str, z: int, x: int, y: int, threshold: float | None = None) -> Answer:
        if not (0 <= z <= MOST_ZOOM and 0 <= x < 2**z and 0 <= y < 2**z):
            raise fastapi.HTTPException(404, "there is no such tile")
        if threshold is not None and not 0 <= threshold <= 100:
            raise fastapi.HTTPException(422, "threshold is in percent, 0 to 100")
        data = find(name).tile(layer, z, x, y, threshold=threshold)
        return responses.Response(data, 200 if data else 204, media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    def outlines(name: str, layer: str, bbox: str) -> dict[str, Any]:
        return find(name).outlines(layer, _box(bbox, fastapi))

    own: dict[str, Callable[..., Answer]] = {
        "/api/maps": listed, "/api/maps/{name}/levels": levels, "/api/maps/{name}/photo/{date}": photo,
        "/api/maps/{name}/tiles/{layer}/{z}/{x}/{y}.png": tile, "/api/maps/{name}/outlines/{layer}": outlines,
    }  # fmt: skip
    return own | correcting.answers(find)


def _box(said: str, fastapi: Any) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = map(float, said.split(","))
    except ValueError as error:
        raise fastapi.HTTPException(422, "bbox is west,south,east,north") from error
    if not (-720 <= west < east <= 720 and -90 <= south < north <= 90):  # a page that lies across the antimeridian goes on
        raise fastapi.HTTPException(422, "bbox is west,south,east,north in degrees")
    return west, south, east, north


def _refused(request: Any, hosts: Sequence[str], token: str) -> str:
    """Why a request is not let in, in words; empty where it is."""
    if sum(len(key) + len(value) for key, value in request.headers.raw) > _MOST_HEADERS:
        return "the headers of the request are too long"
    if "content-length" in request.headers and "transfer-encoding" in request.headers:
        return "the request states its length in two ways"  # a server in front may believe the other one
    name = str(request.headers.get("host", "")).rsplit(":", 1)[0].strip("[]").lower()
    if name not in hosts:
        return "this viewer answers only to its own name"
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "pages elsewhere are not let in"
    brought = (request.query_params.get("token", ""), request.cookies.get(COOKIE, ""))
    if token and not any(secrets.compare_digest(one.encode(), token.encode()) for one in brought):
        return "the token is missing or wrong"
    if request.method not in ("GET", "HEAD"):
        if request.headers.get(OWN) is None:
            return f"what changes anything brings the header {OWN}, as the page does"
        if (origin := request.headers.get("origin")) is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return "pages elsewhere are not let in"
    return ""


def serve(
    folders: Sequence[Path], *, host: str = "127.0.0.1", port: int = 0, token: str = "", jobs: Path | None = None,
    limits: Limits | None = None, ready: Callable[[str], None],
) -> None:  # fmt: skip
    """Shows the maps until interrupted; `ready` is told the address. With a folder for `jobs` it also takes images and maps them.

    Raises UsageError ("usage", "port", "extra-missing", "busy", "unwritable"), InputRefusedError ("no-map").
    """
    _fastapi()
    if not folders and jobs is None:
        raise UsageError("there is nothing to look at", repair="give the folder of a map, or --jobs FOLDER to make maps here")
    maps = shown(folders)
    if not _loopback(host) and len(token) < 16:
        repair = "give --token with at least 16 characters, or leave --host out"
        raise UsageError(f"--host {host} lets other machines in", repair=repair)
    names = ["localhost", "127.0.0.1", "::1"] if _loopback(host) else [host.lower()]
    try:
        sock = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be listened on: {error}", repair="give another --port", code="port") from error
    limits = limits or Limits()
    Thread(target=_ahead, args=(maps,), daemon=True).start()
    with sock, _running(jobs, limits) as runner:
        app = application(maps, hosts=names, token=token, runner=runner)
        shape = f"[{host}]" if ":" in host else host
        ready(f"http://{shape}:{sock.getsockname()[1]}/{f'?token={token}' if token else ''}")
        patience.server(app, idle_s=limits.idle_seconds).run(sockets=[sock])


def _ahead(maps: Sequence[Shown]) -> None:
    """The first view of the map that is shown first."""
    with suppress(AftermapError, OSError, RuntimeError):  # who asks for the tile is told
        if maps:
            maps[0].ahead()


@contextmanager
def _running(folder: Path | None, limits: Limits) -> Iterator[Runner | None]:
    """Who runs the jobs of a folder; None without one."""
    if folder is None:
        yield None
        return
    runner = Runner(Jobs(folder, limits))
    runner.start()
    try:
        yield runner
    finally:
        runner.stop()


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _fastapi() -> tuple[Any, Any]:
    try:
        import fastapi
        import fastapi.responses
        import rio_tiler  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        what = f"{error.name}, which the viewer needs, is not installed"
        raise UsageError(what, repair='pip install "aftermap[view]"', code="extra-missing") from error
    return fastapi, fastapi.responses
