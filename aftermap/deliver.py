"""The verb `map`: files in, one delivered folder out. Scene, doctor, choice of methods, prediction, products, report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aftermap import check, coregister, exclude, journal, mishaps, pieces, report, sight
from aftermap.asking import NOTHING, Asked, asked
from aftermap.calibration import UNCALIBRATED
from aftermap.card import KNOWN
from aftermap.chipdensity import DensityModel, apart
from aftermap.choice import Chosen, Made, choose, make
from aftermap.choosing import LEAST_MEMORY_MB, adapting, too_large
from aftermap.errors import UnknownNameError, UsageError
from aftermap.facts import known
from aftermap.finish import finish
from aftermap.hazardmap import HazardMap
from aftermap.layer import Declared
from aftermap.measured import measured
from aftermap.parts import LEVELS
from aftermap.pictured import pictured
from aftermap.predict import THREADS, Plan, predict
from aftermap.products.buildings import Grader, grades
from aftermap.products.project import write_project
from aftermap.products.stac import write_item
from aftermap.products.summary import Summary, write_summary
from aftermap.relief import with_relief
from aftermap.scene import Scene, open_scene
from aftermap.scorer import Scorer, Several
from aftermap.witness import Witness
from aftermap.workers import Workers, here, workers

if TYPE_CHECKING:
    from aftermap.familiarity import Familiarity
    from aftermap.origin import Origin

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Progress = Callable[[str, int, int], None]
"""Called with the stage ("prepare", "map", "deliver") and how much of it is done, of how much."""

PROFILES = ("unosat",)
FAVOURED = {"balanced": 0.5, "precision": 0.8, "recall": 0.2}
"""Operating point -> threshold on the score: 0.5 is the methods' own, the others by benchmarks/favour.py."""
ONLY = ("likelihood", "extent", "exclusion", "agreement", "spread", "familiarity")
"""Rasters that can be asked for alone."""
UNFAMILIAR = "look at familiarity.tif and at the other methods, or train or adapt a model on images like these"
_UNSEPARATED = {
    "water": "open water, permanent water not separated",
    "bare soil": "bare soil, old and new not separated",
    "bright surface": "bright surface, buildings not told from other ground",
    "rough surface": "rough surface, buildings not told from other ground",
    "change": "change, buildings not told from other ground",
}
"""What a map shows, in words, where a scorer's class is not the hazard itself: a noun, and after the comma its caveat."""


