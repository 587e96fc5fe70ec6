"""QGIS styles (QML) of every raster and layer that a map run delivers, in the colours of `palette`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import quoteattr

from aftermap.palette import (
    EXCLUSION,
    EXTENT,
    FAMILIARITY,
    GRADES,
    LIKELIHOOD,
    NODATA,
    NOT_ANALYSED,
    PRIORITY,
    SPREAD,
    Colour,
    agreed,
)
from aftermap.products.buildings import DAMAGE, REACHED, UNGRADED

_OPEN_SHARE = 0.45
"""Opacity of filled polygons against that of their outline: the image must show through."""


def raster_styles(hazard: str, methods: int, *, density: bool = False, classes: Sequence[str] = ()) -> dict[str, str]:
    """File name in `styles/` -> QML; `hazard` names what was mapped in legends, `methods` is how many could agree; with
    `density` also the style of density.tif, with `classes` that of density_class.tif."""
    share = [(f"{k} of {methods}", k, agreed(k, methods)) for k in range(1, methods + 1)]
    return {
        "likelihood.qml": likelihood_qml(hazard),
        "extent.qml": paletted_qml([(f"no {hazard}", 0, (0, 0, 0, 0)), (hazard, 1, EXTENT)]),
        "exclusion.qml": paletted_qml([(label, code, colour) for code, (label, colour) in EXCLUSION.items() if code != NODATA]),
        "agreement.qml": paletted_qml([("none", 0, (0, 0, 0, 0)), *share]),
        "spread.qml": _ramp_qml([(percent, f"members {percent} % apart", colour) for percent, colour in SPREAD]),
        "familiarity.qml": _ramp_qml([(percent, f"familiar by {percent} %", colour) for percent, colour in FAMILIARITY]),
        **({"density.qml": density_qml(hazard)} if density else {}),
        **({"density_class.qml": density_class_qml(classes)} if classes else {}),
    }


def layer_styles(hazard: str) -> dict[str, str]:
    """Layer of map.gpkg -> QML."""
    reasons = {label: _fill(colour, outline=colour) for code, (label, colour) in EXCLUSION.items() if code not in (0, NODATA)}
    return {
        "observed_event": _single_qml(hazard, _fill(EXTENT, outline=EXTENT)),
        "unosat": _single_qml(hazard, _fill(EXTENT, outline=EXTENT)),
        "not_analysed": _categories_qml("reason", reasons),
        "built_up": _categories_qml("damage_gra", {g: _fill(c, outline=c) for g, c in _graded()}),
        "priority": _single_qml(f"cells to look at first ({hazard})", _fill(None, outline=PRIORITY, width_mm=0.4)),
        "area_of_interest": _single_qml("area of interest", _fill(None, outline=(230, 30, 90, 255), width_mm=0.6)),
        "image_footprint": _single_qml("image footprint", _fill(None, outline=NOT_ANALYSED, line="dash")),
    }


def _graded() -> list[tuple[str, Colour]]:
    """Every grade a footprint may have (buildings.py), and its colour."""
    reached = (GRADES[0], GRADES[1], GRADES[2])
    words = [*zip(DAMAGE, GRADES, strict=True), *zip(REACHED, reached, strict=True)]
    return [*words, (UNGRADED, NOT_ANALYSED)]


def paletted_qml(entries: Sequence[tuple[str, int, Colour]]) -> str:
    """A style for class codes from (label, code, colour)."""
    rows = "".join(
        f'<paletteEntry value="{code}" label={quoteattr(label)} color="{_hex(colour)}" alpha="{colour[3]}"/>'
        for label, code, colour in entries
    )
    return _raster_qml(f'<rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1"><colorPalette>{rows}</colorPalette>')


def likelihood_qml(hazard: str) -> str:
    """A style for likelihoods in percent, colours mixed between the stops."""
    return _ramp_qml([(percent, f"{hazard} {percent} %", colour) for percent, colour in LIKELIHOOD])


def density_qml(hazard: str) -> str:
    """A style for shares of area in [0, 1]; most cells hold little, so colours change fastest there."""
    low, high = LIKELIHOOD[0], [(percent**2 / 1e4, colour) for percent, colour in LIKELIHOOD[1:]]
    stops = [(0.0, (*low[1][:3], 0)), *high]
    return _ramp_qml([(share, f"{hazard} {100 * share:.3g} %", colour) for share, colour in stops])


def density_class_qml(classes: Sequence[str]) -> str:
    """A style for classes of density from the least up, which is clear, over the colours of likelihood."""
    last = max(len(classes) - 1, 1)
    colours = [LIKELIHOOD[-1 - (last - k) * (len(LIKELIHOOD) - 2) // last][1] for k in range(1, len(classes))]
    clear: Colour = (0, 0, 0, 0)
    return paletted_qml([(name, k, colour) for k, (name, colour) in enumerate(zip(classes, [clear, *colours], strict=True))])


def _ramp_qml(stops: Sequence[tuple[float, str, Colour]]) -> str:
    """A style for measurements from (value, label, colour) in rising order, colours mixed between."""
    rows = "".join(
        f'<item value="{value:g}" label={quoteattr(label)} color="{_hex(colour)}" alpha="{colour[3]}"/>'
        for value, label, colour in stops
    )
    low, high = (f"{stops[i][0]:g}" for i in (0, -1))
    return _raster_qml(
        f'<rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" classificationMin="{low}" '
        f'classificationMax="{high}"><rastershader><colorrampshader colorRampType="INTERPOLATED" classificationMode="1" '
        f'minimumValue="{low}" maximumValue="{high}" clip="0">{rows}</colorrampshader></rastershader>'
    )


def _raster_qml(renderer: str) -> str:
    return _qml(f"<pipe>{renderer}</rasterrenderer></pipe><blendMode>0</blendMode>")


def _single_qml(label: str, fill: str) -> str:
    rules = f'<rules key="root"><rule key="all" symbol="0" label={quoteattr(label)}/></rules>'
    return _qml(f'<renderer-v2 type="RuleRenderer" symbollevels="0">{rules}<symbols>{_symbol(0, fill)}</symbols></renderer-v2>')


def _categories_qml(field: str, fills: Mapping[str, str]) -> str:
    values = [(i, quoteattr(value)) for i, value in enumerate(fills)]
    categories = "".join(f'<category symbol="{i}" value={value} label={value} render="true"/>' for i, value in values)
    symbols = "".join(_symbol(i, fill) for i, fill in enumerate(fills.values()))
    return _qml(
        f'<renderer-v2 type="categorizedSymbol" attr="{field}" symbollevels="0"><categories>{categories}</categories>'
        f"<symbols>{symbols}</symbols></renderer-v2>"
    )


def _symbol(name: int, fill: str) -> str:
    return f'<symbol name="{name}" type="fill" alpha="1" clip_to_extent="1" force_rhr="0">{fill}</symbol>'


def _fill(colour: Colour | None, *, outline: Colour, width_mm: float = 0.26, line: str = "solid") -> str:
    """A simple fill; None leaves it hollow. Properties are `prop`s, which every QGIS 3 reads."""
    inside = colour or (0, 0, 0, 0)
    settings = {
        "color": _rgba((*inside[:3], round(inside[3] * _OPEN_SHARE))),
        "style": "solid" if colour else "no",
        "outline_color": _rgba(outline),
        "outline_style": line,
        "outline_width": f"{width_mm}",
        "outline_width_unit": "MM",
        "joinstyle": "miter",
    }
    props = "".join(f'<prop k="{key}" v="{value}"/>' for key, value in settings.items())
    return f'<layer class="SimpleFill" enabled="1" locked="0" pass="0">{props}</layer>'


def _qml(body: str) -> str:
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
    return f'{head}\n<qgis version="3.22" styleCategories="Symbology">{body}</qgis>\n'


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour[:3])


def _rgba(colour: Colour) -> str:
    return ",".join(map(str, colour))
