"""Networks that run only if there is room for them, or with the statistics of the scene at hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aftermap.choice import Chosen
from aftermap.errors import UsageError
from aftermap.predict import THREADS
from aftermap.scorer import Heavy
from aftermap.seamless import CORE_PX

if TYPE_CHECKING:
    from aftermap.deliver import Options

LEAST_MEMORY_MB = 420


def too_large(chosen: Chosen, memory_mb: int) -> dict[str, str]:
    """Networks that nobody asked for and that --memory has no room for beside the methods, and why not."""
    needs = {n: m.memory_mb((CORE_PX, CORE_PX), THREADS) for n, m in chosen.methods.items() if isinstance(m, Heavy)}
    return {n: f"it takes {mb:.0f} MB, and --memory leaves less" for n, mb in needs.items() if LEAST_MEMORY_MB + mb > memory_mb}


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
