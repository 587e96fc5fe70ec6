"""The report a responder opens: one self-contained page of words, pictures and tables."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from aftermap import palette
from aftermap.markup import (
    Html,
    amount,
    bullets,
    data_uri,
    date,
    join,
    orientation,
    pairs,
    percent,
    place,
    plain,
    swatch,
    table,
    tag,
)
from aftermap.palette import U8

_QUANTITIES = {
    "affected_area": "Affected", "analysed_area": "Analysed", "not_analysed_area": "Not analysed",
    "area_of_interest": "Area of interest", "polygons": "Polygons", "largest_polygon": "Largest polygon",
}  # fmt: skip
_ASSETS = {
    "assets_total": "Assets in the area", "assets_affected": "Assets affected", "assets_not_analysed": "Assets not analysed",
}  # fmt: skip
_BUILDINGS = {"buildings_total": "Buildings in the area", "buildings": "Buildings"}
_COUNT_TOO = {
    "open water": "rivers and lakes count", "bare soil": "fields, roads and river beds count",
    "bright surface": "roads, bare ground and cloud count", "rough surface": "trees and rocks count",
    "change": "trees, ground and shadows count",
}  # fmt: skip
"""By what is mapped: what else the map takes for the hazard."""
_FILES = {
    "map.qgz": "all of it for QGIS, in its styles: a double click opens it",
    "map.gpkg": "polygons with their attributes and styles, for QGIS",
    "likelihood.tif": "likelihood in percent", "extent.tif": "the mapped extent",
    "exclusion.tif": "why a pixel was not analysed", "agreement.tif": "how many methods agree",
    "spread.tif": "how far the members of the ensemble lie apart", "density.tif": "share of hazard per cell",
    "familiarity.tif": "how near the ground is to what the model knows",
    "density_class.tif": "class of density per cell, by the model", "priority.csv": "the cells to look at first",
    "summary.csv": "the numbers above", "item.json": "STAC item", "run.json": "all that determines this result",
}  # fmt: skip


def write_report(path: Path, *, run: Mapping[str, Any], summary: Sequence[Mapping[str, Any]], pictures: Mapping[str, U8]) -> None:
    """Writes the page: the same bytes for the same values. `run` is run.json, `summary` the rows of summary.csv.

    `pictures`: "before", "after" (y, x, 3); "likelihood", "extent", "exclusion", "agreement", "spread", "familiarity" (y, x, 4).
    One size; any may miss.
    """
    assert len({p.shape[:2] for p in pictures.values()}) < 2, "pictures differ in size"
    template = files("aftermap").joinpath("static/report.html").read_text("utf-8")
    script = template.partition("<script>")[2].partition("</script>")[0]
    rows, columns = next(iter(pictures.values())).shape[:2] if pictures else (1, 1)
    stops = ", ".join(f"{palette.css(colour)} {at}%" for at, colour in palette.LIKELIHOOD)
    page = Template(template).substitute(
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=escape(run["aftermap"]),
        title=escape(f"{run['name']}: {_verdict(run, _Numbers(summary))}"),
        extent=palette.css(palette.EXTENT), hatch=palette.css(palette.NOT_ANALYSED), ramp=f"linear-gradient(90deg, {stops})",
        rows=rows, columns=columns,
        pictures=_stored(pictures), header=_header(run, _Numbers(summary)), viewer=_viewer(run, _Numbers(summary), pictures),
        sections=join(*_sections(run, _Numbers(summary), pictures)),
        footer=f"Made by aftermap {escape(run['aftermap'])}. This page holds everything it shows and needs no network.",
    )  # fmt: skip
    path.write_text(page, encoding="utf-8", newline="\n")


def _verdict(run: Mapping[str, Any], numbers: _Numbers) -> str:
    noun = run["maps"].partition(",")[0]
    if run["answer"] != "found":
        return f"No {noun} found" if run["answer"] == "nothing found" else "Could not be analysed"
    return amount(numbers.value("affected_area") or 0.0, run["area_unit"]) + (" flooded" if noun == "flood" else f" of {noun}")


def _header(run: Mapping[str, Any], numbers: _Numbers) -> Html:
    mood = {"found": "found", "nothing found": "nothing"}.get(run["answer"], "unknown")
    inputs, pixel_m = run["inputs"], run["grid"]["pixel_m"]
    seen = " → ".join(date(inputs[k].get("acquired")) for k in ("before", "after") if k in inputs)
    where = f"{place(run['grid'])}, {f'{pixel_m:.3g} m pixels' if pixel_m else 'pixel size not known'}"
    sensors = " + ".join(dict.fromkeys(facts["sensor"] for k, facts in inputs.items() if k.partition("-")[0] == "after"))
    kicker = tag('div class="kicker"', tag("span", tag("b", run["name"]), f" · {sensors} · {seen}"), where)
    links = [Html('<a href="map.qgz">Open map.qgz in QGIS</a><a href="summary.csv">summary.csv</a>')]
    if count := len(run["warnings"]):
        links.insert(0, tag('a class="caution" href="#warnings"', f"{count} warning{'s' if count > 1 else ''}"))
    answer = tag("h1", _verdict(run, numbers)), tag('p class="lede"', *_lede(run, numbers)), _share(numbers)
    return tag(f'header class="{mood}"', kicker, *answer, _facts(run, numbers), tag('div class="actions"', *links))


def _lede(run: Mapping[str, Any], numbers: _Numbers) -> list[object]:
    """What the number means: what was mapped, where the map is silent."""
    noun, _, caveat = run["maps"].partition(", ")
    if run["answer"] == "not analysed":
        words = f"Not one pixel could be analysed: this map says neither that there is {noun} nor that there is none. "
        return [words, tag('a href="#excluded"', "Why it failed"), "."]
    count, largest, left = (numbers.value(q) for q in ("polygons", "largest_polygon", "not_analysed_area"))
    words = f"What is mapped is {noun}, {caveat}: {_COUNT_TOO.get(noun, 'other ground may count')} too. " if caveat else ""
    if run["answer"] == "found" and count and largest is not None:
        many = f"In {count:,.0f} polygons, the largest {amount(largest, run['area_unit'])}. "
        words += many if count > 1 else "In one polygon. "
    share = tag("strong", f"{percent(numbers.value('analysed_area', 'percent_of_aoi'))} of the area was analysed.")
    missed = f" The other {amount(left, run['area_unit'])} were not: {noun} there would not be on this map." if left else ""
    return [words, share, missed]


def _share(numbers: _Numbers) -> Html:
    """One bar over the whole area: affected, analysed without hazard, not analysed."""
    part = {q: numbers.value(f"{q}_area", "percent_of_aoi") or 0.0 for q in ("affected", "analysed", "not_analysed")}
    part["analysed"] = max(0.0, part["analysed"] - part["affected"])
    bars = [Html(f'<i class="i-{q}" style="flex:{share:.4f} 0 0"></i>') for q, share in part.items() if share > 0]
    return tag('div class="share" aria-hidden="true"', *bars)


def _facts(run: Mapping[str, Any], numbers: _Numbers) -> Html:
    facts = []
    for quantity, words in _QUANTITIES.items():
        value, share = numbers.value(quantity), numbers.value(quantity, "percent_of_aoi")
        if value is None or quantity == "area_of_interest" or _unknowable(run, quantity):
            continue
        mark = Html(f'<i class="swatch i-{quantity}"></i>') if "analysed" in quantity or quantity == "affected_area" else ""
        note = "" if share is None else tag("small", f"{percent(share)} of the area")
        number = amount(value, "count" if quantity == "polygons" else run["area_unit"])
        facts.append(tag("div", tag("dt", mark, words), tag("dd", number, note)))
    return tag('dl class="facts"', *facts)


def _unknowable(run: Mapping[str, Any], quantity: str) -> bool:
    """True where a zero of the summary would read as "none" although nothing was looked at."""
    return run["answer"] == "not analysed" and quantity in ("affected_area", "polygons", "largest_polygon", "assets_affected")


def _section(ident: str, title: str, *parts: object) -> Html:
    return tag(f'section id="{ident}"', tag("h2", title), tag("div", *parts))


def _sections(run: Mapping[str, Any], numbers: _Numbers, pictures: Mapping[str, U8]) -> list[Html]:
    return [
        _section("consequences", "Consequences", _consequences(run, numbers), *_graded(run)),
        _section("excluded", "What was not analysed, and why", _excluded(numbers)),
        _section("methods", "Do the methods agree?", *_methods(run["methods"], pictures)),
        _section("warnings", "Warnings and assumptions", *_warnings(run)),
        _section("made", "How it was made", *_made(run)),
        _section("limits", "Limits of this map", bullets("plain", _limits(run))),
        _section("files", "Files beside this page", _files(run, pictures)),
    ]


def _consequences(run: Mapping[str, Any], numbers: _Numbers) -> Html:
    rows = []
    for row in numbers.rows:
        name, number = row["quantity"], amount(float(row["value"]), row["unit"])
        cells = ("not known", "") if _unknowable(run, name) else (number, percent(row["percent_of_aoi"]))
        rows.append(((_QUANTITIES | _ASSETS | _BUILDINGS).get(name, name), row["class"], *cells))
    return table(("Quantity", "Class", "Amount", "Share of area"), rows, numeric=(2, 3))


def _graded(run: Mapping[str, Any]) -> list[Html]:
    """What the grades of buildings rest on, where any were graded; a network grades by no levels."""
    graded = run.get("buildings")
    if not graded:
        return []
    from_, words = graded["from"], graded["words"]
    unit = "score" if "quiet" in graded else "share"
    levels = ", ".join(f"{word.lower()} from a {unit} of {level:.2g}" for word, level in zip(words[1:], from_, strict=False))
    caution = "A machine graded them from above; nobody has looked at a building."
    return [tag("p", f"Buildings are graded by this: {graded['graded_by']}{f' ({levels})' if levels else ''}. {caution}")]


def _excluded(numbers: _Numbers) -> Html:
    if not numbers.reasons:
        return tag("p", "Every pixel of the area was analysed.")
    bars = []
    for row in numbers.reasons:
        share = float(row["percent_of_aoi"] or 0)
        bar = tag(
            'span class="track"',
            Html(f'<i style="width:{share:.3f}%;background:{palette.css(palette.excluded(row["reason"]))}"></i>'),
        )
        words = tag('span class="soft"', amount(float(row["value"]), row["unit"]), " · ", percent(share))
        bars.append(join(tag("span", str(row["reason"]).capitalize()), words, bar))
    return bullets("bars", bars)


def _methods(methods: Mapping[str, Any], pictures: Mapping[str, U8]) -> list[Html]:
    leads, ran, skipped = methods["combined"], methods["ran"], methods["skipped"]
    led = tag("b", " + ".join(leads))
    parts = [tag("p", led, " led: ", methods["why"]) if leads else tag("p", "No method could run.")]
    parts.append(tag('div class="cards"', *(_card(name, numbers, name in leads) for name, numbers in ran.items())))
    if "agreement" in pictures and "after" in pictures:
        picture = _svg(pictures, 'role="img" aria-label="Agreement of methods"', "after muted", "agreement")
        parts.append(tag('figure class="agreement"', picture, tag('figcaption class="keys"', *_agreement_keys(len(ran)))))
    if skipped:
        parts.append(bullets("plain", [join(tag("b", name), " did not run: ", why) for name, why in skipped.items()]))
    return parts


def _agreement_keys(count: int) -> list[Html]:
    return [swatch(palette.css(palette.agreed(k, count)), f"{k} of {count} methods") for k in range(1, count + 1)]


def _card(name: str, numbers: Mapping[str, object], leads: bool) -> Html:
    badge = Html('<span class="badge">leads</span>') if leads else ""
    return tag(f'div class="card{" lead" if leads else ""}"', tag("h3", name, badge), pairs(numbers))


def _warnings(run: Mapping[str, Any]) -> list[Html]:
    warnings, assumed = [_warning(w) for w in run["warnings"]], run["assumptions"]
    parts = [tag("div", *warnings) if warnings else tag("p", "No warnings.")]
    return [*parts, tag("h3", "Assumed"), bullets("plain", assumed)] if assumed else parts


def _warning(warning: Mapping[str, Any]) -> Html:
    where = f" ({warning['where']})" if warning["where"] else ""
    repair = tag("p", "What to do: ", warning["repair"]) if warning["repair"] else ""
    return tag(
        'div class="warning"', tag("p", tag("b", warning["what"]), where), repair, tag('span class="mono"', warning["code"])
    )


def _made(run: Mapping[str, Any]) -> list[Html]:
    """Collapsed parts: inputs, grid, parameters, versions; numbers to the last digit."""
    parts = {"Inputs": tag("div", *(part for layer, facts in run["inputs"].items() for part in _input(layer, facts)))}
    for name in ("grid", "parameters", "versions"):
        exact = {k: str(v) if isinstance(v, (float, list)) else v for k, v in run[name].items()}
        parts[name.capitalize()] = pairs(exact)
    if catalog := run.get("catalog"):
        chosen = [*catalog["why"], *(f"not {passed}" for passed in catalog["passed_over"])]
        parts = {"Why these images": tag("ul", *(tag("li", words) for words in chosen)), **parts}
    return [tag("details", tag("summary", name), content) for name, content in parts.items()]


def _input(layer: str, facts: Mapping[str, Any]) -> list[Html]:
    shown = {k.replace("_", " "): v for k, v in facts.items() if k != "files"}
    rows = [(f["name"], tag("code", f["sha256"][:12]), f"{f['bytes']:,}") for f in facts["files"]]
    return [tag("h3", layer.capitalize()), pairs(shown), table(("File", "SHA-256 begins", "Bytes"), rows, numeric=(2,))]


def _limits(run: Mapping[str, Any]) -> list[object]:
    calibration, smallest, noun = run["calibration"], run["parameters"].get("min_area_m2"), run["maps"].partition(",")[0]
    limits: list[object] = [
        "A machine made this map from images; nobody has checked it on the ground.",
        "The likelihood is uncalibrated: it ranks pixels, but 80 does not mean right in 80 of 100 cases."
        if calibration == "uncalibrated"
        else f"Calibration of the likelihood: {plain(calibration)}.",
        f"It shows the {noun} at the moment of the image, not its peak and not its depth.",
        "The pictures are stretched for the eye and may be shrunk; measure on the files.",
    ]
    if smallest:
        limits.append(f"Patches below {plain(smallest)} m² are left out.")
    if run["area_unit"] == "px":
        limits.append("The image has no map projection, so areas are counts of pixels, not hectares.")
    return limits


def _files(run: Mapping[str, Any], pictures: Mapping[str, U8]) -> Html:
    absent = {f"{n}.tif": n not in pictures for n in ("agreement", "spread", "familiarity")}
    density = run["parameters"].get("density") or {}
    absent |= dict.fromkeys(("density.tif", "priority.csv"), not density) | {"density_class.tif": not density.get("model")}
    present = {name: words for name, words in _FILES.items() if not absent.get(name)}
    return pairs({tag(f'a href="{name}"', name): words for name, words in present.items()})


class _Numbers:
    """The summary's rows by quantity: values that are missing are missing, never zero."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = [r for r in rows if not r["reason"]]
        self.reasons = sorted((r for r in rows if r["reason"]), key=lambda r: (-float(r["value"]), str(r["reason"])))

    def value(self, quantity: str, column: str = "value") -> float | None:
        """The sum over classes of one quantity."""
        found = [float(r[column]) for r in self.rows if r["quantity"] == quantity and r[column] not in ("", None)]
        return sum(found) if found else None


