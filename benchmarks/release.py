"""What goes with a release: a lock of every library with its hash, and a bill of materials (CycloneDX), as pip resolves them.

    python -m benchmarks.release build/release     # `make release-files`
    pip install --require-hashes -r lock.txt && pip install --no-deps aftermap

Hashes are of the wheels for the platform and Python that this runs on, which the lock's head names. A library that comes here as
a build of another maker (a local version: torch 2.13.0+cpu) is named by its plain version without a hash: install it first, from
where you trust it.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCKS = {"lock.txt": "data,probe,onnx,cloud,view", "lock-train.txt": "data,probe,onnx,cloud,view,train"}
Library = Mapping[str, Any]


def resolved(extras: str) -> list[Library]:
    """What pip would install for these extras: name, version, hash (empty of a local build), licence, needs."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", report.name,
             "--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[{extras}]"],
            check=True,
        )  # fmt: skip
        return libraries(json.loads(Path(report.name).read_text(encoding="utf-8")))


def libraries(report: Mapping[str, Any]) -> list[Library]:
    """Of pip's report, sorted; no address of an index or file of this machine."""
    found = []
    for one in report["install"]:
        said, name = one["metadata"], _plain(one["metadata"]["name"])
        if name == "aftermap":
            continue
        public, _, local = said["version"].partition("+")
        hashes = one["download_info"].get("archive_info", {}).get("hashes", {})
        found.append({
            "name": name, "version": public, "sha256": "" if local else hashes.get("sha256", ""),
            "licence": said.get("license_expression") or _licence(said), "needs": _needs(said.get("requires_dist", ())),
        })  # fmt: skip
    return sorted(found, key=lambda one: str(one["name"]))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _licence(said: Mapping[str, Any]) -> str:
    """The last part of a classifier, else a licence that is a line; whole texts are not names."""
    classified = [c.rpartition(" :: ")[2] for c in said.get("classifier", ()) if c.startswith("License ::")]
    told = str(said.get("license") or "")
    return ", ".join(classified) or (told if len(told) < 60 and "\n" not in told else "")


def _needs(required: Sequence[str]) -> list[str]:
    return sorted({_plain(re.split(r"[^\w.-]", one, maxsplit=1)[0]) for one in required if "extra ==" not in one})


def lock(every: Sequence[Library], extras: str) -> str:
    """Requirements with hashes; those without one stand at the head as comments."""
    own = [one for one in every if not one["sha256"]]
    head = [
        f"# aftermap[{extras}] {version('aftermap')}",
        f"# {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "# pip install --require-hashes -r this file, then pip install --no-deps aftermap.",
        *(f"# First, from where you trust it: pip install --no-deps {one['name']}=={one['version']}" for one in own),
    ]
    lines = [f"{one['name']}=={one['version']} \\\n    --hash=sha256:{one['sha256']}" for one in every if one["sha256"]]
    return "\n".join([*head, *lines]) + "\n"


def bill(every: Sequence[Library]) -> dict[str, Any]:
    """CycloneDX 1.6; the same libraries give the same bytes."""
    there, own = {one["name"] for one in every}, f"pkg:pypi/aftermap@{version('aftermap')}"
    ref = {one["name"]: f"pkg:pypi/{one['name']}@{one['version']}" for one in every}
    parts = [
        {
            "type": "library", "bom-ref": ref[one["name"]], "name": one["name"], "version": one["version"],
            "purl": ref[one["name"]],
            **({"hashes": [{"alg": "SHA-256", "content": one["sha256"]}]} if one["sha256"] else {}),
            **({"licenses": [{"license": {"name": one["licence"]}}]} if one["licence"] else {}),
        }
        for one in every
    ]  # fmt: skip
    needs = [{"ref": ref[one["name"]], "dependsOn": [ref[n] for n in one["needs"] if n in there]} for one in every]
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(parts))}",
        "metadata": {"component": {
            "type": "application", "bom-ref": own, "name": "aftermap", "version": version("aftermap"), "purl": own,
            "licenses": [{"license": {"id": "Apache-2.0"}}],
        }},
        "components": parts, "dependencies": [{"ref": own, "dependsOn": sorted(ref.values())}, *needs],
    }  # fmt: skip


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, extras in LOCKS.items():
        every = resolved(extras)
        (out / name).write_text(lock(every, extras), encoding="utf-8")
        page = json.dumps(bill(every), indent=1, ensure_ascii=False) + "\n"
        (out / f"sbom{name.removeprefix('lock').removesuffix('.txt')}.cdx.json").write_text(page, encoding="utf-8")
        print(f"{name}: {len(every)} libraries, {sum(not one['sha256'] for one in every)} without a hash")


if __name__ == "__main__":
    main()
