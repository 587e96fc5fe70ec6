"""`python -m tests.golden` says what differs from the numbers that are kept; with `--write` they are renewed."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.golden import numbers

with tempfile.TemporaryDirectory() as folder:
    new = numbers.measured(Path(folder))
old = numbers.kept() if numbers.KEPT.exists() else {"environment": {}, "maps": {}}
said = numbers.moved(old, new)
print("\n".join(said) or "nothing differs")
if "--write" in sys.argv:
    numbers.KEPT.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n", encoding="utf-8")
sys.exit(1 if said and "--write" not in sys.argv else 0)
