"""A graph on this machine's processor: openvino or onnxruntime, raw pixels in, one of its outputs out, from any thread.

Only what is asked for is computed: layers that make scores alone do not run for embeddings.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aftermap.batchnorm import Statistics, restate
from aftermap.errors import AftermapError, InputRefusedError, UsageError

F32 = npt.NDArray[np.float32]
Run = Callable[[F32], F32]
"""Raw pixels (1, band, y, x), NaN where not observed, to one output of the graph."""

READS = {"openvino": ("graph.xml", "graph.onnx"), "onnxruntime": ("graph.onnx",)}
"""Engine -> the graphs that it can run, the best first."""
_AT_ONCE = [os.cpu_count() or 1]
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Of malloc.h."""
SCORES, FEATURES = 0, 1
"""Outputs of a graph: probabilities (n, class, y, x), and the deepest features of the encoder (n, channel, y, x)."""


def limit(threads: int) -> None:
    """How many threads of this process run a graph at once: those that are compiled from now on."""
    _AT_ONCE[0] = threads


def graph_of(folder: Path, engine: str) -> Path:
    """The graph of a model folder that an engine runs; raises UsageError ("engine-missing") where there is none."""
    for name in READS[engine]:
        if (folder / name).is_file():
            return folder / name
    raise UsageError(
        f"{engine} runs {' or '.join(READS[engine])}, and {folder} holds no such file",
        repair=f"aftermap export {folder} --format onnx makes graph.onnx from the weights", code="engine-missing",
    )  # fmt: skip


def openvino() -> Any:
    """The library, whose telemetry is opted out of: it would report its import over the network."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its own fallback then is a stub
    library = import_module("openvino")
    # Two threads that meet numpy first through these bindings lock one another out for ever (seen with 2026.4.1: one waits for
    # the interpreter inside a C++ static, the other holds it and waits for the static). So one thread meets it here.
    np.asarray(library.Tensor(np.zeros(1, np.float32)).data)
    return library


def opened(
    folder: Path, engine: str, precision: str, statistics: Statistics | None = None, *, output: int = SCORES
) -> Run:  # fmt: skip
    """What runs a model folder's graph. Raises UsageError ("engine-missing"), InputRefusedError ("no-embedding")."""
    graph = graph_of(folder, engine)
    _give_back()
    return _Openvino(graph, precision, statistics, output) if engine == "openvino" else _onnxruntime(graph, output)


def _give_back() -> None:
    """Has the C library give large arrays back when they are let go of: between a network's own, heaps of several threads keep
    170 MB more (measured, glibc), for 5 % of its seconds. Without effect elsewhere."""
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_ARENA_MAX, 2)
        library.mallopt(_M_MMAP_THRESHOLD, 2 << 20)


def alone(model: Any, output: int) -> Any:
    """OpenVINO's graph with one of its outputs and no other; where that is the only one it stays as it was."""
    for place, result in enumerate(model.get_results()):
        if place != output:
            model.remove_result(result)
    return model


def _refuse_lacking(graph: Path, outputs: int, asked: int) -> None:
    if asked >= outputs:
        what = f"{graph} gives scores alone, and no features that could be compared"
        repair = f"aftermap export {graph.parent} makes it anew from the weights"
        raise InputRefusedError(what, repair=repair, code="no-embedding")


class _Openvino:
    """One compiled graph per shape of tile, one request per thread."""

    def __init__(self, graph: Path, precision: str, statistics: Statistics | None, output: int):
        self._graph, self._precision, self._statistics, self._output = graph, precision, statistics, output
        self._core = openvino().Core()
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._own, self._lock = threading.local(), threading.Lock()
        if output:
            _refuse_lacking(graph, len(self._core.read_model(graph).outputs), output)

    def __call__(self, pixels: F32) -> F32:
        if pixels.shape in self._compiled:
            return self._inferred(pixels)
        with self._lock:
            if pixels.shape not in self._compiled:
                self._compiled[pixels.shape] = self._for(pixels.shape)
            return self._inferred(pixels)

    def _inferred(self, pixels: F32) -> F32:
        requests = self._own.__dict__.setdefault("requests", {})
        if pixels.shape not in requests:
            requests[pixels.shape] = self._compiled[pixels.shape].create_infer_request()
        with _failing(self._graph):
            return np.array(requests[pixels.shape].infer({0: pixels})[0], np.float32)  # the request writes over its own output

    def _for(self, shape: tuple[int, ...]) -> Any:
        model = self._core.read_model(self._graph)
        if self._statistics is not None:
            restate(openvino(), model, self._statistics)
        model = alone(model, self._output)
        model.reshape({model.input(0): list(shape)})
        return self._core.compile_model(model, "CPU", self._settings())

    def _settings(self) -> dict[str, Any]:
        """As many streams as predict has threads, of one thread each: sums come in one order, however many there are."""
        (threads,) = _AT_ONCE
        return {
            "INFERENCE_PRECISION_HINT": self._precision, "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        }  # fmt: skip


def _onnxruntime(graph: Path, output: int) -> Run:
    """The second engine, fp32; a session may be run from several threads."""
    library = import_module("onnxruntime")
    options = library.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it grows by doubling, far above what one tile needs
    session = library.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    _refuse_lacking(graph, len(session.get_outputs()), output)
    name, asked = session.get_inputs()[0].name, [session.get_outputs()[output].name]

    def run(pixels: F32) -> F32:
        with _failing(graph):
            return np.asarray(session.run(asked, {name: pixels})[0], np.float32)

    return run


@contextmanager
def _failing(graph: Path) -> Iterator[None]:
    """Raises AftermapError ("engine"), MemoryError."""
    try:
        yield
    except RuntimeError as error:  # of which those of both engines are
        if "alloc" in str(error):
            raise MemoryError(f"the engine that runs {graph.parent.name} got none") from error
        what = f"the engine failed on a tile of {graph.parent.name}: {(str(error).strip() or 'no words').splitlines()[-1]}"
        raise AftermapError(what, repair="run the same command again; report it where it comes again", code="engine") from error