_SLIDER = Html(
    '<input class="swipe" type="range" min="0" max="100" step="0.5" value="50" aria-label="Swipe between before and after">'
    '<span class="handle" aria-hidden="true"></span>'
)
_OVERLAYS = {
    "extent": "Extent", "likelihood": "Likelihood", "exclusion": "Not analysed", "agreement": "Agreement", "spread": "Spread",
    "familiarity": "Familiarity",
}  # fmt: skip


def _svg(pictures: Mapping[str, U8], opening: str, *layers: str) -> Html:
    """Layers of the pictures, each "name class": drawn from the one copy in the page, so that no picture is stored twice."""
    rows, columns = next(iter(pictures.values())).shape[:2]
    uses = (tag(f'use href="#pic-{name}" class="{cls}"') for name, _, cls in (layer.partition(" ") for layer in layers))
    return tag(f'svg viewBox="0 0 {columns} {rows}" {opening}', *uses)


def _stored(pictures: Mapping[str, U8]) -> Html:
    """Every picture once, drawn nowhere yet."""
    size = {name: f'width="{p.shape[1]}" height="{p.shape[0]}"' for name, p in pictures.items()}
    images = (Html(f'<image id="pic-{name}" {size[name]} href="{data_uri(p)}"/>') for name, p in pictures.items())
    return tag('svg width="0" height="0" style="position:absolute" aria-hidden="true"', tag("defs", *images))


