"""What strangers send: hostile requests and hostile files. Each is refused in words, or is harmless and kept under a safe name;
the viewer lives on, and nothing is written but below its folder of jobs."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import aftermap as am
from aftermap.job import Limits
from aftermap.jobrun import Runner
from aftermap.jobs import Jobs
from aftermap.view import application, shown
from tests.conftest import flood_pair, grid, write
from tests.hostile_uploads import NAMES, odd, refused_by_doctor, refused_by_header, tiff

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("rio_tiler", reason="rio-tiler is not installed")
TOKEN = "a-token-of-many-letters"
LIMITS = Limits(file_mb=1, job_mb=3, files=8, kept=60, queued=2, idle_seconds=1, megapixels=50, bands=32, free_mb=1)


class World(NamedTuple):
    """A viewer with a map, a job and a secret beside its folder; and one that wants a token."""

    home: Path
    port: int
    locked: int
    runner: Runner
    id: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from aftermap.patience import server

    home = tmp_path_factory.mktemp("world")
    (home / "secret.txt").write_text("nobody shall see or change this")
    _, after, _ = flood_pair((90, 130))
    image = write(home / "after.tif", after, grid((90, 130)), ("VV", "VH"), unit="dB")
    maps = shown([am.map(image, out=home / "map").folder])
    runner = Runner(Jobs(home / "jobs", LIMITS))
    apps = (application(maps, hosts=["127.0.0.1"], runner=runner), application(maps, hosts=["127.0.0.1"], token=TOKEN))
    running = []
    for app in apps:
        sock, served = socket.create_server(("127.0.0.1", 0)), server(app, idle_s=1.5)
        thread = threading.Thread(target=served.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        running.append((sock, served, thread))
    ports = [sock.getsockname()[1] for sock, *_ in running]
    yield World(home, ports[0], ports[1], runner, runner.jobs.start().id)
    for sock, served, thread in running:
        served.should_exit = True
        thread.join(10)
        sock.close()
    runner.stop()


def outside(world: World) -> dict[str, str]:
    """Everything around the folder of jobs, and the files directly in it."""
    jobs = world.home / "jobs"
    paths = [p for p in world.home.rglob("*") if p.is_file() and (jobs not in p.parents or p.parent == jobs)]
    return {str(p.relative_to(world.home)): sha256(p.read_bytes()).hexdigest() for p in paths}


class Answer(NamedTuple):
    status: int
    headers: str
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


def raw(port: int, data: bytes, *, seconds: float = 10) -> Answer:
    """The first answer to these very bytes; status 0 where the server hung up without one."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as sock:
        try:
            sock.sendall(data)
            while part := sock.recv(65536):
                got += part
                head, found, body = got.partition(b"\r\n\r\n")
                length = next(
                    (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), None
                )
                if found and length is not None and len(body) >= length:
                    break
        except ConnectionError:
            pass
    head, _, body = got.partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ")[1]) if head else 0, head.decode("latin-1"), body)


