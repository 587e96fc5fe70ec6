"""Locks and bills of materials: every library with its hash, and nothing of the machine that wrote them."""

from __future__ import annotations

import json

from benchmarks.release import bill, libraries, lock


def _one(name: str, version: str, url: str, digest: str, **said: object) -> dict[str, object]:
    about = {"archive_info": {"hashes": {"sha256": digest}}, "url": url}
    return {"metadata": {"name": name, "version": version, **said}, "download_info": about}


REPORT = {"install": [
    _one("NumPy", "2.4.6", "file:///opt/here/numpy.whl", "a" * 64, license_expression="BSD-3-Clause"),
    _one("torch", "2.13.0+cpu", "file:///opt/wheels/torch-2.13.0%2Bcpu.whl", "b" * 64, requires_dist=["numpy>=1; extra == 'x'"]),
    _one("odc_geo", "0.5.3", "https://files.example/odc.whl", "c" * 64, requires_dist=["numpy (>=1)", "affine>=2"],
         classifier=["License :: OSI Approved :: Apache Software License"]),
    _one("aftermap", "0.1.0", "file:///here", "d" * 64),
]}  # fmt: skip


def test_a_lock_has_hashes_and_no_address() -> None:
    text = lock(libraries(REPORT), "train")
    assert "odc-geo==0.5.3 \\\n    --hash=sha256:" + "c" * 64 in text
    assert "torch==2.13.0" in text
    assert not any(word in text for word in ("+cpu", "file:", "/opt", "b" * 64, "aftermap=="))


def test_a_bill_names_every_library_its_licence_and_needs() -> None:
    made = bill(libraries(REPORT))
    assert made["bomFormat"] == "CycloneDX"
    parts = {one["name"]: one for one in made["components"]}
    assert parts.keys() == {"numpy", "odc-geo", "torch"}
    assert "hashes" not in parts["torch"]
    assert parts["numpy"]["licenses"] == [{"license": {"name": "BSD-3-Clause"}}]
    assert {"ref": "pkg:pypi/odc-geo@0.5.3", "dependsOn": ["pkg:pypi/numpy@2.4.6"]} in made["dependencies"]
    assert "opt" not in json.dumps(made)
    assert bill(libraries(REPORT)) == made
