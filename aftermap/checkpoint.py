"""Where a training stands, in one safetensors file: network, optimiser and history; whole or not there at all, never a pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aftermap.errors import InputRefusedError
from aftermap.torchdoor import Tensor, nn, torch


def write(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None, facts: Mapping[str, Any]) -> None:
    """Writes by atomic rename. `facts` are plain values."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for number, state in (optimiser.state_dict()["state"] if optimiser else {}).items():
        tensors |= {f"optimiser.{number}.{k}": v for k, v in state.items()}
    flat = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    partial = path.with_name(f"{path.name}.partial")
    save_file(flat, partial, metadata={"facts": json.dumps(facts)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def facts(path: Path) -> dict[str, Any]:
    """The plain values written with it."""
    with safe_open(path, framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["facts"])
    return found


def read(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Puts network and optimiser back where they were; gives the facts. Raises InputRefusedError ("checkpoint-misfit")."""
    tensors = load_file(path)
    try:
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    except RuntimeError as error:
        raise InputRefusedError(
            f"{path} is of another network", repair="choose another folder", code="checkpoint-misfit"
        ) from error
    if optimiser is not None:
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".", 2)
                states.setdefault(int(number), {})[name] = value
        optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
    return facts(path)
