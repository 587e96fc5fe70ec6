"""A STAC API on loopback over items in memory, and their files by byte range; with faults and signed addresses on request."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import attr
from fastapi import HTTPException
from shapely.geometry import shape
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import ItemCollectionUri, create_get_request_model, create_post_request_model, create_request_model
from stac_fastapi.extensions import QueryExtension, SortExtension, TokenPaginationExtension
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import AsyncBaseCoreClient
from stac_fastapi.types.errors import InvalidQueryParameter, NotFoundError
from stac_fastapi.types.links import CollectionLinks, ItemLinks
from starlette.requests import Request
from starlette.responses import Response
from uvicorn import Config
from uvicorn import Server as Uvicorn

from tests.stac_search import Item, matches, ordered

PAGE = 10
"""Items on the longest page, whatever the client asks for: who does not follow the next link misses some."""
_SORT = "https://api.stacspec.org/v1.0.0/item-search#sort"
"""As the public catalogs say it; pystac-client does not know 1.1.0."""


@dataclass
class Faults:
    """What goes wrong; may be changed while the server runs.

    A share is drawn from the seed, the path, the range and how often that was asked before: the order in which threads
    ask changes nothing, and a second try is another draw.
    """

    busy: float = 0.0
    """Share of file requests that answer 503."""
    hang: float = 0.0
    """Share of file requests that say nothing for `hang_s` seconds, then answer as if nothing were."""
    hang_s: float = 30.0
    missing: set[str] = field(default_factory=set)
    """Parts of paths that answer 404."""
    broken: set[str] = field(default_factory=set)
    """Parts of paths that answer 500."""
    truncated: dict[str, float] = field(default_factory=dict)
    """Parts of paths to the share of bytes that the file behind them still has; ranges past that end answer 416."""
    api_down: int = 0
    """Searches that answer 503 before one is answered."""
    token_s: float = 3600.0
    """Seconds for which a token that is given out from now on is good."""
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """How often each of them struck, by the name of its field; "unsigned" counts refused addresses."""


class Asked(NamedTuple):
    """A request for a file: its path under the folder, Range header ("" for none), status, and bytes of the answer's body."""

    path: str
    range: str
    status: int
    sent: int


@dataclass
class Server:
    """A running server; `requests` and `searches` grow while it runs, and may be cleared."""

    folder: Path
    items: list[Item]
    collections: list[dict[str, Any]]
    faults: Faults
    signed: bool
    page: int
    url: str = ""
    """Root of the API, without a slash at its end."""
    requests: list[Asked] = field(default_factory=list)
    searches: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    """What each page of a search was asked with, and its status."""
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    _tries: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def files(self) -> str:
        """Base of the files' addresses."""
        return f"{self.url}/files"

    @property
    def sas(self) -> str:
        """Base of the token service."""
        return f"{self.url}/sas/v1/token"

    @property
    def sent(self) -> int:
        """Bytes of files that were sent."""
        return sum(request.sent for request in self.requests)

    async def token(self, request: Request) -> dict[str, str]:
        """A token for the files of one collection, as a query string and when it ends."""
        collection = request.path_params["collection"]
        if all(known["id"] != collection for known in self.collections):
            raise NotFoundError(f"no collection {collection}")
        key, ends = secrets.token_urlsafe(16), time.time() + self.faults.token_s
        self._tokens[key] = (collection, ends)
        expiry = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"msft:expiry": expiry, "token": f"se={quote(expiry, safe='')}&sp=rl&sig={key}"}

    async def file(self, request: Request) -> Response:
        """Bytes of a file under the folder, or what the faults make of it."""
        path, wanted = request.path_params["path"], request.headers.get("range", "")
        answer = await self._file(path, wanted, request)
        self.requests.append(Asked(path, wanted, answer.status_code, len(answer.body)))
        return answer

    async def _file(self, path: str, wanted: str, request: Request) -> Response:
        faults = self.faults
        draw = zlib.crc32(f"{faults.seed}/{path}/{wanted}/{self._tries[path, wanted]}".encode()) / 2**32
        self._tries[path, wanted] += 1
        if draw < faults.busy:
            return self._struck("busy", 503)
        if draw < faults.busy + faults.hang:
            faults.counts["hang"] += 1
            await _silent(faults.hang_s, request)
        for name, status in (("missing", 404), ("broken", 500)):
            if any(part in path for part in getattr(faults, name)):
                return self._struck(name, status)
        if self.signed and not self._opens(request.query_params.get("sig", ""), path):
            return self._struck("unsigned", 403)
        target = (self.folder / path).resolve()
        if not target.is_relative_to(self.folder.resolve()) or not target.is_file():
            return Response(status_code=404)
        size = whole = target.stat().st_size
        for part, share in faults.truncated.items():
            if part in path:
                faults.counts["truncated"] += 1
                size = min(size, int(whole * share))
        return _bytes(target, size, wanted, head=request.method == "HEAD")

    def _struck(self, fault: str, status: int) -> Response:
        self.faults.counts[fault] += 1
        return Response(status_code=status)

    def _opens(self, key: str, path: str) -> bool:
        """True where the token is good for the collection that the file belongs to; a file of no item opens by any."""
        collection, ends = self._tokens.get(key, ("", 0.0))
        owners = {item["collection"] for item in self.items if any(path == a["href"] for a in item["assets"].values())}
        return time.time() < ends and (not owners or collection in owners)