def _viewer(run: Mapping[str, Any], numbers: _Numbers, pictures: Mapping[str, U8]) -> Html:
    """The picture with its buttons, slider, legend and scale; then before, after, likelihood and extent side by side."""
    if "after" not in pictures:
        return Html("")
    two, shown = "before" in pictures, [name for name in _OVERLAYS if name in pictures]
    buttons = [_button("radio", f"base-{b}", b.capitalize(), b == "swipe") for b in ("swipe", "before", "after") if two]
    buttons += [Html('<span class="gap"></span>')] if two and shown else []
    buttons += [_button("checkbox", f"show-{n}", _OVERLAYS[n], n == "extent" or len(shown) == 1) for n in shown]
    buttons += [Html('<span class="line"></span>')]
    name = f'div class="viewer{" coarse" if max(pictures["after"].shape) < 500 else ""}" role="group" aria-label="Picture"'
    viewer = tag(name, *buttons, _stage(run, pictures, two, shown), _legend(run, numbers, shown))
    return tag('div id="picture"', viewer, _multiples(pictures))


def _button(kind: str, ident: str, words: str, checked: bool) -> Html:
    group, mark = ident.split("-")[0], " checked" if checked else ""
    return Html(f'<input type="{kind}" name="{group}" id="{ident}"{mark}><label for="{ident}">{words}</label>')


