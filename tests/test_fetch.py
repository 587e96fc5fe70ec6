"""Fetching from a server of our own on loopback: cut and resumed, changed meanwhile, wrong, busy; and archives that mean harm."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from aftermap import acquire, fetch, listing
from aftermap.cli import main
from aftermap.datasets.dataset import Facts, Source, open_dataset
from aftermap.errors import AftermapError, InputRefusedError, JobInterruptedError, RasterError, UsageError
from aftermap.unpack import unpack

BODY = np.random.default_rng(1).bytes(300_000)
SHA = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves `bodies` by path with byte ranges; `cut` answers end after that many bytes, `states` are given first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, bytes] = {"/file.bin": BODY}
        self.cut: list[int] = []
        self.states: list[int] = []
        self.ranges: list[str] = []
        self.honours_ranges = True
        self.links: dict[str, str] = {}

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        own, body = self.server, self.server.bodies.get(self.path)
        own.ranges.append(self.headers.get("Range", ""))
        if own.states or body is None:
            self.send_error(own.states.pop(0) if own.states else 404)
            return
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        start = int(own.ranges[-1].removeprefix("bytes=").removesuffix("-") or 0) if own.honours_ranges else 0
        start = start if self.headers.get("If-Range", tag) == tag else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.path in own.links:
            self.send_header("Link", own.links[self.path])
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + own.cut.pop(0) if own.cut else len(body)
        self.wfile.write(body[start:end])
        if end < len(body):
            self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server()) as own:  # type: ignore[type-var]
        thread = threading.Thread(target=own.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield own
        own.shutdown()
        thread.join()
        own.server_close()


Server.close = Server.server_close  # type: ignore[attr-defined]


def source(server: Server, *, size: int | None = len(BODY), checksum: str | None = SHA) -> Source:
    return Source(f"{server.root}/file.bin", "inner/file.bin", size, checksum)


def test_a_cut_connection_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000, 50_000]
    waits: list[float] = []
    told: list[tuple[str, int, int]] = []
    path = fetch.fetch(source(server), tmp_path, progress=lambda *said: told.append(said), sleep=waits.append)
    assert path.read_bytes() == BODY
    assert server.ranges == ["", "bytes=100000-", "bytes=150000-"]
    assert waits == [1, 2]
    assert told[-1] == ("inner/file.bin", len(BODY), len(BODY))
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    server.bodies.clear()
    assert fetch.fetch(source(server), tmp_path) == path  # there and right: not asked for again
    assert len(server.ranges) == 3


def test_a_killed_fetch_is_gone_on_with_by_the_next(server: Server, tmp_path: Path) -> None:
    server.cut = [60_000]
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(source(server), tmp_path, sleep=_killed)
    assert not (tmp_path / "inner/file.bin").exists()
    assert fetch.fetch(source(server), tmp_path).read_bytes() == BODY
    assert server.ranges == ["", "bytes=60000-"]


def _killed(_: float) -> None:
    raise KeyboardInterrupt


def test_a_file_that_changed_meanwhile_comes_whole(server: Server, tmp_path: Path) -> None:
    server.cut = [60_000]
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(source(server), tmp_path, sleep=_killed)
    server.bodies["/file.bin"] = BODY[::-1]
    other = f"sha256:{hashlib.sha256(BODY[::-1]).hexdigest()}"
    assert fetch.fetch(source(server, checksum=other), tmp_path).read_bytes() == BODY[::-1]


@pytest.mark.parametrize("body", [BODY[:-10], BODY + b"more"])
def test_a_server_without_ranges_or_with_a_shorter_file_starts_over(server: Server, body: bytes, tmp_path: Path) -> None:
    server.honours_ranges = body != BODY[:-10]
    part = tmp_path / "inner/file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * (len(body) + 5))
    server.bodies["/file.bin"] = body
    found = fetch.fetch(source(server, size=None, checksum=None), tmp_path, sleep=lambda _: None)
    assert found.read_bytes() == body


@pytest.mark.parametrize(("more", "word"), [({"checksum": f"md5:{'0' * 32}"}, "md5"), ({"size": 7}, "bytes")])
def test_what_is_wrong_never_gets_its_name(server: Server, more: dict[str, Any], word: str, tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError, match=word) as refused:
        fetch.fetch(source(server, **more), tmp_path)
    assert refused.value.code == "checksum-mismatch"
    assert list((tmp_path / "inner").iterdir()) == []
    (tmp_path / "inner/file.bin").write_bytes(b"mine")
    with pytest.raises(InputRefusedError):
        fetch.fetch(source(server), tmp_path)
    assert (tmp_path / "inner/file.bin").read_bytes() == b"mine"  # what a user put there is not thrown away


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(server: Server, tmp_path: Path) -> None:
    server.states = [503, 429]
    assert fetch.fetch(source(server), tmp_path, sleep=lambda _: None).read_bytes() == BODY
    server.states = [403]
    with pytest.raises(InputRefusedError, match="403") as refused:
        fetch.fetch(source(server), tmp_path / "other")
    assert refused.value.code == "not-fetched"
    server.states = [503] * fetch.ATTEMPTS
    with pytest.raises(JobInterruptedError) as stopped:
        fetch.fetch(source(server), tmp_path / "third", sleep=lambda _: None)
    assert stopped.value.code == "connection"


def test_a_name_that_leads_out_is_refused(tmp_path: Path) -> None:
    for name in ("../evil", "/etc/evil", "a/../../evil", "."):
        with pytest.raises(InputRefusedError) as refused:
            fetch.inside(tmp_path, name)
        assert refused.value.code == "archive-unsafe"


def test_publishers_lists_give_sizes_and_checksums(server: Server) -> None:
    md5 = "0123456789abcdef0123456789abcdef"
    server.bodies["/api/records/12"] = json.dumps({"files": [{"key": "a b.zip", "size": 5, "checksum": f"md5:{md5}"}]}).encode()
    first = [{"type": "directory", "path": "d"}, {"type": "file", "path": "README.md", "size": 3, "oid": "9" * 40}]
    second = [{"type": "file", "path": "d/x.tif", "size": 9, "oid": "1", "lfs": {"oid": "f" * 64, "size": 9}}]
    page = "/api/datasets/me/set/tree/main?recursive=true"
    server.bodies |= {page: json.dumps(first).encode(), "/next": json.dumps(second).encode()}
    server.links[page] = f'<{server.root}/next>; rel="next"'
    query = "/storage/v1/b/bucket/o?prefix=v1%2F&fields=items%28name%2Csize%2Cmd5Hash%29%2CnextPageToken"
    items = [{"name": "v1/", "size": "0"}, {"name": "v1/y.tif", "size": "4", "md5Hash": "ASNFZ4mrze8BI0VniavN7w=="}]
    server.bodies[query] = json.dumps({"items": items}).encode()
    roots = dict.fromkeys(("zenodo", "hf", "gcs"), server.root)
    assert listing.files("zenodo:12", roots=roots) == [
        Source(f"{server.root}/api/records/12/files/a%20b.zip/content", "a b.zip", 5, f"md5:{md5}")
    ]
    assert [(s.path, s.bytes, s.checksum) for s in listing.files("hf:me/set", roots=roots)] == [
        ("README.md", 3, None), ("d/x.tif", 9, f"sha256:{'f' * 64}"),
    ]  # fmt: skip
    assert listing.files("gcs:bucket/v1/", roots=roots) == [Source(f"{server.root}/bucket/v1/y.tif", "v1/y.tif", 4, f"md5:{md5}")]
    with pytest.raises(InputRefusedError) as refused:
        listing.files("zenodo:13", roots=roots)
    assert refused.value.code == "not-listed"


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def tarred(path: Path, members: dict[str, bytes], *, link: str = "") -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as out:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
        if link:
            member = tarfile.TarInfo("link")
            member.type, member.linkname = tarfile.SYMTYPE, link
            out.addfile(member)
    return path


def zstandard(path: Path, members: dict[str, bytes]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    plain = tarred(path.with_suffix(""), members)
    with arrow.CompressedOutputStream(str(path), "zstd") as out:
        out.write(plain.read_bytes())
    return path


def test_archives_unpack_once_and_whole(tmp_path: Path) -> None:
    members = {"a/one.txt": b"1", "two.txt": b"22"}
    made = (
        zipped(tmp_path / "a.zip", members),
        tarred(tmp_path / "b.tar.gz", members),
        zstandard(tmp_path / "c.tar.zst", members),
    )
    for path in made:
        out = tmp_path / path.name.partition(".")[0]
        assert unpack(path, out) == 2
        assert {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()} == members
        (out / "two.txt").unlink()
        assert unpack(path, out) == 0


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "C:\\evil.txt"])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_archives_that_mean_harm_are_refused(make: Any, name: str, tmp_path: Path) -> None:
    path = make(tmp_path / ("bad.zip" if make is zipped else "bad.tar"), {"good.txt": b"1", name: b"2"})
    with pytest.raises(RasterError) as refused:
        unpack(path, tmp_path / "out")
    assert refused.value.code == "archive-unsafe"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_links_bombs_and_damage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="link"):
        unpack(tarred(tmp_path / "link.tar", {"a": b"1"}, link="/etc/passwd"), tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_BZIP2) as out:
        out.writestr("zeros", bytes(50_000_000))
    with pytest.raises(RasterError, match="claims to unpack"):
        unpack(tmp_path / "bomb.zip", tmp_path / "out")
    whole = zipped(tmp_path / "cut.zip", {"a": BODY}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-200])
    with pytest.raises(RasterError) as refused:
        unpack(tmp_path / "cut.zip", tmp_path / "out")
    assert refused.value.code == "archive-damaged"
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_data_set_is_fetched_checked_and_unpacked(server: Server, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "made.zip", {"TrainData/img/x.h5": b"h5"}).read_bytes()
    server.bodies["/TrainData.zip"] = archive
    known = Source(f"{server.root}/TrainData.zip", "TrainData.zip", len(archive), f"md5:{hashlib.md5(archive).hexdigest()}")
    facts = Facts("a set", "free", "", "", sources=(known, Source(f"{server.root}/file.bin", "file.bin"), Source("", "hand.tar")))
    done = acquire.acquire(facts, tmp_path / "out")
    assert (len(done.files), done.unpacked, done.unchecked, done.by_hand) == (2, 1, ("file.bin",), ("hand.tar",))
    assert (tmp_path / "out/TrainData/img/x.h5").read_bytes() == b"h5"


def test_what_only_people_may_fetch_says_where_and_the_licence_is_asked(tmp_path: Path) -> None:
    runner = CliRunner()
    asked = runner.invoke(main, ["data", "fetch", "xbd", "-o", str(tmp_path)])
    assert asked.exit_code == UsageError.exit_code
    assert "CC BY-NC-SA" in asked.output
    assert "[licence]" in asked.output
    told = runner.invoke(main, ["data", "fetch", "xbd", "-o", str(tmp_path), "--accept-licence"])
    assert "[by-hand]" in told.output
    assert "register at" in told.output
    (tmp_path / "test_images_labels_targets.tar.gz").write_bytes(b"not it")
    wrong = runner.invoke(main, ["data", "fetch", "xbd", "-o", str(tmp_path), "--accept-licence"])
    assert "[checksum-mismatch]" in wrong.output
    assert isinstance(UsageError("x"), AftermapError)


def test_the_command_fetches_by_the_publishers_list(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(listing.ROOTS, "zenodo", server.root)
    listed, files = "/api/records/7189381", {}
    for word, count in (("train", 3), ("val", 2), ("test", 2)):
        for kind, bands in (("X", 4), ("Y", 1)):
            buffer = io.BytesIO()
            np.save(buffer, np.ones((count, 8, 8, bands), np.float32))
            files[f"{word}{kind}.npy"] = buffer.getvalue()
    said = [{"key": k, "size": len(v), "checksum": f"md5:{hashlib.md5(v).hexdigest()}"} for k, v in files.items()]
    server.bodies = {f"{listed}/files/{k}/content": v for k, v in files.items()} | {listed: json.dumps({"files": said}).encode()}
    told = CliRunner().invoke(main, ["data", "fetch", "hr-gldd", "-o", str(tmp_path), "--accept-licence", "--quiet"])
    assert told.exit_code == 0, told.output
    assert "6 files" in told.output
    assert "0 without a known checksum" in told.output
    assert [len(open_dataset(tmp_path).ids(s)) for s in ("train", "validation", "test")] == [3, 2, 2]


def test_a_cut_zstandard_archive_is_damaged(tmp_path: Path) -> None:
    path = zstandard(tmp_path / "c.tar.zst", {"a": BODY})
    path.write_bytes(path.read_bytes()[:150_000])
    with pytest.raises(RasterError) as refused:
        unpack(path, tmp_path / "out")
    assert refused.value.code == "archive-damaged"
