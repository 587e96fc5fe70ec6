"""Which passes of a satellite show an event: items of one pass together, the best after it, the one before that fits, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aftermap import stacfacts
from aftermap.aoi import Aoi
from aftermap.errors import UsageError
from aftermap.stacfacts import RADAR, Item

_GAP = timedelta(minutes=10)
"""Images of one pass follow within seconds; the next pass of the same orbit comes after days."""
NO_HOUR = "on the day of the event, whose hour is not given: before or after it cannot be told"


@dataclass(frozen=True)
class Moment:
    """When an event was: a time, or a day whose hour is not known."""

    start: datetime
    stop: datetime

    @classmethod
    def parse(cls, said: str) -> Moment:
        """Of ISO 8601, UTC where no zone is said. Raises UsageError."""
        try:
            found = datetime.fromisoformat(said.replace("Z", "+00:00"))
        except ValueError as error:
            raise UsageError(f"{said!r} is no date", repair="write 2024-05-13 or 2024-05-13T05:00:00Z") from error
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        return cls(found, found + timedelta(days=1) if len(said) <= len("2024-05-13") else found)


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What one pass saw of an area, its items by time."""

    kind: str
    """Of stacfacts.IMAGES."""
    items: tuple[Item, ...]
    coverage: float
    """Share of the area, in [0, 1]."""
    cloud: float | None
    """Percent, a mean of its items; None of radar."""

    @property
    def when(self) -> datetime:
        """Of its first item."""
        return stacfacts.when(self.items[0])

    @property
    def until(self) -> datetime:
        """Of its last item."""
        return stacfacts.when(self.items[-1])

    @property
    def platform(self) -> str:
        """As the catalog has it."""
        return str(self.items[0]["properties"].get("platform") or self.kind)

    @property
    def orbit(self) -> tuple[str, int | None]:
        """Direction and relative orbit."""
        return _orbit(self.items[0])

    def looks_as(self, other: Acquisition) -> bool:
        """Whether both look the same way at the same ground; False where nothing says."""
        return self.orbit == other.orbit and self.orbit[1] is not None

    def words(self, event: Moment | None = None) -> str:
        """For people."""
        direction, number = self.orbit
        said = [f"{self.platform} {stacfacts.stamp(self.when)}"]
        if event:
            said.append(_apart(self.when, event))
        if number is not None:
            said.append(f"{direction} orbit {number}".strip())
        said.append(f"covers {100 * self.coverage:.0f} % of the area")
        if self.cloud is not None:
            said.append(f"cloud {self.cloud:.0f} %")
        return ", ".join(said)


def _apart(when: datetime, event: Moment) -> str:
    hours = (when - (event.stop if when >= event.stop else event.start)).total_seconds() / 3600
    size = f"{abs(hours):.1f} h" if abs(hours) < 72 else f"{abs(hours) / 24:.1f} days"
    return f"{size} {'after' if hours >= 0 else 'before'} the event"


def _orbit(item: Item) -> tuple[str, int | None]:
    direction, number = stacfacts.orbit(item)
    if number is None and (named := re.search(r"_R(\d{3})_", str(item["id"]))):
        number = int(named[1])
    return direction, number


def grouped(items: Iterable[Item], aoi: Aoi) -> list[Acquisition]:
    """The passes that items of images are of, by time."""
    ordered = sorted(_newest(items), key=lambda i: (_same_pass(i), stacfacts.when(i), str(i["id"])))
    groups: list[list[Item]] = []
    for item in ordered:
        last = groups[-1][-1] if groups else None
        if last and _same_pass(item) == _same_pass(last) and stacfacts.when(item) - stacfacts.when(last) <= _GAP:
            groups[-1].append(item)
        else:
            groups.append([item])
    return sorted((_acquisition(group, aoi) for group in groups), key=lambda a: (a.when, a.kind, a.platform))


def _same_pass(item: Item) -> tuple[str, ...]:
    return stacfacts.kind_of(item).name, str(item["properties"].get("platform") or ""), *map(str, _orbit(item))


def _newest(items: Iterable[Item]) -> list[Item]:
    """Of one image that was processed more than once, the last: catalogs keep several."""
    found: dict[tuple[object, ...], Item] = {}
    for item in items:
        tile = item["properties"].get("s2:mgrs_tile") or item["properties"].get("grid:code")
        key = (str(item.get("collection")), str(tile or item["id"]), stacfacts.when(item).replace(microsecond=0))
        if key not in found or _version(item) > _version(found[key]):
            found[key] = item
    return list(found.values())


def _version(item: Item) -> tuple[str, str]:
    properties = item["properties"]
    baseline = properties.get("s2:processing_baseline") or properties.get("processing:version")
    return str(baseline or ""), str(properties.get("created") or item["id"])


def _acquisition(group: Sequence[Item], aoi: Aoi) -> Acquisition:
    clouds = [c for item in group if (c := stacfacts.cloud(item)) is not None]
    coverage = aoi.share(item["geometry"] for item in group)
    return Acquisition(stacfacts.kind_of(group[0]).name, tuple(group), coverage, sum(clouds) / len(clouds) if clouds else None)


