"""The card of a model, model.toml: what it reads, what it finds, how far to trust it, and the checksums of what lies beside it.

A model is a folder: the graph that maps (graph.xml and graph.bin, or graph.onnx), the weights that train (model.safetensors) and
this card. Weights never travel without it, and a file that differs from its checksum is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aftermap import plain
from aftermap.calibration import Calibration, tempered
from aftermap.errors import InputRefusedError, UnknownNameError
from aftermap.journal import sha256
from aftermap.scorer import LayerBands
from aftermap.sensors import UNITS

if TYPE_CHECKING:
    from aftermap.scene import Scene

FILE, WEIGHTS, KNOWN = "model.toml", "model.safetensors", "known.npz"
SEALED = "# sha256 of all above: "
GIVES = ("map", "class", "classes", "number", "embedding")
NORMALISED = ("all", "scene", "per_domain")
BUNDLED = Path(__file__).parent / "models"
BYTE = 255
"""Largest number of 8 bits."""


def _refuse(what: str, repair: str = "make the model again with the command in made_by, or fetch it again") -> InputRefusedError:
    return InputRefusedError(what, repair=repair, code="card-invalid")


@dataclass(frozen=True)
class Fit:
    """What a score of the network is worth: knots (scores to likelihoods) or one temperature, and the error that is left."""

    ece: float
    on: str
    """The data that it was fitted on, in words; the network has not trained on them."""
    temperature: float | None = None
    scores: tuple[float, ...] = ()
    likelihoods: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (self.temperature is None) == (not self.scores) or len(self.scores) != len(self.likelihoods):
            raise _refuse("the calibration has to be a temperature, or as many likelihoods as scores")
        ends = (self.scores, self.likelihoods)
        if any(list(k) != sorted(k) or (k and not 0 <= k[0] <= k[-1] <= 1) for k in ends) or (self.temperature or 1) <= 0:
            raise _refuse("a calibration never falls, lies in [0, 1], and its temperature is above 0")

    def table(self) -> Calibration:
        """As the methods without training have it."""
        knots = (self.scores, self.likelihoods) if self.temperature is None else tempered(self.temperature)
        way = "isotonic" if self.temperature is None else f"temperature {self.temperature:.3g}"
        return Calibration(tuple(knots[0]), tuple(knots[1]), f"{way}, {self.on}, ECE {self.ece:.3f}")


@dataclass(frozen=True)
class Card:
    """All facts of a model; strict: what is missing, unknown or impossible is an error of reading and of making alike."""

    name: str
    hazard: str
    classes: tuple[str, ...]
    """In the order of the graph's output. With several, one is called as the hazard, or `hazard_classes` says which it is."""
    inputs: tuple[LayerBands, ...]
    """What the graph reads: layers, bands and units, in the order of its band axis."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Per band of all inputs, in their units; the graph itself normalises."""
    halo_px: int
    multiple_of: int
    training_data: str
    licence: str
    made_by: str
    """The recipe or command."""
    sha256: Mapping[str, str]
    """File name -> SHA-256: graph, weights and what it knows (known.py)."""
    training_sha256: str = ""
    """Of pixels, truth and split of every sample of its training data (samples.py); empty where nobody hashed them."""
    normalise: str = "all"
    """Of NORMALISED. scene, per_domain: pixels are first brought from the own mean and std of the scene, or of all images of its
    sensor and place, to those of the card; their level does not matter. A map is of one scene."""
    hazard_classes: tuple[str, ...] = ()
    """Those of several classes that are the hazard together: their probabilities add up. Empty for the one called as it."""
    gives: str = "map"
    """Of GIVES: a map; or of a whole chip one class, several classes, a number or an embedding, which no map shows."""
    chip_px: int = 0
    """Side of the whole chips that it was trained on; 0 of a map, or where it is not known."""
    threshold: float = 0.5
    """Of the network's probability, where hazard begins."""
    encoder: str = ""
    decoder: str = ""
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    calibration: Fit | None = None
    scores: tuple[Mapping[str, Any], ...] = ()
    """Rows measured on real data: plain values by column."""
    leads: bool = False
    """Whether it was shown on real data of its kind to be no worse than the method without training."""
    why: str = ""
    """Why it leads or not, in words."""

    def __post_init__(self) -> None:
        bands = [band for one in self.inputs for band in one.bands]
        wrong = [one.unit for one in self.inputs if one.unit not in UNITS]
        if not bands or wrong:
            raise _refuse(f"{self.name} reads {wrong[0] if wrong else 'no band'}, and a unit is one of {', '.join(UNITS)}")
        if not len(bands) == len(self.mean) == len(self.std) or min(self.std) <= 0:
            raise _refuse(f"{self.name} has {len(self.mean)} means and {len(self.std)} std above 0 for {len(bands)} bands")
        several = len(self.classes) > 1 and self.gives == "map"
        if not self.classes or (several and not self.hazard_classes and self.hazard not in self.classes):
            raise _refuse(f"of the classes {', '.join(self.classes)} of {self.name} none is its hazard, {self.hazard}")
        if self.normalise not in NORMALISED:
            raise _refuse(f"normalise of {self.name} is {self.normalise!r}, and has to be one of {', '.join(NORMALISED)}")
        if strange := [c for c in self.hazard_classes if c not in self.classes]:
            raise _refuse(f"{strange[0]} of the hazard_classes of {self.name} is none of its classes, {', '.join(self.classes)}")
        if self.gives not in GIVES:
            raise _refuse(f"{self.name} gives {self.gives}, and can give {', '.join(GIVES)}")
        if not 0 < self.threshold < 1 or min(self.halo_px, self.chip_px) < 0 or self.multiple_of < 1:
            raise _refuse(f"threshold, halo_px, chip_px or multiple_of of {self.name} is impossible")

    @property
    def lead(self) -> tuple[int, ...]:
        """Places among `classes` of what is the hazard."""
        if len(self.classes) == 1:
            return (0,)
        return tuple(self.classes.index(c) for c in self.hazard_classes or (self.hazard,))

    @property
    def reads(self) -> str:
        """The inputs in words: "after VV, VH in dB"."""
        return " and ".join(f"{one.layer} {', '.join(one.bands)} in {one.unit}" for one in self.inputs)

    def why_not(self, scene: Scene) -> str:
        """What the model reads and the scene lacks, both sides in words; empty when it can run."""
        lacks = next((why for one in self.inputs if (why := scene.missing(one) or self._unlike(scene, one))), "")
        return f"it reads {self.reads}, but {lacks}" if lacks else ""

    def _unlike(self, scene: Scene, wanted: LayerBands) -> str:
        """Why the numbers of a layer cannot be those that it was trained on, in words; only digital numbers can be taken
        for others."""
        if wanted.unit != "digital_number":
            return ""
        deep, shallow = max(self.mean) > BYTE, max(self.mean) + max(self.std) <= BYTE
        for layer in scene.seen([wanted]).values():
            if layer.unit != "digital_number":
                return f"the {layer.name} image is in {layer.unit}, not in digital numbers"
            asked = layer.sampled[[i for band in wanted.bands if (i := layer.index(band)) is not None]]
            most = asked[np.isfinite(asked)].max(initial=0)
            if most > 0 and (deep if most <= BYTE else shallow):
                bits = "8 bits, and those it reads have more" if deep else "more than 8 bits, and those it reads have 8"
                return f"the numbers of the {layer.name} image have {bits}"
        return ""

    @classmethod
    def read(cls, folder: Path, *, compared: bool = True) -> Card:
        """The card of a model folder, every file that is there compared with it; or not, to see whether it is wanted at all.

        Raises InputRefusedError ("no-model", "card-invalid", "model-changed") and UnknownNameError ("unknown-field").
        """
        path = folder / FILE
        if not path.is_file():
            raise InputRefusedError(f"{folder} holds no {FILE}", repair="give the folder of a model", code="no-model")
        try:
            table = plain.read_toml(path)
        except (OSError, ValueError) as error:
            raise _refuse(f"{path} is no TOML: {error}") from error
        card = _of(table, str(path))
        for name, expected in card.sha256.items():
            if Path(name).name != name:
                raise _refuse(f"{path} names a file outside its folder: {name}")
            if compared and (folder / name).exists() and sha256(folder / name) != expected:
                raise InputRefusedError(
                    f"{folder / name} is not the file that {FILE} describes",
                    repair="fetch or export the model again: weights never travel without their facts",
                    code="model-changed",
                )
        return card

    def write(self, folder: Path) -> Path:
        """Writes model.toml whole or not at all; reading it gives this card again."""
        facts = {k: v for k, v in asdict(self).items() if v is not None}
        for one in facts["inputs"]:
            if one.pop("median_px") != 1:
                raise _refuse(f"{self.name} reads medians, which no card can say")
        if self.calibration:
            facts["calibration"] = {k: v for k, v in facts["calibration"].items() if v not in (None, ())}
        path = folder / FILE
        partial = path.with_name(f"{FILE}.partial")
        partial.write_text(sealed(_toml(facts)), encoding="utf-8")
        os.replace(partial, path)
        return path