@dataclass(frozen=True)
class Options:
    """How to map. All of it is recorded in run.json, but for the last four, which change no pixel."""

    threshold: float | None = None
    """Score above which a pixel is hazard; None for that of `favour`."""
    favour: str | None = None
    """One of FAVOURED; None for "balanced"."""
    min_area_m2: float | None = None
    gsd_m: float | None = None
    density_m: float | None = None
    """Side in metres of the cells of density.tif; None for the usual ones of landslides and no density of others, 0 for none."""
    profile: str | None = None
    """"unosat": map.gpkg also has a layer with the field names of UNOSAT."""
    event_code: str | None = None
    """UNOSAT's code of the event, for example FL20220808PAK."""
    incidence: float | None = None
    """Angle of incidence of the radar in degrees from the vertical; None for what the tags of `after` say."""
    look: float | None = None
    """Azimuth in which the radar looks, in degrees clockwise from north."""
    model: str | tuple[str, ...] | None = None
    """Name or folder of a trained model that runs with the methods, or of several that run as one (ensemble.py); None for the
    bundled ones of the hazard, with "auto". A model of landslide density (chipdensity.py) is beside these."""
    flips: bool = False
    """Whether each `model` sees the image turned too, up-down, left-right and both."""
    precision: str = "auto"
    """Of networks: "f32", "bf16", or what a trial on this machine allows."""
    engine: str = "auto"
    """Of networks: "openvino", "onnxruntime", or the first that is installed and has a graph to run."""
    adapt: int | str = 0
    """Unlabelled crops of the scene that batch norm of networks is estimated anew from; 0: it stays as it was trained; "auto":
    ten, where the scene is of another kind of sensor (adapt/decide.py)."""
    adapt_mode: str = "ema"
    """Of adapt.norm.MODES."""
    cut: str | None = None
    """Of cuts.CUTS: the model may be of another hazard or sensor, and its scores are cut by this rule."""
    band_map: str = "auto"
    """Of bandmaps.MAPS, with `cut`."""
    baseline: bool = True
    """Whether the methods without training run beside a network."""
    lead: bool = False
    """Whether the networks of `model` lead the map, whatever their cards say."""
    keep_scores: bool = False
    only: tuple[str, ...] = ()
    """Rasters to write alone, of ONLY, with no minimum mapping unit, polygons or report; empty for everything."""
    coregister: bool = False
    memory_mb: int = 1000
    """That this process stays under, and each worker."""
    overwrite: bool = False
    workers: int = 0
    """Processes of this machine that share the blocks, of one thread each; 0: this process has them all."""
    cluster: str = ""
    """Scheduler of a Dask cluster whose workers share them in its place, and see the same files under the same paths."""

    def __post_init__(self) -> None:
        if self.favour is not None and self.favour not in FAVOURED:
            raise UnknownNameError("operating point", self.favour, FAVOURED)
        if self.favour is not None and self.threshold is not None:
            raise UsageError("--favour and --threshold both set the level", repair="give one of them")
        if self.band_map != "auto" and not self.cut:
            raise UsageError("--band-map goes with --cut", repair="give --cut too, or leave it out")
        if isinstance(self.adapt, str) and self.adapt != "auto":
            raise UsageError(f"--adapt is {self.adapt!r}", repair="give a number of crops, or auto")
        if not 0 < self.level < 1:
            raise UsageError(f"the threshold {self.threshold:g} is not between 0 and 1", repair="0.5 is the methods' own")
        if self.profile is not None and self.profile not in PROFILES:
            raise UnknownNameError("profile", self.profile, PROFILES)
        if self.event_code and self.profile != "unosat":
            raise UsageError("--event-code is a field of the UNOSAT profile", repair="give --profile unosat too")
        for name, value in (("--gsd-m", self.gsd_m), ("--min-area-m2", self.min_area_m2), ("--density-m", self.density_m)):
            if value is not None and not 0 <= value < 1e12:
                raise UsageError(f"{name} {value:g} is no length or area", repair="give it in metres or square metres")
        if unknown := [n for n in self.only if n not in ONLY]:
            raise UnknownNameError("raster", unknown[0], ONLY)
        if "spread" in self.only and not self.ensemble:
            raise UsageError("--only spread is of an ensemble", repair="give several --model, or --flips")
        if self.only and (self.min_area_m2 or self.density_m or self.profile):
            raise UsageError("--only writes no polygons and no density", repair="leave out --only, or what asks for them")
        if self.memory_mb < LEAST_MEMORY_MB:
            raise UsageError(f"--memory {self.memory_mb} MB is too little", repair=f"give at least {LEAST_MEMORY_MB} MB")

    @property
    def spread(self) -> bool:
        """Whether workers share the blocks."""
        return bool(self.workers or self.cluster)

    @property
    def ensemble(self) -> bool:
        """Whether several scores make one."""
        return self.flips or (isinstance(self.model, tuple) and len(self.model) > 1)

    @property
    def level(self) -> float:
        """The threshold that is used."""
        return FAVOURED[self.favour or "balanced"] if self.threshold is None else self.threshold


