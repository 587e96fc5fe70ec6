"""Each reader in a process of its own, fed with damaged and invented files: nothing but our own errors, no hang, no gigabyte.

    python -m benchmarks.fuzz --minutes 10            # CPU minutes for each reader; writes results/fuzz.md
    python -m benchmarks.fuzz tiff vrt --minutes 2    # some of them

Guided by coverage of our own code: by atheris (libFuzzer) where it is installed, else by the lines that a trace sees. What goes
wrong is kept in build/fuzz, one file for each place in the code; it becomes a test that builds the bytes (tests/test_hostile.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]
KEPT, PAGE = ROOT / "build" / "fuzz", ROOT / "benchmarks" / "results" / "fuzz.md"
MOST_MB, HANG_S, LONGEST = 1000, 30, 200_000
"""Memory and seconds of one execution, and bytes of a file."""
_EVERY_S = 1.0


class Executions:
    """What came of each execution, written down as it goes: a process that dies leaves its counts."""

    def __init__(self, name: str, folder: Path, out: Path):
        from benchmarks.fuzz_readers import READERS

        self.reader = READERS[name]
        self.path, self.out = folder / self.reader.file, out
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.counts: Counter[str] = Counter()
        self.written = 0.0

    def seeds(self) -> list[bytes]:
        """Files as the project writes them; what lies beside them stays in the folder."""
        return self.reader.seeds(self.path.parents[len(Path(self.reader.file).parts) - 1])

    def __call__(self, data: bytes) -> None:
        """Reads a file of these bytes."""
        from benchmarks.fuzz_readers import kind_of

        self.path.write_bytes(data)
        try:
            self.reader.act(self.path)
            kind = "read"
        except Exception as error:  # noqa: BLE001 - which of them are faults is what is asked
            kind = kind_of(error, self.reader)
            if kind.startswith("fault"):
                self._keep(data, error)
        self.counts[kind] += 1
        if time.monotonic() - self.written > _EVERY_S:
            self.write()

    def write(self) -> None:
        """The counts so far, and the most memory."""
        self.written = time.monotonic()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        (self.out / "counts.json").write_text(json.dumps({"counts": self.counts, "peak_mb": peak}))

    def _keep(self, data: bytes, error: BaseException) -> None:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "aftermap" in f.filename]
        place = f"{Path(frames[-1].filename).stem}-{frames[-1].lineno}" if frames else "elsewhere"
        kept = self.out / f"fault-{type(error).__name__}-{place}"
        if not kept.exists():
            kept.write_bytes(data)
            kept.with_name(kept.name + ".txt").write_text("".join(traceback.format_exception(error)))


def child(name: str, seconds: int, seed: int, out: Path) -> None:
    """Fuzzes one reader in this process."""
    for limit, most in ((resource.RLIMIT_AS, 6000), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most << 20, most << 20))
    try:
        import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        atheris = None
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        if atheris is None:
            run = Executions(name, Path(folder), out)
            print(f"cov: {_by_trace(run, run.seeds(), run.reader.known, seconds, Random(seed))}", file=sys.stderr)
            run.write()
            return
        with atheris.instrument_imports(include=["aftermap"]):
            run = Executions(name, Path(folder), out)
        corpus = out / "corpus"
        corpus.mkdir(exist_ok=True)
        for n, data in enumerate(run.seeds()):
            (corpus / f"seed-{n}").write_bytes(data)
        words = out / "words"
        spelt = ("".join(f"\\x{b:02x}" for b in word) for word in run.reader.known)
        words.write_text("".join(f'"{word}"\n' for word in spelt))
        options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={HANG_S}", f"-rss_limit_mb={MOST_MB}",
                   f"-max_len={LONGEST}", f"-artifact_prefix={out}/", *([f"-dict={words}"] if run.reader.known else []),
                   str(corpus)]  # fmt: skip
        atheris.Setup([sys.argv[0], *options], run)
        atheris.Fuzz()


def _by_trace(
    run: Callable[[bytes], None], seeds: Sequence[bytes], known: Sequence[bytes], seconds: float, rng: Random
) -> int:  # fmt: skip
    """Keeps what reaches lines of ours that nothing reached before; gives how many were reached."""
    corpus, reached, began = list(seeds), set[tuple[str, int]](), time.process_time()

    def trace(frame: Any, event: str, _: object) -> Any:
        if "aftermap" not in frame.f_code.co_filename:
            return None
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    for tried in range(sys.maxsize):
        if time.process_time() - began > seconds:
            break
        data, before = corpus[tried] if tried < len(seeds) else mutated(rng.choice(corpus), known, rng), len(reached)
        sys.settrace(trace)
        try:
            run(data)
        finally:
            sys.settrace(None)
        if len(reached) > before:
            corpus.append(data)
    return len(reached)


def mutated(data: bytes, known: Sequence[bytes], rng: Random) -> bytes:
    """Some bytes changed, cut out, doubled, or words of the format put in."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, length = rng.randrange(len(found) + 1), rng.choice((1, 2, 4, 8, 64))
        way = rng.randrange(6)
        if way == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            found[at : at + length] = rng.randbytes(length)
        elif way == 2:
            found[at : at + length] = rng.choice((b"\0", b"\xff", b"9", b"[", b"-1", b"1e999")) * length
        elif way == 3:
            del found[at : at + length]
        elif way == 4:
            found[at:at] = found[at : at + length] * rng.choice((1, 2, 100))
        elif known:
            found[at:at] = rng.choice(list(known))
    return bytes(found[:LONGEST])


