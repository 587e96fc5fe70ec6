"""What a file's name, descriptions and tags say: bands, sensor, unit, date. Facts only; what is not said stays unknown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from aftermap import safe
from aftermap.errors import BandError
from aftermap.raster import Facts
from aftermap.sensors import POLARISATIONS, Sensor, canonical, sensor, sensors_with

_COMMON = {"BLUE", "GREEN", "RED", "NIR", "SWIR1", "SWIR2"}
_DESCRIBED = ("ELEVATION", "SLOPE", "GREY", "GRAY", "COASTAL")
"""Words that name a band in a description, and in a file's name nothing."""
_SENSOR_PATTERNS = (
    (r"^S1[A-D]_", "sentinel-1"),
    (r"^S2[A-D]_MSIL1C", "sentinel-2-l1c"),
    (r"^S2[A-D]_MSIL2A|^T\d\d[A-Z]{3}_\d{8}T\d{6}_\w+_\d0M$|^S2[A-D]_.*L2A", "sentinel-2-l2a"),
    (r"^T\d\d[A-Z]{3}_\d{8}T\d{6}_B\w\w$", "sentinel-2-l1c"),
    (r"^L[CO]0[89]_", "landsat-8-9"),
    (r"^HLS\.L30", "hls-l30"),
    (r"^HLS\.S30", "hls-s30"),
    (r"_3B_ANALYTICMS|PSSCENE", "planetscope"),
)  # official product names


def tokens(text: str) -> list[str]:
    """The upper-case words of a name: "S1A_VV-db" -> ["S1A", "VV", "DB"]."""
    return [t for t in re.split(r"[^A-Z0-9]+", text.upper().replace("QA_PIXEL", "QAPIXEL")) if t]


def _is_band(token: str) -> bool:
    return token in POLARISATIONS or token in ("SCL", "FMASK", "QAPIXEL") or bool(re.fullmatch(r"B\d{1,2}A?", token))


def _from_text(text: str) -> str:
    """The one band a description names, or "". "Band 1" names none: software writes it for want of a name."""
    words = tokens(text)
    found = [w for w in words if _is_band(w)] or [w for w in words if w in (*_COMMON, *_DESCRIBED)]
    return canonical(found[0]) if len(set(found)) == 1 else ""


def band_names(facts: Facts) -> tuple[tuple[str, ...], str]:
    """Band names of a file and where they stand: "descriptions", "tags", "file name"; ((), "") when nothing says."""
    described = tuple(_from_text(d) for d in facts.descriptions)
    if all(described):
        return described, "descriptions"
    tagged = tuple(_from_text(t.get("DESCRIPTION", "")) for t in facts.band_tags)
    if all(tagged):
        return tagged, "tags"
    words = tokens(facts.path.stem)
    named = [canonical(w) for w in words if _is_band(w)] or [w for w in words[-1:] if w in _COMMON]
    return (tuple(named), "file name") if len(named) == len(facts.indexes) else ((), "")


def sensor_of(names: Sequence[str], facts: Sequence[Facts]) -> Sensor:
    """The sensor that the file names state, or the only reading of the band names. Raises BandError where they disagree."""
    for pattern, name in _SENSOR_PATTERNS:
        if any(re.search(pattern, f.path.stem.upper()) for f in facts):
            stated = sensor(name)
            if all(stated.band(n) for n in names):
                return stated
    candidates = sensors_with(names)
    if not candidates:
        raise BandError(
            f"no known sensor has the bands {', '.join(names)}", repair="declare them with --bands", code="bands-unknown"
        )
    meanings = {tuple(b.common for n in names if (b := s.band(n))) for s in candidates}
    if len(meanings) > 1:
        raise BandError(
            f"the bands {', '.join(names)} mean different things on {', '.join(s.name for s in candidates)}",
            repair="declare the sensor with --sensor",
            code="sensor-ambiguous",
        )
    return next((s for s in candidates if s.name == "optical"), candidates[0])


def stated_unit(facts: Facts) -> tuple[str, str]:
    """The unit of radar pixels that a file states and where: ("dB", "tags"); ("", "") when nothing says."""
    places = {
        "tags": [*facts.units, *(v for k, v in facts.tags.items() if "UNIT" in k.upper())],
        "descriptions": facts.descriptions,
    }
    for place, texts in (*places.items(), ("file name", [facts.path.stem])):
        words = {w for t in texts for w in tokens(t)}
        for unit, spellings in {"dB": {"DB", "DECIBEL"}, "power": {"POWER", "LINEAR"}, "amplitude": {"AMP", "AMPLITUDE"}}.items():
            if words & spellings:
                return unit, place
    return "", ""


def acquired(facts: Facts) -> str | None:
    """ISO 8601 time or date of acquisition from the tag ACQUISITION_DATETIME or the file name; None when nothing says."""
    if tag := facts.tags.get("ACQUISITION_DATETIME"):
        return tag
    if m := re.search(r"(?<!\d)((?:19|20)\d\d)([01]\d)([0-3]\d)T(\d\d)(\d\d)(\d\d)", facts.path.stem):
        return "{}-{}-{}T{}:{}:{}Z".format(*m.groups())
    m = re.search(r"(?<!\d)((?:19|20)\d\d)-?([01]\d)-?([0-3]\d)(?!\d)", facts.path.stem)
    return "{}-{}-{}".format(*m.groups()) if m else None


def orbit(facts: Facts) -> str | None:
    """The word ascending or descending from a tag (ORBIT_DIRECTION, SAT:ORBIT_STATE, PASS) or the file name; else None."""
    tagged = [v for k, v in facts.tags.items() if re.search(r"ORBIT_?(STATE|DIRECTION)|^PASS(_DIRECTION)?$", k.upper())]
    words = {w for text in (*tagged, facts.path.stem) for w in tokens(text)}
    found = [long for long, short in (("ascending", "ASC"), ("descending", "DESC")) if words & {long.upper(), short}]
    return found[0] if len(found) == 1 else None


def s2_added(facts: Facts) -> float | None:
    """What is to be added to Sentinel-2 numbers for those without offset, from the tag BOA_ADD_OFFSET."""
    tag = facts.tags.get("BOA_ADD_OFFSET")
    return float(tag) if tag else None


def s2_baseline(facts: Facts) -> float | None:
    """Sentinel-2 processing baseline, for example 4.0 or 5.09, from the tags, the product name or its metadata."""
    if tag := facts.tags.get("PROCESSING_BASELINE"):
        return float(tag)
    product = next((p.stem for p in facts.path.parents if p.suffix.upper() == ".SAFE"), facts.path.stem)
    m = re.search(r"_N(\d\d)(\d\d)_", product)
    return float(f"{m[1]}.{m[2]}") if m else safe.baseline(facts.path)
