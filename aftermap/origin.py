"""Where the images of a map come from when a catalog was asked, and which windows of them could not be read: for its run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aftermap import journal
from aftermap.check import Finding
from aftermap.gather import Gathered
from aftermap.itemfile import EventFile, Part, ids
from aftermap.parts import Contents

RULE = "the first image that observed a place counts, in the order of `items`"


@dataclass(frozen=True)
class Origin:
    """Of one map."""

    facts: Mapping[str, Any]
    failed: tuple[Mapping[str, Any], ...] = ()
    """Windows that stand as not observed (gather.py)."""
    cells: Mapping[tuple[int, int], str] = field(default_factory=dict, repr=False)
    """Of the images, as parts.Contents has them."""
    side_px: int = 1

    @classmethod
    def of(cls, event: EventFile, part: Part, found: Gathered) -> Origin:
        """Of one sheet of an event."""
        layers = {f"{layer} {kind}" if layer != kind else layer: ids(items) for (layer, kind), items in part.layers.items()}
        facts = {
            "api": event.catalog, "event": event.event, "sheet": part.sheet.name, "items": layers, "mosaic": RULE,
            "why": list(part.why), "passed_over": list(part.passed_over),
        }  # fmt: skip
        return cls(facts, found.failed, found.cells, found.side_px)

    def recorded(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of a map, with this. Maps of one `lineage` differ in the windows that could be read, and a new one may
        take the place of the last."""
        same = {k: facts[k] for k in ("aftermap", "hazard", "name", "models", "parameters", "versions")}
        return {
            **facts, "catalog": dict(self.facts), "failed": [dict(one) for one in self.failed],
            "lineage": journal.digest([self.facts, same]), "warnings": [*facts["warnings"], *self._warnings()],
        }  # fmt: skip

    def contents(self, facts: Mapping[str, Any]) -> Contents:
        """What a recorded map is made of, block by block: layers beside the images count as a whole."""
        beside = {k: v for k, v in facts["inputs"].items() if k.partition("-")[0] not in ("after", "before")}
        return Contents(journal.digest([facts["lineage"], facts["grid"], beside]), self.cells, self.side_px)

    def _warnings(self) -> list[dict[str, str]]:
        if not self.failed:
            return []
        first = self.failed[0]
        what = (
            f"{len(self.failed)} windows could not be read and stand as not observed, the first: {first['cell']}: {first['why']}"
        )
        repair = "run the same command with --retry-failed"
        return [Finding("windows-failed", "warn", what, str(self.facts["api"]), repair).facts()]