def fuzz(name: str, minutes: float, seed: int = 0) -> dict[str, Any]:
    """CPU minutes of one reader, begun anew where its process dies; executions by outcome, edges and the most memory."""
    out = KEPT / name
    out.mkdir(parents=True, exist_ok=True)
    total: Counter[str] = Counter()
    used, peak, edges, rounds = 0.0, 0, 0, 0
    while used < 60 * minutes - 5 and rounds < 50:
        (out / "counts.json").unlink(missing_ok=True)
        seconds = round(60 * minutes - used)
        command = [sys.executable, "-m", "benchmarks.fuzz", name, "--child", str(out), "--minutes", str(seconds / 60)]
        with (out / "log").open("wb") as log:
            process = subprocess.Popen([*command, "--seed", str(seed + rounds)], stdout=log, stderr=log, cwd=ROOT)
            _, status, spent = os.wait4(process.pid, 0)
        used, rounds, before = used + spent.ru_utime + spent.ru_stime, rounds + 1, used
        if (out / "counts.json").exists():
            total.update(json.loads((out / "counts.json").read_text())["counts"])
        peak = max(peak, spent.ru_maxrss // 1024)
        edges = max([edges, *(int(n) for n in re.findall(r"cov: (\d+)", (out / "log").read_text(errors="replace")))])
        code = os.waitstatus_to_exitcode(status)
        if code:
            total[f"fault: process ended with {code}"] += 1
        if used - before < 1:
            break  # it does not even start
    return {"reader": name, "cpu_min": used / 60, "edges": edges, "peak_mb": peak, "counts": dict(total)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = [
        "| reader | CPU minutes | executions | read | refused, by code | faults | edges | most memory, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts = row["counts"]
        faults = {k: n for k, n in counts.items() if k.startswith("fault")}
        codes = sorted((k for k in counts if k not in faults and k != "read"), key=lambda k: -counts[k])
        said = ", ".join(f"{k} {counts[k]:,}" for k in codes)
        wrong = ", ".join(f"{k.removeprefix('fault: ')} {n:,}" for k, n in faults.items()) or "0"
        lines.append(
            f"| {row['reader']} | {row['cpu_min']:.1f} | {sum(counts.values()):,} | {counts.get('read', 0):,} | {said} | {wrong} "
            f"| {row['edges']:,} | {row['peak_mb']:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Arguments, and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path)
    given = parser.parse_args()
    if given.child:
        child(given.readers[0], round(60 * given.minutes), given.seed, given.child)
        return
    from benchmarks.fuzz_readers import READERS  # a child does this where it is watched

    rows = []
    for name in given.readers or READERS:
        rows.append(fuzz(name, given.minutes, given.seed))
        (KEPT / name / "row.json").write_text(json.dumps(rows[-1]))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    kept = [json.loads(path.read_text()) for n in READERS if (path := KEPT / n / "row.json").exists()]
    how = "atheris" if _has_atheris() else "a trace of lines"
    PAGE.write_text(
        "# Fuzzed readers\n\n"
        f"`make fuzz`, or `python -m benchmarks.fuzz READER... --minutes N`; {date.today()}, guided by {how}.\n"
        f"A fault is anything but one of our own errors, an execution of more than {HANG_S} s, or a process that dies\n"
        f"or takes more than {MOST_MB:,} MB.\n\n{table(kept)}\n"
    )
    sys.exit(any(k.startswith("fault") for row in rows for k in row["counts"]))


def _has_atheris() -> bool:
    from importlib.util import find_spec

    return find_spec("atheris") is not None


if __name__ == "__main__":
    main()