def request(
    world: World, method: str, path: str, body: bytes = b"", *, own: bool = True, host: str | None = None, port: int = 0,
    **more: str,
) -> bytes:  # fmt: skip
    """A request of the page, but for what is said."""
    headers = {"Host": host if host is not None else f"127.0.0.1:{port or world.port}", "Connection": "close"}
    headers |= {"X-Aftermap": "1"} if own and method != "GET" else {}
    headers |= {"Content-Length": str(len(body))} if body or method in ("POST", "PUT") else {}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    lines = [f"{method} {path.replace('{id}', world.id)} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


Make = Callable[[World], bytes]
HOSTILE: dict[str, Make] = {}


def hostile(name: str, method: str, path: str, body: bytes = b"", **how: Any) -> None:
    assert name not in HOSTILE, name
    HOSTILE[name] = lambda world: request(world, method, path, body, **how)


TRAVERSALS = {
    "dots": "..", "escaped": "%2e%2e", "etc": "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "secret": "..%2f..%2fsecret.txt",
    "twice": "%252e%252e%252fsecret.txt", "windows": "..%5c..%5csecret.txt", "overlong": "%c0%ae%c0%ae%c0%afsecret.txt",
    "null": "secret.txt%00.png", "doubled": "....//secret.txt", "absolute": "%2fetc%2fpasswd", "drive": "C:%5csecret.txt",
    "wide": "%ef%bc%8e%ef%bc%8e%2fsecret.txt", "newline": "a%0d%0aSet-Cookie:x=1", "tilde": "~root", "long": "a" * 9000,
}  # fmt: skip
SLOTS = {
    "static": ("GET", "/static/{}"), "map": ("GET", "/api/maps/{}/levels"), "layer": ("GET", "/api/maps/0/tiles/{}/0/0/0.png"),
    "photo": ("GET", "/api/maps/0/photo/{}"), "outlines": ("GET", "/api/maps/0/outlines/{}?bbox=0,0,1,1"),
    "job": ("GET", "/api/jobs/{}"), "product": ("GET", "/api/jobs/{{id}}/products/{}"),
    "zip": ("GET", "/api/jobs/{}/products.zip"),
    "role": ("PUT", "/api/jobs/{{id}}/files/{}"), "put": ("PUT", "/api/jobs/{}/files/after"),
    "number": ("DELETE", "/api/jobs/{{id}}/files/after/{}"), "delete": ("DELETE", "/api/jobs/{}"),
    "run": ("POST", "/api/jobs/{}/run"),
}  # fmt: skip
for slot, (verb, where) in SLOTS.items():
    for kind, text in TRAVERSALS.items():
        hostile(f"{slot}-{kind}", verb, where.format(text), b"x" if verb == "PUT" else b"")
for n, other in enumerate(("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "127.0.0.1@evil.example",
                           "[::1",
                           "0.0.0.0", "127.1", "2130706433", "", "xn--fiqs8s", "127.0.0.1:80:evil")):  # fmt: skip
    hostile(f"host-{n}", "GET", "/api/maps", host=other)
for n, said in enumerate(("cross-site", "same-site", "CROSS-SITE", "nonsense")):
    hostile(f"fetch-{n}", "GET", "/api/jobs", Sec_Fetch_Site=said)
    hostile(f"fetch-post-{n}", "POST", "/api/jobs", Sec_Fetch_Site=said)
for n, origin in enumerate(
    ("https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example", "file://", "")
):
    hostile(f"origin-{n}", "POST", "/api/jobs", Origin=origin)
for n, (verb, where) in enumerate({"POST": "/api/jobs", "PUT": "/api/jobs/{id}/files/after", "DELETE": "/api/jobs/{id}",
                                   "OPTIONS": "/api/jobs"}.items()):  # fmt: skip
    hostile(f"no-header-{n}", verb, where, own=False)
for n, (verb, where) in enumerate((("POST", "/api/maps"), ("PUT", "/"), ("DELETE", "/static/view.css"),
                                   ("PATCH", "/api/jobs/{id}"), ("TRACE", "/"), ("OPTIONS", "/api/jobs"),
                                   ("PUT", "/api/jobs/{id}"), ("BREW", "/"),
                                   ("POST", "/api/jobs/{id}/files/after"), ("GET", "/api/jobs/{id}/run"),
                                   ("PROPFIND", "/"), ("POST", "/api/offers"))):  # fmt: skip
    hostile(f"method-{n}", verb, where)
for n, tile in enumerate(("99/0/0", "3/9/0", "-1/0/0", "0/0/1", "a/b/c", "1e3/0/0", "22/4194304/0", f"{'9' * 400}/0/0", "0/0/-1",
                          "%31%00/0/0", "NaN/0/0", "1.5/0/0")):  # fmt: skip
    hostile(f"tile-{n}", "GET", f"/api/maps/0/tiles/extent/{tile}.png")
for n, level in enumerate(("nan", "inf", "-1", "101", "1e400", "9" * 5000, "0x10", "%00", "x")):
    hostile(f"threshold-{n}", "GET", f"/api/maps/0/tiles/likelihood/0/0/0.png?threshold={level}")
for n, bbox in enumerate(("nan,0,1,1", "0,0,inf,1", "0,0,1", "0,0,1,1,1", "1,1,0,0", "-721,0,1,1", "0,0,0,0", "9" * 8000,
                          "a,b,c,d",
                          "0;DROP TABLE x,0,1,1", "%00,0,1,1")):  # fmt: skip
    hostile(f"bbox-{n}", "GET", f"/api/maps/0/outlines/observed_event?bbox={bbox}")
for n, data in enumerate((b"", b"{", b"[]", b"7", b"null", b'{"hazard": 7}', b'{"hazard": "tsunami"}', b'{"out": "/etc"}',
                          b'{"name": "a\\u0000b"}', b'{"name": "\\ud800"}', b'{"name": "\\u202egnp.exe"}', b"[" * 10_000,
                          b'{"a":' * 3000, b'{"name": "' + b"x" * 300 + b'"}', b"\xff\xfe{}", b"{}" + b" " * 20_000,
                          b'{"name": NaN}', b'{"hazard": {"__proto__": "x"}}')):  # fmt: skip
    hostile(f"json-{n}", "POST", "/api/jobs/{id}/check", data, Content_Type="application/json")
hostile("json-form", "POST", "/api/jobs/{id}/check", b"hazard=flood", Content_Type="application/x-www-form-urlencoded")
hostile("json-text", "POST", "/api/jobs/{id}/check", b"{}", Content_Type="text/plain")
hostile("run-unchecked", "POST", "/api/jobs/{id}/run")
hostile("cancel-idle", "POST", "/api/jobs/{id}/cancel")
hostile("too-long-said", "PUT", "/api/jobs/{id}/files/after", Content_Length=str(10**12))
hostile("too-long-sent", "PUT", "/api/jobs/{id}/files/after", b"II*\0" + bytes(2 << 20))
hostile("no-bytes", "PUT", "/api/jobs/{id}/files/after?name=x.tif")
hostile("path-100k", "GET", "/" + "a" * 100_000)
hostile("header-100k", "GET", "/api/maps", X_Long="a" * 100_000)
hostile("websocket", "GET", "/ws", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Key="x", Sec_WebSocket_Version="13")
hostile("range-letters", "GET", "/static/view.css", Range="bytes=x-y")
hostile("range-beyond", "GET", "/static/view.css", Range="bytes=99999999999-")
for n, brought in enumerate(("", "?token=", "?token=wrong", f"?token={TOKEN[:-1]}", f"?token={TOKEN}x", "?token=%ff%fe%ed%a0%80",
                             "?token=" + "a" * 20_000, f"?Token={TOKEN}", "?token[]=x")):  # fmt: skip
    HOSTILE[f"token-{n}"] = lambda world, at=brought: request(world, "GET", f"/api/maps{at}", port=world.locked)  # type: ignore[misc]
HOSTILE["token-cookie"] = lambda world: request(world, "GET", "/api/maps", port=world.locked, Cookie="aftermap-view=\xff\xfe")


def wire(first: str, *headers: str, body: str = "") -> bytes:
    return "\r\n".join([first, *headers, "", body]).encode("latin-1")


def upload(*headers: str, body: str = "II*\0") -> bytes:
    return wire("PUT /api/jobs/ID/files/after HTTP/1.1", "Host: 127.0.0.1", "X-Aftermap: 1", *headers, body=body)


CHUNKS = "Transfer-Encoding: chunked"
WIRE = {
    "garbage": b"\x00\x01\x02\x03\xff\xfe\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n",
    "http-x": wire("GET / HTTP/x.y", "Host: 127.0.0.1"),
    "no-host": wire("GET / HTTP/1.1"),
    "two-hosts": wire("GET / HTTP/1.1", "Host: 127.0.0.1", "Host: evil.example"),
    "null-in-header": wire("GET / HTTP/1.1", "Host: 127.0.0.1", "X: a\0b"),
    "space-before-colon": wire("GET / HTTP/1.1", "Host : 127.0.0.1"),
    "folded-host": wire("GET / HTTP/1.1", "Host:", " evil.example"),
    "two-lengths": upload("Content-Length: 4", "Content-Length: 40"),
    "negative-length": upload("Content-Length: -1"),
    "plus-length": upload("Content-Length: +4"),
    "letters-length": upload("Content-Length: 0x4"),
    "odd-encoding": upload("Transfer-Encoding: xchunked", body="0\r\n\r\n"),
    "bad-chunk": upload(CHUNKS, body="zz\r\nII*\0\r\n"),
    "chunk-lies": upload(CHUNKS, body="4\r\nII*\0II*\0\r\n0\r\n\r\n"),
    "huge-chunk": upload(CHUNKS, body="ffffffffffffffffff\r\nII"),
    "chunked-too-large": upload(CHUNKS, body="180000\r\nII*\0" + "\0" * (0x180000 - 4) + "\r\n0\r\n\r\n"),
    "length-and-chunks": wire("POST /api/maps HTTP/1.1", "Host: evil", "Content-Length: 5", CHUNKS, body="0\r\n\r\n"),
    "smuggled": upload("Content-Length: 4", CHUNKS, body="0\r\n\r\nDELETE /api/jobs/ID HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    "many-headers": wire("GET / HTTP/1.1", *["X: y"] * 20_000),
    "absolute-target": wire("GET http://evil.example/api/maps HTTP/1.1", "Host: evil.example"),
    "connect": wire("CONNECT evil.example:443 HTTP/1.1", "Host: evil.example"),
    "lines-without-return": b"GET /nothing HTTP/1.1\nHost: 127.0.0.1\n\n",
}  # fmt: skip
"""Bytes that no client sends."""
for title, sent in WIRE.items():
    HOSTILE[f"wire-{title}"] = lambda world, sent=sent: sent.replace(b"/ID", b"/%s" % world.id.encode())  # type: ignore[misc]


@pytest.fixture(scope="module", autouse=True)
def nothing_outside(world: World) -> Iterator[None]:
    """What stood around the jobs before everything here stands there after it, and nothing else."""
    before = outside(world)
    yield
    assert outside(world) == before
    jobs = [p.name for p in (world.home / "jobs").iterdir() if p.is_dir()]
    assert all(len(name) == 16 and set(name) <= set("0123456789abcdef") for name in jobs)
    assert not list((world.home / "jobs").rglob("*.partial"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_in_words(world: World, name: str) -> None:
    answer = raw(world.locked if name.startswith("token") else world.port, HOSTILE[name](world))
    assert 400 <= answer.status < 500, answer
    assert b"Traceback" not in answer.body
    assert b"nobody shall see" not in answer.body
    if "application/json" in answer.headers:
        assert answer.said["error"]
        assert "x-content-type-options: nosniff" in answer.headers.lower()
        assert "set-cookie" not in answer.headers.lower()
    else:  # what is no HTTP does not come as far as us
        assert answer.body == b"" or b"Invalid HTTP request" in answer.body or b"Range header" in answer.body
    alive = raw(world.port, request(world, "GET", "/api/jobs/{id}"))
    assert alive.status == 200
    assert alive.said["files"] == []


def test_a_hundred_and_more_requests_were_tried() -> None:
    assert len(HOSTILE) >= 100


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"body"], ids=["nothing", "head", "body"])
def test_who_sends_drop_by_drop_is_hung_up_on(world: World, start: bytes) -> None:
    if start == b"body":
        start = request(world, "PUT", "/api/jobs/{id}/files/after", Content_Length="1000") + b"II*\0"
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", world.port), timeout=10) as sock:
        sock.sendall(start)
        try:
            while time.monotonic() - began < 9:
                sock.settimeout(0.3)
                try:
                    if not sock.recv(65536):
                        break
                except TimeoutError:
                    if start.startswith(b"GET"):
                        sock.sendall(b"X: y\r\n")
        except ConnectionError:
            pass
    assert time.monotonic() - began < 6
    assert raw(world.port, request(world, "GET", "/api/maps")).status == 200


def test_what_breaks_off_leaves_nothing(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.port)) as sock:
        sock.sendall(request(world, "PUT", "/api/jobs/{id}/files/after", Content_Length="100000") + b"II*\0" + bytes(5000))
        time.sleep(0.3)
    until = time.monotonic() + 5
    while list((world.home / "jobs").rglob("*.partial")) and time.monotonic() < until:
        time.sleep(0.05)
    assert not list((world.home / "jobs").rglob("*.partial"))
    assert world.runner.jobs.get(world.id).files == ()


def put(world: World, job: str, data: bytes, name: str = "x.tif", role: str = "after") -> Answer:
    from urllib.parse import quote

    path = f"/api/jobs/{job}/files/{role}?name={quote(name, safe='')}"
    return raw(world.port, request(world, "PUT", path, data))


def new(world: World) -> str:
    answer = raw(world.port, request(world, "POST", "/api/jobs"))
    assert answer.status == 201, answer
    return str(answer.said["id"])


def checked(world: World, job: str) -> dict[str, Any]:
    answer = raw(world.port, request(world, "POST", f"/api/jobs/{job}/check", b"{}", Content_Type="application/json"), seconds=60)
    assert answer.status == 200, answer
    return answer.said


def test_files_that_lie_in_their_header_are_refused_at_once(world: World, tmp_path: Path) -> None:
    job, cases = new(world), refused_by_header(tmp_path)
    for name, (data, code) in cases.items():
        answer = put(world, job, data, f"{name}.tif")
        assert (answer.status, answer.said.get("code")) == (422, code), (name, answer)
        assert answer.said["error"], name
        assert answer.said["repair"], name
    held = sorted(p.name for p in (world.home / "jobs" / job).rglob("*"))
    assert held == ["in", "job.json"]


def test_files_that_lie_further_in_are_refused_by_the_doctor(world: World) -> None:
    """In a process of its own, which may end as it likes."""
    job, cases = new(world), refused_by_doctor()
    for name, data in cases.items():
        assert put(world, job, data, f"{name}.tif").status == 201, name
    found = checked(world, job)
    assert {f["where"] for f in found["findings"] if f["severity"] == "refuse"} == {f"{name}.tif" for name in cases}
    assert all(f["what"] and f["repair"] for f in found["findings"])
    assert found["refused"]
    answer = raw(world.port, request(world, "POST", f"/api/jobs/{job}/run"))
    assert (answer.status, answer.said["code"]) == (409, "job-state")


def test_odd_files_do_no_harm(world: World) -> None:
    job = new(world)
    for name, data in odd().items():
        assert put(world, job, data, f"{name}.tif").status == 201, name
    found = checked(world, job)
    assert found["state"] == "checked"
    assert not [f for f in found["findings"] if f["code"] in ("job-crashed", "job-slow")]


def test_names_are_cleaned_and_nothing_lies_beside_an_image(world: World) -> None:
    jobs: list[str] = []
    for n, (name, expected) in enumerate(NAMES.items()):
        if n % LIMITS.files == 0:
            jobs.append(new(world))
        answer = put(world, jobs[-1], tiff(), name)
        assert answer.status == 201, (name, answer)
        told = answer.said["file"]
        assert told["name"] == expected, name
        assert told["label"].isprintable()
        assert len(told["label"]) <= 120
        home = world.home / "jobs" / jobs[-1] / "in" / f"after-{told['number']}"
        assert [p.name for p in home.iterdir()] == [expected]
    assert put(world, jobs[0], tiff()).said["code"] == "jobs-full"


def test_fifty_and_more_files_were_tried(tmp_path: Path) -> None:
    assert len(refused_by_header(tmp_path)) + len(refused_by_doctor()) + len(odd()) >= 50


def test_a_crash_is_not_the_viewers(world: World, tmp_path: Path) -> None:
    """Whatever the process does: crash, say nothing, say nonsense, or go on for ever."""
    import sys
    from dataclasses import replace

    job = new(world)
    assert put(world, job, tiff()).status == 201
    work, limits = world.runner.work, world.runner.jobs.limits
    try:
        for code, act in {"job-crashed": "import os; os.abort()", "job-slow": "import time; time.sleep(60)"}.items():
            world.runner.work = (sys.executable, "-c", act)
            world.runner.jobs.limits = replace(limits, check_seconds=1 if code == "job-slow" else 30)
            assert [f["code"] for f in checked(world, job)["findings"]] == [code]
        world.runner.work = (sys.executable, "-c", "print('[]')")
        assert [f["code"] for f in checked(world, job)["findings"]] == ["job-crashed"]
    finally:
        world.runner.work, world.runner.jobs.limits = work, limits