def map(
    after: Files,
    before: Files = (),
    *,
    out: str | os.PathLike[str],
    dem: Files = (),
    reference_water: Files = (),
    low_sensitivity: Files = (),
    aoi: str | os.PathLike[str] | None = None,
    assets: str | os.PathLike[str] | None = None,
    footprints: str | os.PathLike[str] | None = None,
    declared: Mapping[str, Declared] | None = None,
    name: str = "",
    hazard: str = "flood",
    method: str = "auto",
    options: Options | None = None,
    progress: Progress | None = None,
    origin: Origin | None = None,
) -> HazardMap:
    """The delivered map of a hazard on the grid of `after`; see products.md of the documentation for the files in `out`.

    `assets` are points, lines and polygons that the summary counts as affected or not, `footprints` polygons of buildings that
    are graded one by one. `declared` says of a layer what its files do not, `origin` what a catalog said of them all. The answer
    may be "nothing found" or "not analysed". Resumes when `out` holds this very job unfinished, and returns at once when it is
    finished. Raises UsageError, InputRefusedError, JobInterruptedError.
    """
    if hazard not in pieces.HAZARDS:
        raise UnknownNameError("hazard", hazard, pieces.HAZARDS)
    if method != "auto" and method not in pieces.PIECES[hazard]:
        raise UnknownNameError("method", method, ["auto", *pieces.PIECES[hazard]])
    started, told = time.time(), progress or (lambda *_: None)
    given = {"after": after, "before": before, "dem": dem, "reference_water": reference_water, "low_sensitivity": low_sensitivity}
    files = {key: _paths(paths) for key, paths in given.items()}
    beside = [Path(path) if path else None for path in (assets, footprints)]
    witness = Witness.of(chain(*files.values()), beside, following=origin is None)
    scene = open_scene(files, hazard=hazard, declared=declared, area_of_interest=Path(aoi) if aoi else None, name=name)
    if options is not None and options.coregister:
        scene = coregistered(scene)
    scene = with_relief(scene, gsd_m=options.gsd_m if options else None)
    said = asked({**files, "aoi": _paths(aoi or ()), "assets": _paths(assets or ()), "footprints": _paths(footprints or ())},
                 declared or {}, name, options or Options())  # fmt: skip
    job = Job(scene, method, options or Options(), Path(out), told, beside[0], beside[1], origin, said, witness)
    with mishaps.told(Path(out)):
        return job.run(started)


def coregistered(scene: Scene) -> Scene:
    """The scene with before laid on after, which needs a pair with a CRS."""
    if "before" not in scene.layers or scene.grid.crs is None:
        raise UsageError("--coregister needs an image before and a CRS", repair="leave it out, or give what is missing")
    return coregister.aligned(scene)[0]


def _paths(files: Files) -> list[Path]:
    return [Path(files)] if isinstance(files, str | os.PathLike) else [Path(f) for f in files]


