"""For mkdocs: the benchmark tables become pages of the site, and links to them from docs/ lead there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PLACE = "benchmarks/results"


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Adds every table and figure."""
    for path in sorted([*RESULTS.glob("*.md"), *RESULTS.glob("*.jpg")]):
        files.append(File.generated(config, f"{PLACE}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """In the repository the tables lie beside docs/, in the site below it."""
    return markdown.replace(f"](../{PLACE}/", f"]({PLACE}/").replace("](../../docs/", "](../../")