@dataclass(frozen=True)
class Rules:
    """What makes a pass good enough."""

    least_coverage: float = 0.95
    most_cloud: float = 30.0
    days_after: float = 12.0
    days_before: float = 60.0
    together_days: float = 6.0
    """Passes that only together cover the area are at most this far apart."""


@dataclass(frozen=True)
class Choice:
    """Passes after the event, and before it the fitting ones in the same order, for what is seen by the first of them counts."""

    after: tuple[Acquisition, ...]
    before: tuple[Acquisition, ...]
    why: tuple[str, ...]
    passed_over: tuple[str, ...] = ()


def choose(passes: Sequence[Acquisition], event: Moment, rules: Rules) -> Choice | None:
    """Of passes of one kind; None where none was after the event.

    First are those that cover the area, have a pass before on the same orbit and are clear; of equals the earliest. Where none
    covers enough, several together.
    """
    images = [p for p in passes if p.coverage > 0]
    after, before = _sides(images, event, rules)
    if not after:
        return None
    partners = {id(a): _partner(a, before, rules) for a in after}

    def rank(one: Acquisition) -> tuple[object, ...]:
        clear = _clear(one, rules)
        whole = one.coverage >= rules.least_coverage
        return not whole, partners[id(one)] is None, not clear, 0.0 if clear else one.cloud, one.when

    ordered = sorted(after, key=rank)
    chosen = [ordered[0]] if ordered[0].coverage >= rules.least_coverage else _together(ordered, rules)
    fitting = [p for a in chosen if (p := partners[id(a)])]
    why = [f"after: {a.words(event)}" for a in chosen] + [f"before: {p.words(event)}{_fits(p, chosen)}" for p in fitting]
    why += [f"no pass before fits {a.platform} {a.when:%Y-%m-%d}: {_lonely(a, before)}" for a in chosen if not partners[id(a)]]
    left = [p for p in images if all(p is not c for c in (*chosen, *fitting))]
    over = tuple(f"{p.words(event)}: {_why_not(p, chosen, event, rules)}" for p in left)
    return Choice(tuple(chosen), tuple(dict.fromkeys(fitting)), tuple(why), over)


def _sides(
    passes: Sequence[Acquisition], event: Moment, rules: Rules
) -> tuple[list[Acquisition], list[Acquisition]]:  # fmt: skip
    last, first = event.stop + timedelta(days=rules.days_after), event.start - timedelta(days=rules.days_before)
    return (
        [p for p in passes if event.stop <= p.when <= last],
        [p for p in passes if first <= p.when and p.until < event.start],
    )


def _clear(one: Acquisition, rules: Rules) -> bool:
    return one.cloud is None or one.cloud <= rules.most_cloud


def _partner(after: Acquisition, before: Sequence[Acquisition], rules: Rules) -> Acquisition | None:
    """The last before of the same look that covers as much; of optical images, which need no same look, the clear ones first."""
    able = [p for p in before if p.coverage >= min(rules.least_coverage, after.coverage - 0.02)]
    if after.kind == RADAR.name:
        able = [p for p in able if p.looks_as(after)]
    ordered = sorted(able, key=lambda p: (_clear(p, rules), p.looks_as(after), p.when))
    return ordered[-1] if ordered else None


def _together(ordered: Sequence[Acquisition], rules: Rules) -> list[Acquisition]:
    """The passes that cover most together, each adding something; their joint cover is at most the sum of their shares."""
    first, span = ordered[0], timedelta(days=rules.together_days)
    chosen, covered = [first], first.coverage
    for one in ordered[1:]:
        if covered >= rules.least_coverage:
            break
        if abs(one.when - first.when) <= span and all(not one.looks_as(c) for c in chosen):
            chosen.append(one)
            covered += one.coverage
    return chosen


def _fits(before: Acquisition, after: Sequence[Acquisition]) -> str:
    return "; the last on the same orbit" if any(before.looks_as(a) for a in after) else ""


def _lonely(after: Acquisition, before: Sequence[Acquisition]) -> str:
    if after.kind != RADAR.name:
        return "none covers as much"
    same = [p for p in before if p.looks_as(after)]
    return "those on its orbit cover less" if same else "none is on its orbit, and another looks at slopes and walls otherwise"


def _why_not(one: Acquisition, chosen: Sequence[Acquisition], event: Moment, rules: Rules) -> str:
    if event.start <= one.until and one.when < event.stop:
        return NO_HOUR
    if one.when < event.stop:
        if one.kind == RADAR.name and not any(one.looks_as(a) for a in chosen):
            return "on another orbit than the pass after"
        return "covers less" if one.coverage < rules.least_coverage else "another is clearer, or nearer to the event"
    if one.when > event.stop + timedelta(days=rules.days_after):
        return f"more than {rules.days_after:g} days after the event"
    if one.coverage < rules.least_coverage:
        return "covers too little"
    return "cloudier" if not _clear(one, rules) else "no pass before fits it, or another is earlier"