@dataclass(frozen=True)
class Job:
    """One mapping: what determines it, and the steps."""

    scene: Scene
    method: str
    options: Options
    out: Path
    progress: Progress
    assets: Path | None = None
    footprints: Path | None = None
    origin: Origin | None = None
    asked: Asked = NOTHING
    witness: Witness = field(default_factory=Witness)

    def run(self, started: float) -> HazardMap:
        """Maps, or resumes, or finds it already delivered."""
        chosen, density, facts = self.settled()
        with journal.Journal(self.out, journal.digest(facts)) as log, self.witness.judging():
            if not log.open(overwrite=self.options.overwrite, lineage=facts.get("lineage", "")):
                with mishaps.own(self.out), workers(self.options.workers, self.options.cluster) as crew:
                    self._make(log, chosen, facts, started, density, crew)
                    return HazardMap(self.out)
        return HazardMap(self.out)

    def settled(self) -> tuple[Chosen, DensityModel | None, dict[str, Any]]:
        """What runs, and all that determines it."""
        options = self.options
        how = {"precision": options.precision, "engine": options.engine}
        ways: dict[str, Any] = {"baseline": options.baseline, "lead": options.lead, "how": how, "flips": options.flips}
        cut = (options.cut, options.band_map) if options.cut else None
        density, models = apart(self.scene, options.model, how)
        chosen = choose(self.scene, self.method, model=models, cut=cut, **ways)
        if not models and (large := too_large(self.scene, chosen, options.memory_mb)):
            chosen = choose(self.scene, self.method, baseline=options.baseline, bundled=False)
            chosen = replace(chosen, skipped=chosen.skipped | large)
        if options.adapt:
            chosen = adapting(chosen, options)
        if "familiarity" in options.only and not knowing(chosen.models):
            raise UsageError("--only familiarity is of a model that knows its training", repair="give a --model with known.npz")
        self.witness.take((*chosen.methods.values(), density))
        beside = {"assets": self.assets, "footprints": self.footprints}
        facts = known(self.scene, self.method, options, chosen, look=self._look, witness=self.witness, density=density, **beside)
        return chosen, density, self.origin.recorded(facts) if self.origin else facts

    def _make(
        self, log: journal.Journal, chosen: Chosen, facts: dict[str, Any], started: float, density: DensityModel | None,
        crew: Workers,
    ) -> None:  # fmt: skip
        plan, made, grader, exclusions = self.planned(chosen, THREADS if crew is here else 1)
        scorers = plan.scorers
        wanted = not self.options.only or "familiarity" in self.options.only
        familiar = familiarity(self.scene, scorers, chosen.models) if wanted else None
        prepared, shared = time.time(), crew.count
        contents = self.origin.contents(facts) if self.origin else None
        told = partial(self.progress, "map")
        parts = predict(self.scene, plan, exclusions, log, progress=told, crew=crew, contents=contents, witness=self.witness)
        mapped = time.time()
        run = {"key": log.key, **facts, **self._outcome(facts, scorers, chosen, made, familiar)}
        told = partial(self.progress, "deliver")
        summary = finish(
            self.scene, parts, log, run, assets=self.assets, footprints=self.footprints, grader=grader, model=density,
            familiarity=familiar, progress=told,
        )  # fmt: skip
        run |= {"asked": None if self.origin else dict(self.asked.facts)}
        self._write(log, {**run, "answer": summary.answer, "buildings": summary.graded}, summary)
        journal.write_json(self.out / "log.json", {
            **measured(started, prepared, mapped, self.options, shared), "folders": list(self.asked.folders),
        })  # fmt: skip

    def planned(self, chosen: Chosen, threads: int) -> tuple[Plan, Made, Grader | None, exclude.Exclusions]:
        """Every method after its look at the scene, and what is excluded: all that any window needs."""
        self.progress("prepare", 0, len(chosen.methods))
        scorers: dict[str, Scorer] = {}
        for n, (key, method) in enumerate(chosen.methods.items()):
            scorers[key] = method.prepare(self.scene)
            self.progress("prepare", n + 1, len(chosen.methods))
        made = make(self.scene, scorers, chosen)
        grader = self._grader(scorers, chosen, made)
        plan = Plan(
            scorers, self.options.level, self.options.keep_scores, self.options.memory_mb, made.combined, made.calibrations,
            told_apart=grader.name if grader else "", threads=threads,
        )  # fmt: skip
        exclusions = exclude.prepare(self.scene, made.needed, gsd_m=self.options.gsd_m, look=self._look)
        return plan, made, grader, exclusions

    def _grader(self, scorers: Mapping[str, Scorer], chosen: Chosen, made: Made) -> Grader | None:
        """The network that makes the map, or the one that was asked for, where it tells grades of damage apart."""
        if self.scene.hazard != "building" or self.options.only:
            return None
        alone = made.combined if len(made.combined) == 1 else ()
        for name in (*alone, *(chosen.models if self.options.model else ())):
            if grades(classes := scorers[name].classes[1:]):
                why = "" if name in alone else str(chosen.models[name]["why"])
                return Grader(name, classes, LEVELS, why)
        return None

    @cached_property
    def _look(self) -> sight.Look | None:
        return sight.look_of(self.scene, self.options.incidence, self.options.look)

    def _outcome(
        self, facts: Mapping[str, Any], scorers: Mapping[str, Scorer], chosen: Chosen, made: Made, familiar: Familiarity | None
    ) -> dict[str, Any]:
        """What the methods found in the scene as a whole."""
        lead = made.combined[0]
        found = scorers[lead].classes[0]
        if found == "water" and "reference_water" in self.scene.layers:
            found = self.scene.hazard
        cautions = [
            f"{name}: {w}" for name in made.combined for k, w in _numbers(scorers[name]).items()
            if (k.endswith("source") and "no threshold found" in str(w))
            or (k.endswith("adapted") and str(w).startswith("not adapted"))
        ]  # fmt: skip
        repair = "look at likelihood.tif before trusting the extent, or map with another method"
        assumed = [check.Finding("threshold-assumed", "warn", c, self.scene.name, repair).facts() for c in cautions]
        if familiar and familiar.far:
            assumed.append(check.Finding("unfamiliar", "warn", familiar.words(), self.scene.name, UNFAMILIAR).facts())
        level = self.options.level
        table = made.calibrations.get(lead) if len(made.combined) == 1 else None
        return {
            "warnings": [*facts["warnings"], *assumed],
            "classes": [found],
            "maps": _UNSEPARATED.get(found, found),
            "methods": {
                "lead": lead, "combined": list(made.combined), "why": made.why, "images": list(made.images),
                "ran": {n: _numbers(s) for n, s in scorers.items()}, "skipped": chosen.skipped,
                "spread": next((_spread(n, s) for n, s in scorers.items() if isinstance(s, Several)), None),
                "familiarity": familiar.facts() if familiar else None,
                "calibration": {n: c.words if (c := made.calibrations.get(n)) else UNCALIBRATED for n in scorers},
                "percent_at_threshold": round(100 * (float(table(np.array([level], np.float32))[0]) if table else level)),
            },
            "calibration": made.calibration,
        }  # fmt: skip

    def _write(self, log: journal.Journal, run: Mapping[str, Any], summary: Summary) -> None:
        """The files that need the summary, then everything at once into OUT."""
        rows = summary.rows()
        write_summary(log.stage / "summary.csv", rows)
        journal.write_json(log.stage / "run.json", run)
        if not self.options.only:
            write_project(log.stage, self.scene.grid, run)
            report.write_report(log.stage / "report.html", run=run, summary=rows, pictures=pictured(self.scene, log.stage, run))
        write_item(log.stage, self.scene.grid, run)
        self.witness.refuse_changed()
        log.deliver(keep=bool(run.get("failed")))