def _stage(run: Mapping[str, Any], pictures: Mapping[str, U8], two: bool, shown: Sequence[str]) -> Html:
    photos = ["before", "after"] if two else ["after"]
    layers = [_svg(pictures, f'class="layer photo l-{p}" role="img" aria-label="The image {p} the event"', p) for p in photos]
    layers += [_svg(pictures, f'class="layer over o-{n}" role="img" aria-label="{_OVERLAYS[n]}"', n) for n in shown]
    days = {p: date(run["inputs"].get(p, {}).get("acquired")).partition(",")[0] for p in photos}
    tags = [tag(f'span class="tag t-{p}"', p.capitalize(), tag("small", days[p])) for p in photos]
    return tag(f'div class="stage{" two" if two else ""}"', *layers, _SLIDER if two else "", *tags, _scale(run["grid"]))


def _scale(grid: Mapping[str, Any]) -> Html:
    """A bar of a round length, a tenth to a quarter of the picture's width."""
    if not grid["pixel_m"]:
        return Html("")
    across = grid["pixel_m"] * grid["shape"][1]
    power = 10.0 ** math.floor(math.log10(across / 4))
    length = max(n * power for n in (1, 2, 5) if n * power <= across / 4)
    words = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    return tag('span class="scale"', tag("b", words), Html(f'<i style="width:{100 * length / across:.3f}%"></i>'))


