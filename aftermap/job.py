"""The nouns of uploading: what strangers may bring and use, an image, a job; and the names that files are kept under."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from aftermap import tiffhead
from aftermap.errors import AftermapError, UnknownNameError, UsageError
from aftermap.pieces import HAZARDS

ROLES = ("after", "before", "dem")
OPEN = ("uploaded", "checked", "failed", "cancelled")
"""States in which the images may still change."""
STATES = (*OPEN, "queued", "running", "done")
DECLARED = ("bands", "sensor", "unit", "nodata", "after_date", "before_date", "coregister")
"""What may be said of the images, as by the options of `aftermap map`; `coregister` is "yes" or nothing."""
ID = re.compile(r"[0-9a-f]{16}")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)
"""Names that open a device on Windows."""
_MOST_LABEL = 120
MB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How much strangers may bring and use; `--limit NAME=VALUE` sets one."""

    file_mb: int = 2000
    job_mb: int = 4000
    folder_mb: int = 50_000
    """Everything in the folder, maps too."""
    free_mb: int = 2000
    """That is left on the disk."""
    files: int = 16
    """In one job."""
    queued: int = 10
    kept: int = 200
    """Jobs in the folder."""
    megapixels: int = 400
    """Of one file, as its header claims."""
    bands: int = 64
    inflate: int = 200
    """Times its own size that a file may unpack to."""
    check_seconds: int = 120
    run_minutes: int = 240
    memory_mb: int = 1000
    """As of `aftermap map --memory`."""
    idle_seconds: int = 30
    """Without a byte of a request."""
    upload_minutes: int = 60
    """For one file."""

    def __post_init__(self) -> None:
        for one in fields(self):
            if getattr(self, one.name) < 1:
                raise UsageError(f"the limit {one.name} is {getattr(self, one.name)}", repair="give a whole number from 1 on")

    @classmethod
    def of(cls, said: Mapping[str, str]) -> Limits:
        """Those that differ, as typed. Raises UsageError, UnknownNameError ("unknown-limit")."""
        known = [one.name.replace("_", "-") for one in fields(cls)]
        for name, value in said.items():
            if name not in known:
                raise UnknownNameError("limit", name, known)
            if not value.isdecimal():
                raise UsageError(f"the limit {name} is {value!r}", repair="give a whole number from 1 on")
        return cls(**{name.replace("-", "_"): int(value) for name, value in said.items()})

    @property
    def header(self) -> tiffhead.Most:
        """What a header may claim."""
        return tiffhead.Most(self.megapixels * 1_000_000, self.bands, self.inflate, self.memory_mb * MB // 2)


class JobRefusedError(UsageError):
    """What was asked of a job cannot be done; `status` is the answer's in HTTP."""

    def __init__(self, what: str, *, repair: str = "", code: str, status: int) -> None:
        super().__init__(what, repair=repair, code=code)
        self.status = status


@dataclass(frozen=True)
class Image:
    """A file that was brought. `name` is ours, `label` what its owner calls it."""

    role: str
    number: int
    name: str
    label: str
    bytes: int
    width: int
    height: int
    bands: int

    @property
    def place(self) -> Path:
        """Within the folder of the job; alone in its own, so that nothing can lie beside it."""
        return Path("in", f"{self.role}-{self.number}", self.name)


@dataclass(frozen=True)
class Job:
    """What is known of one job; job.json."""

    id: str
    made: float
    """Seconds since 1970, as is `changed`."""
    changed: float
    state: str = "uploaded"
    hazard: str = HAZARDS[0]
    name: str = ""
    declared: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Image, ...] = ()
    findings: tuple[Mapping[str, str], ...] = ()
    understood: tuple[str, ...] = ()
    error: Mapping[str, str] = field(default_factory=dict)
    answer: str = ""
    turn: float = 0
    """When it was put in the queue."""

    @property
    def refused(self) -> bool:
        """Whether the doctor forbids mapping."""
        return any(one["severity"] == "refuse" for one in self.findings)

    @classmethod
    def read(cls, path: Path) -> Job:
        """From job.json. Raises ValueError, TypeError, KeyError or OSError where it is none."""
        said = json.loads(path.read_text(encoding="utf-8"))
        said["files"] = tuple(Image(**one) for one in said["files"])
        job = cls(**said | {name: tuple(said[name]) for name in ("findings", "understood")})
        if job.state not in STATES or job.id != path.parent.name or not ID.fullmatch(job.id):
            raise ValueError(f"{path} is no job")
        return job


def label(name: str) -> str:
    """A file's name as its owner gave it, fit to be shown: without folders, control and direction characters, and not long."""
    shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in re.split(r"[/\\]", name)[-1])
    return " ".join(shown.split())[:_MOST_LABEL] or "image"


def stored(name: str) -> str:
    """The name to keep a file under: letters, digits, _ - and single dots, which tell sensor, band and date; always .tif."""
    plain = unicodedata.normalize("NFKD", label(name)).encode("ascii", "ignore").decode()
    stem = re.sub(r"\.tiff?$", "", re.sub(r"[^A-Za-z0-9_.-]+", "_", plain), flags=re.IGNORECASE)
    stem = re.sub(r"\.+", ".", re.sub(r"\.(?=zip|safe)", "_", stem, flags=re.IGNORECASE)).strip("._-")[:80].rstrip("._-")
    return f"{'image_' if _RESERVED.match(stem) else ''}{stem or 'image'}.tif"


def too_large(room: str) -> JobRefusedError:
    """More than there is room for."""
    return JobRefusedError(
        f"the file is larger than {room}", repair="cut it to the event, or compress it", code="too-large", status=413
    )


def bad_request(what: str, repair: str) -> JobRefusedError:
    """Something that cannot be asked like that."""
    return JobRefusedError(what, repair=repair, code="bad-request", status=422)


def wrong_state(what: str, repair: str) -> JobRefusedError:
    """Something that a job in its state does not take."""
    return JobRefusedError(what, repair=repair, code="job-state", status=409)


def words(error: AftermapError) -> dict[str, str]:
    """As a page shows it."""
    return {"code": error.code, "what": error.what, "repair": error.repair}
