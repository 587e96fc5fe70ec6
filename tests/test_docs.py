"""The documentation keeps up with the code: every code, method and option is there, and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aftermap import pieces
from aftermap.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CODE = re.compile(r"""(?:\bcode(?::\ str)?\ ?=\ ?|\b_warn\(\s*|\bFinding\(\s*)"([a-z0-9-]+)\"""", re.VERBOSE)
PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
RESERVED = re.compile(r"(?:https?|mailto):")


_OF_DATA = ("split", "event", "chip", "setting", "version")
LEARNING = (
    "encoder",
    "decoder",
    "fusion",
    "loss",
    "normalise",
    "schedule",
    "metric",
    "objective",
    "surgery",
    "weights",
    "product",
    "recipe",
    "adaptation",
    "fidelity",
    "balance",
    "use",
)
"""Names that only training asks for."""


def codes() -> set[str]:
    """Every error and finding code that the package can give."""
    found = {c for path in (ROOT / "aftermap").rglob("*.py") for c in CODE.findall(path.read_text(encoding="utf-8"))}
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "aftermap").rglob("*.py"))
    kinds = (k.replace(" ", "-") for k in re.findall(r'UnknownNameError\("([a-z ]+)"', text))
    return found | {f"unknown-{kind}" for kind in (*kinds, *pieces.PIECES, *_OF_DATA, *LEARNING)}


def test_the_pattern_finds_every_spelling_of_a_code() -> None:
    assert {"no-crs", "same-image", "threshold-assumed", "band-missing", "usage", "interrupted", "disk"} <= codes()


def test_every_code_is_documented() -> None:
    told = set(re.findall(r"`([a-z0-9-]+)`", (DOCS / "codes.md").read_text(encoding="utf-8")))
    assert codes() - told == set()


def test_no_code_is_documented_that_is_gone() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", (DOCS / "codes.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {c for row in rows for c in re.findall(r"`([a-z0-9-]+)`", row)} == codes()


@pytest.mark.parametrize("hazard", pieces.HAZARDS)
def test_every_method_has_its_section(hazard: str) -> None:
    page = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert [m for m in pieces.PIECES[hazard] if f"\n### {m}\n" not in page] == []


def test_every_option_of_map_is_documented() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    options = [name for option in main.commands["map"].params for name in option.opts]
    assert [name for name in options if f"`{name}" not in page] == []


def test_every_verb_is_documented() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert [verb for verb in main.commands if f"aftermap {verb}" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not RESERVED.match(link)]
    assert [link for link in links if link.split("#")[0] and not (page.parent / link.split("#")[0]).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_anchor_is_a_heading(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if anchor and not RESERVED.match(link) and target.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", h.lower()).strip()) for h in headings}
            assert anchor in slugs, f"{page.name}: {link}"


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2].partition("theme:")[0]
    assert [p.name for p in sorted(DOCS.glob("*.md")) if p.name not in nav] == []