def _legend(run: Mapping[str, Any], numbers: _Numbers, shown: Sequence[str]) -> Html:
    """Keys of the overlays; reasons and agreement appear with their overlay."""
    reasons = [swatch(palette.css(palette.excluded(r["reason"])), r["reason"]) for r in numbers.reasons]
    keys = {
        "extent": [swatch("var(--extent)", run["maps"].partition(",")[0].capitalize())],
        "likelihood": [_ramp_key(run["methods"].get("percent_at_threshold"))],
        "exclusion": [tag('span class="k-exclusion"', key) for key in reasons],
        "agreement": [tag('span class="k-agreement"', key) for key in _agreement_keys(len(run["methods"]["ran"]))],
        "spread": [tag('span class="k-spread"', swatch(palette.css(c), f"apart by {p} %")) for p, c in palette.SPREAD[1:]],
        "familiarity": [
            tag('span class="k-familiarity"', swatch(palette.css(c), f"familiar by {p} %")) for p, c in palette.FAMILIARITY[:-1]
        ],
    }
    hatch = [swatch("var(--hatch)", "Not analysed")] if reasons and shown else []
    parts = [*hatch, *(key for name in _OVERLAYS if name in shown for key in keys[name])]
    return tag('div class="legend"', *parts, tag('span class="note"', orientation(run["grid"])))


def _ramp_key(percent: object) -> Html:
    """The likelihood ramp with a tick where the extent begins, where that is known."""
    known = isinstance(percent, (int, float)) and 0 <= percent <= 100
    tick, words = (f'<i style="left:{percent:.1f}%"></i>', f", mapped from {percent:.0f}%") if known else ("", "")
    return tag("span", "Likelihood 0", tag('span class="ramp"', Html(tick)), "100\u00a0%", words.replace("%", "\u00a0%"))


def _multiples(pictures: Mapping[str, U8]) -> Html:
    layers = {"before": (), "after": (), "likelihood": ("after muted",), "extent": ("after",)}  # what lies under each
    figures = [
        tag(
            "figure", _svg(pictures, f'role="img" aria-label="{name}"', *layers[name], name), tag("figcaption", name.capitalize())
        )
        for name in layers
        if name in pictures
    ]
    return tag('div class="minis"', *figures) if len(figures) > 1 else Html("")