def sealed(text: str) -> str:
    """A card's text, and in a last line its hash: `aftermap verify` compares it; reading does not, for cards are edited too."""
    return f"{text}{SEALED}{hashlib.sha256(text.encode()).hexdigest()}\n"


_KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "float": (int, float), "bool": bool, "tuple[str, ...]": list, "tuple[float, ...]": list,
    "tuple[LayerBands, ...]": list, "tuple[Mapping[str, Any], ...]": list, "Mapping[str, str]": dict, "Fit | None": dict,
    "float | None": (int, float),
}  # fmt: skip
"""Annotation -> what TOML has to hold."""


def _of(table: Mapping[str, Any], where: str) -> Card:
    given = _checked(Card, table, where)
    given["inputs"] = tuple(
        LayerBands(**_checked(LayerBands, one, f"inputs of {where}", without=("median_px",))) for one in given["inputs"]
    )
    if "calibration" in given:
        given["calibration"] = Fit(**_checked(Fit, given["calibration"], f"calibration of {where}"))
    return Card(**given)


def _checked(kind: type, table: Any, where: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The table as arguments of a dataclass: its fields and no others, each of its type, lists as tuples."""
    if not isinstance(table, dict):
        raise _refuse(f"{where} has to be a table")
    known = {f.name: f for f in fields(kind) if f.name not in without}
    for name in table.keys() - known.keys():
        raise UnknownNameError("field", name, known)
    arguments = {}
    for name, f in known.items():
        if name in table:
            arguments[name] = _value(table[name], str(f.type), f"{name} of {where}")
        elif f.default is f.default_factory:  # both are MISSING
            raise _refuse(f"{where} does not say {name}")
    return arguments


def _value(value: Any, kind: str, where: str) -> Any:
    inside: Any = {"tuple[str, ...]": str, "Mapping[str, str]": str, "tuple[float, ...]": (int, float)}.get(kind, object)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    right = isinstance(value, _KINDS[kind]) and (kind == "bool" or not isinstance(value, bool))
    if not right or not all(isinstance(part, inside) for part in parts):
        raise _refuse(f"{where} is {value!r}, and has to be {kind.replace('tuple', 'list')}")
    return tuple(value) if isinstance(value, list) else value


def _toml(facts: Mapping[str, Any]) -> str:
    """TOML of plain values, then of tables, then of lists of tables."""
    plain, tables = [], []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{key}]\n{_toml(value)}")
        elif isinstance(value, tuple) and value and isinstance(value[0], Mapping):
            tables.extend(f"\n[[{key}]]\n{_toml(row)}" for row in value)
        else:
            plain.append(f"{key if key.isidentifier() and key.isascii() else _literal(key)} = {_literal(value)}\n")
    return "".join([*plain, *tables])


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one character JSON leaves and TOML does not
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    raise _refuse(f"{value!r} cannot stand in {FILE}")


def own_folder() -> Path:
    """Where a user's own models lie: $AFTERMAP_MODELS, or the data folder of the system."""
    if told := os.environ.get("AFTERMAP_MODELS"):
        return Path(told)
    usual = Path.home() / ("AppData/Local" if sys.platform == "win32" else ".local/share")
    return Path(os.environ.get("XDG_DATA_HOME") or os.environ.get("LOCALAPPDATA") or usual) / "aftermap" / "models"


def bundled() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    return _in(BUNDLED)


def listed() -> dict[str, Path]:
    """Model folders by name: the user's own before the bundled."""
    return bundled() | _in(own_folder())


def _in(home: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(home.glob(f"*/{FILE}"))}


def find(name: str) -> Path:
    """The model folder of that path or name; raises UnknownNameError with the near misses."""
    if (Path(name) / FILE).is_file() or os.sep in name:
        return Path(name)
    known = listed()
    if name not in known:
        raise UnknownNameError("model", name, known)
    return known[name]
