"""Networks that run only if there is room for them, or with the statistics of the scene at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from aftermap.choice import Chosen
from aftermap.errors import UsageError
from aftermap.predict import Plan
from aftermap.scorer import Bool, Heavy, LayerBands, Scorer
from aftermap.seamless import F32

if TYPE_CHECKING:
    from aftermap.deliver import Options
    from aftermap.scene import Scene

LEAST_MEMORY_MB = 420


@dataclass(frozen=True)
class _Constant:
    """In place of a method that has not looked at the scene, as far as memory goes: 0 everywhere."""

    network: Scorer
    """One that reads as much."""
    classes: tuple[str, ...] = ("hazard",)
    halo_px: int = 0
    multiple_of: int = 1

    @property
    def inputs(self) -> tuple[LayerBands, ...]:
        return self.network.inputs

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        return np.zeros((len(pixels), 1, *pixels.shape[2:]), np.float32)


def too_large(scene: Scene, chosen: Chosen, memory_mb: int) -> dict[str, str]:
    """Networks that nobody asked for and that --memory has no room for beside the methods, and why not."""
    networks = {n: m for n, m in chosen.methods.items() if isinstance(m, Heavy)}
    if not networks:
        return {}
    beside = _Constant(next(iter(networks.values())))
    whole = Plan({n: networks.get(n, beside) for n in chosen.methods}, 0.5, False, memory_mb).least_mb(scene.shape)
    why = f"with it one tile needs {whole} MB, and --memory leaves less"
    return dict.fromkeys(networks, why) if whole > memory_mb else {}


def adapting(chosen: Chosen, options: Options) -> Chosen:
    """Its networks with the statistics of the scene at hand; what they were calibrated to be does not hold for these."""
    if not chosen.models:
        raise UsageError("--adapt is of networks, and none runs here", repair="give --model, or leave it out")
    from aftermap.adapt.decide import SHOTS
    from aftermap.adapt.norm import Adaptation, AtHand  # with openvino, which most maps do without

    auto = options.adapt == "auto"
    how = Adaptation(SHOTS if auto else int(options.adapt), options.adapt_mode)
    from aftermap.ensemble import Ensemble

    def adapted(method: Any) -> Any:
        return method.each(adapted) if isinstance(method, Ensemble) else AtHand(method, how, auto)

    networks = {n: adapted(m) for n, m in chosen.methods.items() if n in chosen.models}
    return replace(chosen, methods=chosen.methods | networks, calibrations=dict.fromkeys(chosen.models))
