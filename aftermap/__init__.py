"""aftermap: seamless, honest natural-hazard maps from satellite images.

>>> import aftermap as am
>>> am.map(after="after.tif", before="before.tif", hazard="flood", out="map")  # doctest: +SKIP
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from aftermap import drivers

if TYPE_CHECKING:
    from aftermap.chips import Chip as Chip
    from aftermap.datasets.dataset import open_dataset as open_dataset
    from aftermap.deliver import Options as Options
    from aftermap.deliver import map as map
    from aftermap.demo import demo as demo
    from aftermap.errors import AftermapError as AftermapError
    from aftermap.evaluate import evaluate as evaluate
    from aftermap.eventmap import map_event as map_event
    from aftermap.find import find as find
    from aftermap.hazardmap import HazardMap as HazardMap
    from aftermap.journal import verify as verify
    from aftermap.layer import Declared as Declared
    from aftermap.scene import Scene as Scene
    from aftermap.scene import open_scene as open_scene

_PUBLIC = {
    "AftermapError": "errors", "Chip": "chips", "Declared": "layer", "HazardMap": "hazardmap", "Options": "deliver",
    "Scene": "scene", "demo": "demo", "evaluate": "evaluate", "find": "find",
    "map": "deliver", "map_event": "eventmap", "open_dataset": "datasets.dataset",
    "open_scene": "scene", "verify": "journal",
}  # fmt: skip
"""Public name -> module; each is imported on first use, so that `import aftermap` costs nothing."""

__all__ = sorted(_PUBLIC)


drivers.settle()  # before any module loads GDAL


class _Package(ModuleType):
    """Keeps a word for what it names: importing a module of the same name would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _PUBLIC or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'aftermap' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"aftermap.{_PUBLIC[name]}"), name)