async def _silent(seconds: float, request: Request) -> None:
    """Waits, but not for a client that went away."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not await request.is_disconnected():
        await asyncio.sleep(0.02)


def _bytes(path: Path, size: int, wanted: str, *, head: bool) -> Response:
    """The first `size` bytes of a file, or a range of them."""
    modified = path.stat().st_mtime
    headers = {"Accept-Ranges": "bytes", "Last-Modified": formatdate(modified, usegmt=True), "ETag": f'"{modified:.6f}-{size}"'}
    first, end = 0, size
    # Several ranges at once are answered with the whole file, as RFC 9110 allows.
    ranged = wanted.startswith("bytes=") and "," not in wanted
    if ranged:
        low, _, high = wanted.removeprefix("bytes=").partition("-")
        first = int(low) if low else max(size - int(high), 0)
        end = min(int(high) + 1, size) if low and high else size
        if first >= end:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    with path.open("rb") as stream:
        stream.seek(first)
        body = b"" if head else stream.read(end - first)
    headers["Content-Length"] = str(end - first)
    return Response(body, 206 if ranged else 200, headers, "image/tiff" if path.suffix == ".tif" else "application/octet-stream")


@attr.s
class _Catalog(AsyncBaseCoreClient):  # type: ignore[misc]
    """Items in memory, the newest first."""

    server: Server = attr.ib(default=None, kw_only=True)

    async def all_collections(self, **_: Any) -> dict[str, Any]:
        links = [{"rel": rel, "type": "application/json", "href": self._at(rel)} for rel in ("self", "root")]
        return {"collections": [self._linked(known) for known in self.server.collections], "links": links}

    async def get_collection(self, collection_id: str, **_: Any) -> dict[str, Any]:
        for known in self.server.collections:
            if known["id"] == collection_id:
                return self._linked(known)
        raise NotFoundError(f"no collection {collection_id}")

    async def get_item(self, item_id: str, collection_id: str, **_: Any) -> Item:
        for item in self.server.items:
            if (item["id"], item["collection"]) == (item_id, collection_id):
                return self._served(item)
        raise NotFoundError(f"no item {item_id} in {collection_id}")

    async def item_collection(self, collection_id: str, request: Request, **asked: Any) -> dict[str, Any]:
        await self.get_collection(collection_id)
        return self._page({**asked, "collections": [collection_id]}, request)

    async def get_search(self, request: Request, **asked: Any) -> dict[str, Any]:
        for name in ("intersects", "query"):
            if isinstance(asked.get(name), str):
                try:
                    asked[name] = json.loads(asked[name])
                except ValueError as error:
                    raise InvalidQueryParameter(f"{name} is no JSON: {error}") from error
        asked["sortby"] = [
            {"field": name.lstrip("+-"), "direction": "desc" if name.startswith("-") else "asc"}
            for name in asked.get("sortby") or ()
        ]
        return self._page(asked, request)

    async def post_search(self, search_request: Any, request: Request, **_: Any) -> dict[str, Any]:
        return self._page(search_request.model_dump(mode="json", exclude_none=True), request)

    def _page(self, asked: Mapping[str, Any], request: Request) -> dict[str, Any]:
        """One page of what is asked for, and the link to the next."""
        asked = {name: value for name, value in asked.items() if value}
        faults = self.server.faults
        down = faults.api_down > 0
        self.server.searches.append((asked, 503 if down else 200))
        if down:
            faults.api_down -= 1
            faults.counts["api_down"] += 1
            raise HTTPException(503, "try again")
        found = ordered([item for item in self.server.items if matches(item, asked)], asked.get("sortby", ()))
        start = int(str(asked.get("token", "next:0")).removeprefix("next:"))
        end = start + min(int(asked.get("limit", PAGE)), self.server.page)
        page = [self._served(item) for item in found[start:end]]
        links = [{"rel": "root", "type": "application/json", "href": self._at("root")}]
        if end < len(found):
            links.append(_next(request, asked, f"next:{end}"))
        return {
            "type": "FeatureCollection", "features": page, "links": links,
            "numberMatched": len(found), "numberReturned": len(page),
        }  # fmt: skip

    def _served(self, item: Item) -> Item:
        """With absolute addresses and the links of this server."""
        served = deepcopy(item)
        served["links"] = ItemLinks(item["collection"], self._at("root"), item["id"]).create_links()
        for asset in served["assets"].values():
            if "://" not in asset["href"]:
                asset["href"] = f"{self.server.files}/{quote(asset['href'])}"
        return served

    def _linked(self, collection: Mapping[str, Any]) -> dict[str, Any]:
        return {**collection, "links": CollectionLinks(collection["id"], self._at("root")).create_links()}

    def _at(self, rel: str) -> str:
        return f"{self.server.url}/" + ("collections" if rel == "self" else "")


def _next(request: Request, asked: Mapping[str, Any], token: str) -> dict[str, Any]:
    """The link to the next page, as the request came."""
    link = {"rel": "next", "type": "application/geo+json", "method": request.method}
    if request.method == "POST":
        url = str(request.url)
        return link | {"href": url, "merge": False, "body": {**asked, "token": token}}
    given = {**dict(request.query_params), "token": token}
    return link | {"href": f"{request.url.replace(query=None)}?{urlencode(given)}"}


def collection(name: str, items: Sequence[Item]) -> dict[str, Any]:
    """A collection that says where and when its items are."""
    times = sorted(item["properties"]["datetime"] for item in items)
    bounds = [shape(item["geometry"]).bounds for item in items]
    around = [min(b[0] for b in bounds), min(b[1] for b in bounds), max(b[2] for b in bounds), max(b[3] for b in bounds)]
    return {
        "type": "Collection", "stac_version": "1.0.0", "id": name, "description": name, "license": "proprietary",
        "extent": {"spatial": {"bbox": [around]}, "temporal": {"interval": [[times[0], times[-1]]]}},
    }  # fmt: skip


@contextmanager
def serving(
    folder: Path, items: Sequence[Item], collections: Sequence[dict[str, Any]] = (), *, faults: Faults | None = None,
    signed: bool = False, page: int = PAGE,
) -> Iterator[Server]:  # fmt: skip
    """Serves items, and the files under `folder`, from a thread of this process until the block ends.

    An asset's href without a scheme is a path under `folder`. Collections that items name are made where none is given.
    Where `signed`, files answer 403 without a query string that `Server.sas`/COLLECTION gave out. GDAL keeps what it heard of an
    address, failures too: a test that changes faults half-way reads other files, or sets CPL_VSIL_CURL_NON_CACHED.
    """
    named = {item["collection"] for item in items} - {known["id"] for known in collections}
    made = [collection(name, [item for item in items if item["collection"] == name]) for name in sorted(named)]
    newest = sorted(items, key=lambda item: (item["properties"]["datetime"], item["id"]), reverse=True)
    server = Server(folder, newest, [*collections, *made], faults or Faults(), signed, page)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        # Without a lifespan, web sockets or logs there is nothing that outlives the thread.
        runner = Uvicorn(Config(_app(server), lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=runner.run, args=([listening],), name="stac-server")
        thread.start()
        try:
            while not runner.started and thread.is_alive():
                time.sleep(0.005)
            yield server
        finally:
            runner.should_exit = True
            thread.join()


def _app(server: Server) -> Any:
    """The application: the API, the files and the tokens."""
    catalog = _Catalog(server=server)
    catalog.landing_page_id = "loopback"  # the settings' name for it is read once, at import
    extensions = [QueryExtension(), SortExtension(conformance_classes=[_SORT]), TokenPaginationExtension()]
    settings = ApiSettings(
        stac_fastapi_title="loopback", stac_fastapi_description="loopback", stac_fastapi_landing_id="loopback",
        stac_fastapi_version="1",
    )  # fmt: skip
    app = StacApi(
        settings=settings,
        client=catalog,
        extensions=extensions,
        search_get_request_model=create_get_request_model(extensions),
        search_post_request_model=create_post_request_model(extensions),
        items_get_request_model=create_request_model("Items", ItemCollectionUri, extensions=[TokenPaginationExtension()]),
        middlewares=[],
    ).app
    app.add_api_route("/files/{path:path}", server.file, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/sas/v1/token/{collection}", server.token, methods=["GET"])
    return app
