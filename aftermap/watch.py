"""The verb `watch`: each new pass over an area mapped once, all on one grid, and a series of their extents kept beside."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from aftermap import journal, mishaps, stacfacts
from aftermap.acquisitions import NO_HOUR, Acquisition, Choice, Moment, Rules, choose, grouped
from aftermap.aoi import Aoi
from aftermap.catalog import Catalog, search
from aftermap.deliver import Options
from aftermap.errors import InputRefusedError, JobInterruptedError, UnknownNameError, UsageError
from aftermap.eventmap import Asked, map_event
from aftermap.find import Wish, ground, held, images
from aftermap.hazardmap import HazardMap
from aftermap.itemfile import EventFile, Part, Place
from aftermap.pieces import PIECES
from aftermap.series import Frame, read_series, write_series
from aftermap.sheets import Sheet, fitted, sheets
from aftermap.stacfacts import Item
from aftermap.watchfile import Pass, State, placed

ITEMS, MAPS, WINDOWS = "items", "maps", "windows"
LATE = timedelta(days=30)
"""Before the newest pass that is known: so late an older one may still come to a catalog."""
_ALONE = {
    "flood": "open water, permanent water not separated",
    "landslide": "bare soil, old and new not separated",
    "building": "buildings, damage not told",
}
"""What one image shows in place of the hazard; of the others one is enough."""
_ALWAYS_DAYS = 36_500.0
_GREW = 0.01
"""Share of the area that a pass must have gained to be mapped anew."""
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
_UNASKED = ("memory_mb", "overwrite", "workers", "cluster")
"""Options that change no pixel."""
Progress = Callable[[str, int, int], None]
Shown = Callable[[], AbstractContextManager[Progress]]


def seconds(every: str) -> float:
    """Of 30m, 6h or 1d. Raises UsageError."""
    said = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", every.strip())
    if not said or not (found := float(said[1]) * _UNITS_S[said[2]]):
        raise UsageError(f"--every is {every!r}", repair="give minutes, hours or days: 30m, 6h, 1d")
    return found


@dataclass(frozen=True)
class Round:
    """What one round did and found."""

    mapped: tuple[str, ...]
    """Folders of passes that were mapped, or mapped again."""
    skipped: Mapping[str, str]
    """Passes that the catalog showed for the first time, or another reason of them, and why they are not mapped."""
    refused: Mapping[str, str]
    failed: Mapping[str, int]
    """Maps to how many of their windows could not be read."""
    analysed: bool
    """False where there are maps and all of them are "not analysed"."""
    rows: Sequence[Mapping[str, Any]]
    """Of series.json."""

    @property
    def exit_code(self) -> int:
        """3 where a pass was refused, 6 where windows failed, 4 where nothing could be analysed, else 0."""
        if self.refused:
            return InputRefusedError.exit_code
        return 6 if self.failed else 0 if self.analysed else 4


@dataclass(frozen=True)
class Watch:
    """An area that is watched into `out`. Raises UsageError ("wide-area") where it is wider than one sheet, UnknownNameError."""

    aoi: Aoi
    wish: Wish
    where: Catalog
    out: Path
    method: str = "auto"
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if len(laid := sheets(self.aoi)) > 1:
            what = f"the area lies on {len(laid)} map sheets: {', '.join(s.name for s in laid)}"
            raise UsageError(what, repair="split it, and watch each part into a folder of its own", code="wide-area")
        if self.method != "auto" and self.method not in PIECES[self.wish.hazard]:
            raise UnknownNameError("method", self.method, ["auto", *PIECES[self.wish.hazard]])
        held(self.wish, self.where)
        _ = self.event

    @cached_property
    def event(self) -> Moment:
        """What lies before it is the reference."""
        return Moment.parse(self.wish.event)

    @property
    def asked(self) -> dict[str, Any]:
        """What determines the maps."""
        options = {name: value for name, value in asdict(self.options).items() if name not in _UNASKED}
        wish = {**asdict(self.wish), "kinds": list(self.wish.images)}
        return {
            "area": self.aoi.geojson, "catalog": self.where.url, "token_url": self.where.token_url, **wish,
            "method": self.method, "options": options,
        }  # fmt: skip

    @contextmanager
    def taken(self) -> Iterator[tuple[State, Path]]:
        """The state, and a folder to work in, while no other process has them. Raises UsageError ("busy", "other-run")."""
        self._refuse_other(State.read(self.out, self.asked))
        with journal.Journal(self.out, journal.digest(self.asked)) as log:
            try:
                log.open(overwrite=False)
            except UsageError as error:
                if error.code == "other-run":
                    raise self._other("holds another run") from error
                raise
            for name in (ITEMS, MAPS, WINDOWS):
                (self.out / name).mkdir(exist_ok=True)
            yield State.read(self.out, self.asked), log.stage

    def _refuse_other(self, state: State) -> None:
        if journal.digest(state.asked) != journal.digest(self.asked):
            differ = [
                name for name, value in self.asked.items() if journal.digest(state.asked.get(name)) != journal.digest(value)
            ]
            raise self._other(f"is a watch of something else: {', '.join(differ)} differ{'s' * (len(differ) == 1)}")

    def _other(self, why: str) -> UsageError:
        return UsageError(f"{self.out} {why}", repair="choose another -o, or ask as before", code="other-run")

    def round(self, state: State, stage: Path, progress: Progress = lambda *_: None) -> Round:
        """Looks for passes, maps what is not mapped, tries again what failed, and brings the series up to date.

        Raises JobInterruptedError ("catalog" where it does not answer, "disk"), UsageError, InputRefusedError.
        """
        already = dict(state.skipped)
        self._plan(state)
        mapped, refused = [], {}
        for one in state.ordered:
            if self._delivered(one) and not self._frame(one).failed:
                continue
            try:
                self._map(one, progress)
            except InputRefusedError as error:
                refused[one.folder] = f"{error} [{error.code}]"
                state.put(one, refused=refused[one.folder])
            else:
                mapped.append(one.folder)
                state.put(one, mapped=True, refused="")
            state.write()
            self._series(state, stage)
        frames = self._series(state, stage)
        return Round(
            tuple(mapped), {k: why for k, (_, why) in state.skipped.items() if already.get(k, ("", ""))[1] != why}, refused,
            {f.mapped.folder.name: f.failed for f in frames if f.failed},
            not frames or any(f.mapped.answer != "not analysed" for f in frames), read_series(self.out),
        )  # fmt: skip

    def _plan(self, state: State) -> None:
        """Writes an item file for each pass that is to be mapped; why others are not stands in the state."""
        (sheet,) = sheets(self.aoi)
        before = grouped(self._search(self.event.start - timedelta(days=self.wish.rules.days_before), self.event.start), self.aoi)
        since = max(self.event.start, state.newest - LATE) if state.newest else self.event.start
        after = [p for p in grouped(self._search(since, datetime.now(UTC)), self.aoi) if p.when >= self.event.start]
        if state.grid is None and (shown := [item for p in (*after, *before) for item in p.items]):
            state.grid = placed(fitted(sheet, shown).grid(self._gsd_m))
        sheet = replace(sheet, crs=state.grid["crs"]) if state.grid else sheet
        if state.grid is not None and placed(sheet.grid(self._gsd_m)) != state.grid:
            raise self._other("holds maps on a grid that this version does not make")
        for one in after:
            self._take(one, before, sheet, state)
        state.write()

    def _search(self, since: datetime, until: datetime) -> list[Item]:
        if since >= until:
            return []
        return search(self.where.url, [self.where.images[k] for k in held(self.wish, self.where)], self.aoi, (since, until))

    @property
    def _gsd_m(self) -> float:
        return min(stacfacts.KINDS[kind].gsd_m for kind in stacfacts.IMAGES)

    def _take(self, one: Acquisition, before: Sequence[Acquisition], sheet: Sheet, state: State) -> None:
        """A pass into the state: to be mapped, or why not."""
        new = Pass.of(one)
        known = state.known(new)
        if known and new.coverage <= known.coverage + _GREW:
            return
        choice = _chosen(one, before, self.event, self.wish.rules)
        if why := _why_not(one, choice, self.event, self.wish):
            if not known:
                state.skipped[new.folder] = (new.acquired, why)
            return
        assert choice is not None
        new = replace(new, folder=known.folder) if known else new
        self._write_items(new, choice, sheet, state)
        state.put(new)
        state.write()

    def _write_items(self, one: Pass, choice: Choice, sheet: Sheet, state: State) -> None:
        layers, why = self._ground(one.kind, sheet, state)
        part = Part(sheet, images(one.kind, choice) | layers, (*choice.why, *why), choice.passed_over)
        event = EventFile(self.wish.hazard, self.wish.event, self.where.url, self.where.token_url, (part,))
        event.write(self._items(one))

    def _ground(self, kind: str, sheet: Sheet, state: State) -> tuple[dict[Place, tuple[Item, ...]], list[str]]:
        """What lies beside images of a kind: that of the first pass for all of them, so that the series shows what changed."""
        first = next((p for p in state.ordered if p.kind == kind), None)
        if first is None:
            return ground(sheet, (kind,), self.wish, self.where)
        (part,) = EventFile.read(self._items(first)).parts
        layers = {place: items for place, items in part.layers.items() if place[0] not in ("after", "before")}
        return layers, [f"{layer}: as for {first.folder}" for layer, _ in layers]

    def _map(self, one: Pass, progress: Progress) -> None:
        """Maps a pass, resumes it, or tries its failed windows again."""
        asked = Asked(
            self._items(one), self.out / MAPS / one.folder, self.method, replace(self.options, overwrite=True),
            name=f"{self.wish.hazard}-{one.folder}", windows=self.out / WINDOWS, retry_failed=True,
        )  # fmt: skip
        map_event(asked, progress=progress)

    def _items(self, one: Pass) -> Path:
        return self.out / ITEMS / f"{one.folder}.json"

    def _frame(self, one: Pass) -> Frame:
        return Frame(HazardMap(self.out / MAPS / one.folder), EventFile.read(self._items(one)))

    def _frames(self, state: State) -> list[Frame]:
        return [self._frame(one) for one in state.ordered if self._delivered(one)]

    def _series(self, state: State, stage: Path) -> list[Frame]:
        """Brings the products of the series up to date."""
        frames = self._frames(state)
        with mishaps.told(self.out):
            write_series(self.out, frames, stage)
        return frames

    def _delivered(self, one: Pass) -> bool:
        return one.mapped and (self.out / MAPS / one.folder / journal.SEAL).exists()


def once(watched: Watch, shown: Shown | None = None) -> Round:
    """One round; `shown` makes a progress. Raises as Watch.taken and Watch.round have it."""
    with watched.taken() as (state, stage), (shown or _unseen)() as progress:
        return watched.round(state, stage, progress)


def keep(
    watched: Watch, every_s: float, told: Callable[[Round | JobInterruptedError], None], shown: Shown | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:  # fmt: skip
    """A round each `every_s` seconds from start to start, told as it ends, until interrupted between two.

    A catalog that does not answer is told in place of a round, and asked again in the next. Raises JobInterruptedError where
    interrupted within a round.
    """
    with watched.taken() as (state, stage):
        while True:
            started = time.monotonic()
            try:
                with (shown or _unseen)() as progress:
                    found: Round | JobInterruptedError = watched.round(state, stage, progress)
            except JobInterruptedError as error:
                if error.code != "catalog":
                    raise
                found = error
            try:
                told(found)
                wait(max(every_s - (time.monotonic() - started), 0.0))
            except KeyboardInterrupt:
                return


def _unseen() -> AbstractContextManager[Progress]:
    return nullcontext(lambda *_: None)


def _chosen(one: Acquisition, before: Sequence[Acquisition], event: Moment, rules: Rules) -> Choice | None:
    """A pass with the one before it that covers as much, or else with one that covers enough; None on the day of the event."""
    wide = replace(rules, days_after=_ALWAYS_DAYS)
    whole = choose([one, *before], event, replace(wide, least_coverage=one.coverage))
    return whole if whole is None or whole.before else choose([one, *before], event, wide)


def _why_not(one: Acquisition, choice: Choice | None, event: Moment, wish: Wish) -> str:
    """Why a pass is not mapped, in words; empty where it is."""
    if choice is None:
        return NO_HOUR if one.coverage else "shows nothing of the area"
    if one.coverage < wish.rules.least_coverage:
        return f"covers {100 * one.coverage:.0f} % of the area, less than {100 * wish.rules.least_coverage:.0f} %"
    if one.cloud is not None and one.cloud > wish.rules.most_cloud:
        return f"cloud {one.cloud:.0f} %, more than {wish.rules.most_cloud:.0f} %"
    if not choice.before and wish.hazard in _ALONE:
        return f"{choice.why[-1]}; alone it would show {_ALONE[wish.hazard]}"
    return ""