def familiarity(scene: Scene, methods: Mapping[str, Any], models: Mapping[str, Any]) -> Familiarity | None:
    """Of the first network that knows anything; None where none does."""
    if not models:
        return None
    from aftermap.familiarity import judge, of  # with openvino, which most maps do without

    by = judge(methods, models)
    return of(scene, by) if by else None


def knowing(models: Mapping[Any, Mapping[str, Any]]) -> bool:
    """Whether any of the networks, or of the members of one, has a known.npz, by their facts."""
    return any(KNOWN in one.get("files", {}) or knowing(dict(enumerate(one.get("members", [])))) for one in models.values())


def _numbers(scorer: Scorer) -> dict[str, Any]:
    """The plain numbers and words of a scorer, which is a frozen dataclass, and of its members."""
    plain = (int, float, str)
    every: dict[str, Any] = asdict(scorer)  # type: ignore[call-overload]
    for n, member in enumerate(getattr(scorer, "members", ()), start=1):
        every |= {f"member {n} {k}": v for k, v in _numbers(member).items()}
    return {
        k: v for k, v in every.items()
        if v is None or isinstance(v, plain) or (isinstance(v, tuple) and v and all(type(one) is float for one in v))
    }  # fmt: skip


def _spread(name: str, scorer: Several) -> dict[str, Any]:
    """What spread.tif is of."""
    return {"of": name, "over": scorer.spreads, "finds": scorer.classes[0]}
