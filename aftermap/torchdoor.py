"""The one import of torch and of what needs torchvision; where its compiled operators cannot load, two are declared.

A torchvision built for another torch (a CUDA wheel beside a CPU torch) fails at import, and with it timm,
segmentation-models-pytorch and peft, which need only its Python. Nothing here calls the operators (dependencies.md, decision 3).
"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

__all__ = ["Block", "DataLoader", "Tensor", "VisionTransformer", "functional", "nn", "repaired", "smp", "timm", "torch"]

_DETECTION = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_SCHEMAS = {"nms": _DETECTION, "qnms": _DETECTION}


def _repair() -> torch.library.Library | None:
    """The declarations, which live as long as they are held; None where torchvision is whole or absent."""
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    for compiled in Path(found.origin).parent.glob("_C*"):
        with suppress(OSError):
            torch.ops.load_library(str(compiled))  # type: ignore[no-untyped-call]
    lacking = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if "nms" not in lacking:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in lacking:
        library.define(name + _SCHEMAS[name])  # type: ignore[no-untyped-call]
    return library


_LIBRARY = _repair()

# After the repair: both import torchvision.
import segmentation_models_pytorch as smp  # noqa: E402
import timm  # noqa: E402
from timm.models.vision_transformer import Block, VisionTransformer  # noqa: E402


def repaired() -> bool:
    """Whether torchvision's operators had to be declared here."""
    return _LIBRARY is not None
