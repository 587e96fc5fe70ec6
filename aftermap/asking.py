"""What a map was asked for, as run.json records it: names of files, what was declared of them, options; enough to ask again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aftermap.layer import Declared

if TYPE_CHECKING:
    from aftermap.deliver import Options

UNTOLD = ("memory_mb", "overwrite", "workers", "cluster")
"""Options that change no pixel."""


@dataclass(frozen=True)
class Asked:
    """`facts` are of run.json, and hold names alone; `folders`, of log.json, say where the files lay."""

    facts: Mapping[str, Any]
    folders: tuple[str, ...] = ()


NOTHING = Asked({})


def asked(files: Mapping[str, Sequence[Path]], declared: Mapping[str, Declared], name: str, options: Options) -> Asked:
    """Of what `deliver.map` was called with."""
    said = {layer: {k: v for k, v in asdict(one).items() if v not in (None, "", ())} for layer, one in declared.items()}
    facts = {
        "files": {layer: [path.name for path in paths] for layer, paths in files.items() if paths},
        "declared": {layer: one for layer, one in said.items() if one}, "name": name, "options": _told(options),
    }  # fmt: skip
    folders = {str(path.absolute().parent) for paths in files.values() for path in paths}
    models = (options.model,) if isinstance(options.model, str) else options.model or ()
    return Asked(facts, tuple(sorted(folders | {str(Path(m).absolute().parent) for m in models if Path(m).is_dir()})))


def _told(options: Options) -> dict[str, Any]:
    """Those that are not as usual; of models the names."""
    usual = {f.name: f.default for f in fields(options) if f.default is not MISSING}
    told = {k: v for k, v in asdict(options).items() if k not in UNTOLD and v != usual.get(k)}
    if model := told.get("model"):
        told["model"] = Path(model).name if isinstance(model, str) else [Path(one).name for one in model]
    return told
