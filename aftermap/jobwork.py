"""What a process of its own does for a job: the doctor looks at its images, or they are mapped. `python -m aftermap.jobwork`.

Files from strangers are opened here and nowhere else: what crashes, hangs or eats memory is this process. It is gentle, has
limits that the system keeps, and ends with whoever started it. Its answer is one line of JSON on stdout.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from aftermap import check, deliver, journal, raster
from aftermap.choice import choose
from aftermap.cli_words import declared
from aftermap.errors import AftermapError, BandError, InputRefusedError, UsageError
from aftermap.job import DECLARED, MB, ROLES, Job, Limits, words
from aftermap.scene import Scene, open_scene

PROGRESS = "progress.json"
_EVERY_S = 0.3
_BESIDE_MB = 3000
"""What Python, its libraries and their threads set aside beside --memory; it is a limit, not what they use."""


def limit(limits: Limits) -> None:
    """Makes this process gentle and bounded, where the system can."""
    with suppress(AttributeError, OSError):
        os.nice(10)
    if sys.platform != "win32":
        import resource

        most = (limits.memory_mb + _BESIDE_MB) * MB
        for kind, value in (
            (resource.RLIMIT_DATA, most),
            (resource.RLIMIT_FSIZE, limits.job_mb * 4 * MB),
            (resource.RLIMIT_CORE, 0),
        ):
            with suppress(ValueError, OSError):
                resource.setrlimit(kind, (value, value))


def end_with_parent() -> None:
    """Stops this process when whoever holds the other end of stdin is gone, however that ended."""

    def wait() -> None:
        os.read(0, 1)  # unbuffered: a buffer would be locked when Python ends
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        os._exit(5)

    threading.Thread(target=wait, daemon=True).start()


def looked_at(home: Path, job: Job) -> dict[str, Any]:
    """The doctor's findings on the images one by one and as a scene, and what was understood of them, in words."""
    found = [_refusal(error, path.name) for path in _every(home, job) if (error := _unreadable(path)) is not None]
    understood: list[str] = []
    if not found:
        try:
            scene = _scene(home, job)
            found = [one for one in check.examine(scene) if one.code != "pair-shifted" or "coregister" not in job.declared]
            understood = [_said(layer) for layer in scene.layers.values()]
            _refuse_useless(scene)
        except AftermapError as error:
            found.append(_refusal(error, ""))
    return {"findings": [one.facts() for one in found], "understood": understood}


def _every(home: Path, job: Job) -> list[Path]:
    return [home / one.place for one in job.files]


def _unreadable(path: Path) -> InputRefusedError | None:
    try:
        if (driver := raster.facts(path).driver) not in ("GTiff", "COG"):
            return InputRefusedError(f"{path.name} is {driver}, no GeoTIFF", repair="give a GeoTIFF", code="not-geotiff")
    except InputRefusedError as error:
        return error
    return None


def _refusal(error: AftermapError, where: str) -> check.Finding:
    return check.Finding(error.code, "refuse", error.what, where, error.repair)


def _said(layer: Any) -> str:
    crs = f"EPSG:{layer.grid.crs.to_epsg()}" if layer.grid.crs is not None else "no CRS"
    size = f"{layer.grid.shape[1]:,} x {layer.grid.shape[0]:,} px"
    unit, date = layer.unit.replace("_", " "), layer.acquired or "date not stated"
    return f"{layer.name}: {layer.sensor.name}, {' '.join(layer.bands)}, {unit}, {date}, {size}, {crs}"


def _refuse_useless(scene: Scene) -> None:
    """Raises BandError where neither a method nor a network can run on these bands."""
    try:
        choose(scene, "auto", bundled=False)
    except BandError:
        choose(scene, "auto")


def _of(home: Path, job: Job, role: str) -> list[Path]:
    return [home / one.place for one in job.files if one.role == role]


def _declared(job: Job) -> dict[str, Any]:
    said: dict[str, Any] = {name: job.declared.get(name, "") for name in DECLARED}
    try:
        said["nodata"] = float(said["nodata"]) if said["nodata"] else None
    except ValueError as error:
        raise UsageError(f"{said['nodata']!r} is no number", repair="give the value of pixels without data") from error
    return declared({**said, "before_bands": "", "before_sensor": ""})


def _scene(home: Path, job: Job) -> Scene:
    files = {role: _of(home, job, role) for role in ROLES}
    return open_scene(files, hazard=job.hazard, declared=_declared(job), name=job.name)


def mapped(home: Path, job: Job, limits: Limits) -> dict[str, Any]:
    """The answer of the map that lies in OUT from now on."""
    options = deliver.Options(memory_mb=limits.memory_mb, overwrite=True, coregister="coregister" in job.declared)
    made = deliver.map(
        _of(home, job, "after"), _of(home, job, "before"), out=home / "out", dem=_of(home, job, "dem"), declared=_declared(job),
        name=job.name, hazard=job.hazard, options=options, progress=_telling(home / PROGRESS),
    )  # fmt: skip
    return {"answer": made.answer}


def _telling(path: Path) -> Callable[[str, int, int], None]:
    """Writes how far a run is, now and then."""
    last: tuple[float, str] = (0.0, "")

    def tell(stage: str, done: int, whole: int) -> None:
        nonlocal last
        now = time.monotonic()
        if stage != last[1] or done == whole or now - last[0] > _EVERY_S:
            last = now, stage
            with suppress(OSError):
                journal.write_json(path, {"stage": stage, "done": done, "whole": whole})

    return tell


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """`check` or `map`, the folder of a job, and the limits as JSON. Exits as the command line does."""
    verb, folder, said = sys.argv[1:] if arguments is None else arguments
    limits, home = Limits(**json.loads(said)), Path(folder)
    limit(limits)
    end_with_parent()
    signal.signal(signal.SIGTERM, _stop)
    answer, code = _answer(verb, home, limits)
    print(json.dumps(answer), flush=True)
    sys.exit(code)


def _answer(verb: str, home: Path, limits: Limits) -> tuple[Mapping[str, Any], int]:
    try:
        job = Job.read(home / "job.json")
        return (looked_at(home, job) if verb == "check" else mapped(home, job, limits)), 0
    except AftermapError as error:
        return {"error": words(error)}, error.exit_code
    except MemoryError:
        what = f"the images need more memory than the {limits.memory_mb:,} MB that a job has here"
        return {"error": words(AftermapError(what, repair="cut them to the event", code="job-memory"))}, 1


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
