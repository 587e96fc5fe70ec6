"""The verb `find`: an area, a time and a hazard in, the images that show the event out, with what lies beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from aftermap import stacfacts
from aftermap.acquisitions import Choice, Moment, Rules, choose, grouped
from aftermap.aoi import Aoi
from aftermap.catalog import Catalog, search
from aftermap.errors import InputRefusedError, UnknownNameError
from aftermap.itemfile import EventFile, Part, Place
from aftermap.pieces import HAZARDS
from aftermap.sheets import Sheet, fitted, sheets
from aftermap.stacfacts import IMAGES, OPTICAL, RADAR, Item

USUAL: Mapping[str, tuple[str, ...]] = {
    "flood": (RADAR.name,), "landslide": (OPTICAL.name,), "fracture": (OPTICAL.name,), "building": (OPTICAL.name,),
}  # fmt: skip
"""Images that each hazard is looked for in: radar sees floods through cloud, slides and cracks show in colour."""
BESIDE: Mapping[str, tuple[str, ...]] = {
    "flood": ("dem", "reference_water", "low_sensitivity"), "landslide": ("dem",), "fracture": (), "building": (),
}  # fmt: skip
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Wish:
    """What is looked for."""

    hazard: str
    event: str
    """ISO 8601: a time, or a day whose hour is not known."""
    kinds: tuple[str, ...] = ()
    """Of stacfacts.IMAGES; empty for those of the hazard."""
    beside: tuple[str, ...] | None = None
    """Layers beside the images; None for those of the hazard."""
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        if self.hazard not in HAZARDS:
            raise UnknownNameError("hazard", self.hazard, HAZARDS)
        for kind in self.kinds:
            if kind not in IMAGES:
                raise UnknownNameError("kind of image", kind, IMAGES)
        known = sorted({layer for layers in BESIDE.values() for layer in layers})
        for layer in self.beside or ():
            if layer not in known:
                raise UnknownNameError("layer", layer, known)

    @property
    def images(self) -> tuple[str, ...]:
        """Kinds that are asked for."""
        return self.kinds or USUAL[self.hazard]


def find(aoi: Aoi, wish: Wish, where: Catalog, *, progress: Progress = lambda *_: None) -> EventFile:
    """The items that show an event, on each sheet of the area.

    Raises UsageError, InputRefusedError ("no-pass", "catalog"), JobInterruptedError ("catalog").
    """
    event, kinds = Moment.parse(wish.event), held(wish, where)
    laid, parts, empty = sheets(aoi), [], []
    for done, sheet in enumerate(laid, 1):
        choices = {k: _images(sheet, k, event, wish.rules, where) for k in kinds}
        if any(choice for choice, _ in choices.values()):
            parts.append(_part(sheet, {k: c for k, (c, _) in choices.items() if c}, wish, where))
        else:
            empty += [words for _, seen in choices.values() for words in seen]
        progress("find", done, len(laid))
    if not parts:
        seen = "; ".join(empty[:5]) or "the catalog has none of the area at that time"
        what = f"no pass shows the area within {wish.rules.days_after:g} days after {wish.event}: {seen}"
        raise InputRefusedError(
            what, repair="wait for the next pass, give another --sensor, or more --days-after", code="no-pass"
        )
    return EventFile(wish.hazard, wish.event, where.url, where.token_url, tuple(parts))


def held(wish: Wish, where: Catalog) -> tuple[str, ...]:
    """Of the kinds of images that are asked for those that a catalog has. Raises InputRefusedError ("no-pass")."""
    found = tuple(kind for kind in wish.images if kind in where.images)
    if not found:
        what = f"{where.name} has no {' and no '.join(wish.images)} images that can be mapped"
        raise InputRefusedError(f"{what}: {where.note}" if where.note else what, repair="ask another catalog", code="no-pass")
    return found


def _images(sheet: Sheet, kind: str, event: Moment, rules: Rules, where: Catalog) -> tuple[Choice | None, list[str]]:
    """What is chosen, and what was seen, in words."""
    span = (event.start - timedelta(days=rules.days_before), event.stop + timedelta(days=rules.days_after))
    passes = grouped(search(where.url, [where.images[kind]], sheet.area, span), sheet.area)
    return choose(passes, event, rules), [p.words(event) for p in passes]


def _part(sheet: Sheet, choices: Mapping[str, Choice], wish: Wish, where: Catalog) -> Part:
    layers, told = ground(sheet, tuple(choices), wish, where)
    layers = {place: items for kind, choice in choices.items() for place, items in images(kind, choice).items()} | layers
    why = [words for choice in choices.values() for words in choice.why] + told
    after = [item for (layer, _), items in layers.items() if layer == "after" for item in items]
    over = tuple(words for choice in choices.values() for words in choice.passed_over)
    return Part(fitted(sheet, after), layers, tuple(why), over)


def images(kind: str, choice: Choice) -> dict[Place, tuple[Item, ...]]:
    """The items of what was chosen, by layer."""
    sides = {("after", kind): choice.after, ("before", kind): choice.before}
    return {place: tuple(item for one in passes for item in one.items) for place, passes in sides.items() if passes}


def ground(
    sheet: Sheet, kinds: Sequence[str], wish: Wish, where: Catalog
) -> tuple[dict[Place, tuple[Item, ...]], list[str]]:  # fmt: skip
    """What lies beside images of those kinds, and what of it the catalog has, in words."""
    layers: dict[Place, tuple[Item, ...]] = {}
    why = []
    for layer in BESIDE[wish.hazard] if wish.beside is None else wish.beside:
        if layer == stacfacts.COVER.name and RADAR.name not in kinds and wish.beside is None:
            continue
        if layer not in where.beside:
            why.append(f"{layer}: {where.name} has none")
        elif items := _beside(layer, sheet, where):
            layers[layer, layer] = tuple(items)
            said = stacfacts.kind_of(items[0]).from_made
            why.append(f"{layer}: {where.beside[layer]}{f', {said}' if said else ''}")
        else:
            why.append(f"{layer}: {where.beside[layer]} has none of the area")
    return layers, why


def _beside(layer: str, sheet: Sheet, where: Catalog) -> Sequence[Item]:
    """The newest first."""
    items = search(where.url, [where.beside[layer]], sheet.area)
    return sorted(items, key=lambda i: (stacfacts.when(i), str(i["id"])), reverse=True)
