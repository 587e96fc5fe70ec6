"""Every hostile file of tests/hostile_files.py given to the command line in a process of its own: exit code, words, time, memory.

python -m benchmarks.hostile      # writes results/hostile.md; a listener counts who asks for what the files name
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

from aftermap import places
from tests.hostile_files import CASES

PAGE = Path(__file__).parent / "results" / "hostile.md"
HANG_S, MOST_MB = 60, 1000


def tried(name: str, port: int) -> dict[str, Any]:
    """One file: what the command made of it."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        args = [sys.executable, "-m", "aftermap", *CASES[name].make(Path(folder), port)]
        before, began = set(Path(folder).rglob("*")), time.monotonic()
        env = {k: v for k, v in os.environ.items() if k != places.HOSTS}
        with tempfile.TemporaryFile() as told:
            process = subprocess.Popen(args, stdout=told, stderr=told, env=env)
            pid, status = 0, 0
            while not pid and time.monotonic() - began < HANG_S:
                pid, status, spent = os.wait4(process.pid, os.WNOHANG)
                time.sleep(0.02)
            if not pid:
                process.kill()
                _, status, spent = os.wait4(process.pid, 0)
            told.seek(0)
            said = told.read().decode(errors="replace")
        codes = re.findall(r"\[([a-z-]+)\]", said)
        return {
            "name": name, "exit": os.waitstatus_to_exitcode(status), "code": codes[-1] if codes else "corrupt-member",
            "traceback": "Traceback" in said, "hang": not pid, "seconds": time.monotonic() - began,
            "mb": spent.ru_maxrss // 1024, "lost": len([p for p in before if not p.exists() and not p.is_symlink()]),
        }  # fmt: skip


def main() -> None:
    """All of them, and the page."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(0.01)
        rows = [tried(name, sock.getsockname()[1]) for name in CASES]
        asked = 0
        try:
            while sock.accept():
                asked += 1
        except TimeoutError:
            pass
    exits = Counter(row["exit"] for row in rows)
    lines = [
        "# Hostile files", "",
        f"`python -m benchmarks.hostile`, {date.today()}: {len(rows)} files of tests/hostile_files.py given to the verbs.", "",
        "| tried | exit 3 | exit 0 | other exits | tracebacks | hangs | over 1,000 MB | inputs lost | addresses asked |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| {len(rows)} | {exits[3]} | {exits[0]} | {len(rows) - exits[3] - exits[0]} | {sum(r['traceback'] for r in rows)} "
        f"| {sum(r['hang'] for r in rows)} | {sum(r['mb'] > MOST_MB for r in rows)} "
        f"| {sum(r['lost'] for r in rows)} | {asked} |", "",
        "| file | exit | refused as | seconds | most memory, MB |", "|---|---|---|---|---|",
        *(f"| {r['name']} | {r['exit']} | `{r['code']}` | {r['seconds']:.1f} | {r['mb']} |" for r in rows),
    ]  # fmt: skip
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(lines[6])


if __name__ == "__main__":
    main()
