"""Tiles to scores to one seamless map, window by window in bounded memory; reading, scoring and writing overlap."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aftermap import running
from aftermap.afar import grouped, spread
from aftermap.ahead import Threads, ahead, one_ahead
from aftermap.calibration import Calibration
from aftermap.errors import UsageError
from aftermap.exclude import Exclusions, settle
from aftermap.hazardmap import NOT_ANALYSED
from aftermap.journal import Journal, Made, digest, noted
from aftermap.median import median_of
from aftermap.parts import LEVELS, PLANES, SPREAD, Contents, Kept, Mapped, Parts, part_name, store
from aftermap.scene import Scene
from aftermap.scorer import Heavy, LayerBands, Scorer, Several, planes_of
from aftermap.seamless import Handed, Tiling, begin_window, reach
from aftermap.tiles import Window, starts
from aftermap.witness import Witness
from aftermap.workers import Workers, here

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

BASE_MB, MOST_CORES, HEAPS = 350, 3, 1.3
"""What a process takes before the first pixel; the largest block, in tiles a side; heaps to what lives, beside a network."""
THREADS = os.cpu_count() or 1
"""Tiles that are scored at once, where no workers share the blocks."""


@dataclass(frozen=True)
class Plan:
    """What one mapping does: the scorers by method name, the leading one first, and how they are applied."""

    scorers: Mapping[str, Scorer]
    threshold: float
    keep_scores: bool
    memory_mb: int
    combined: tuple[str, ...] = ()
    """Methods whose mean likelihood is the map; empty for the leading one alone."""
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    """By method, where there is a table; else likelihood is the score."""
    told_apart: str = ""
    """The method whose scores of every class are kept beside the map (Parts.classes); empty for none."""
    threads: int = THREADS
    """Tiles that a process scores at once; 1 in workers, which also read and write in turn."""

    @cached_property
    def tiling(self) -> Tiling:
        """The tiling that all scorers share."""
        return Tiling.of(*self.scorers.values())

    @cached_property
    def spread_of(self) -> str:
        """The scorer whose spread is kept beside the map; empty for none."""
        return next((name for name, scorer in self.scorers.items() if isinstance(scorer, Several)), "")

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that are kept beside the map."""
        return self.scorers[self.told_apart].classes[1:] if self.told_apart else ()

    @property
    def planes(self) -> tuple[str, ...]:
        """What is kept of every pixel."""
        return (*PLANES, SPREAD) if self.spread_of else PLANES

    @cached_property
    def stored(self) -> dict[LayerBands, int]:
        """The bands as they are read, before any median is taken, and their places."""
        return {one: n for n, one in enumerate(dict.fromkeys(replace(one, median_px=1) for one in self.bands))}

    @cached_property
    def bands(self) -> dict[LayerBands, int]:
        """Each band that any scorer reads, once, and its place on the band axis."""
        return {one: n for n, one in enumerate(dict.fromkeys(one for s in self.scorers.values() for one in singly(s)))}

    def blocks(self, shape: tuple[int, int]) -> list[Window]:
        """The blocks of a scene. Their edges lie where the next tile begins to weigh, so that tiles hand little over."""
        cores = self._cores_a_side(shape)
        return _windows(*(self._edges(length, cores) for length in shape))

    def cores(self, block: Window, shape: tuple[int, int]) -> list[Window]:
        """What each tile of a block is for."""
        spans = ((block.row, block.stop_row, shape[0]), (block.col, block.stop_col, shape[1]))
        return _windows(*([e for e in self._edges(length, 1) if first <= e <= last] for first, last, length in spans))

    def tiles(self, shape: tuple[int, int]) -> tuple[int, int]:
        """How many tiles lie over a scene, down and across."""
        return len(self._edges(shape[0], 1)) - 1, len(self._edges(shape[1], 1)) - 1

    def _edges(self, length: int, every: int) -> list[int]:
        tiling = self.tiling
        begins = starts(length, tiling.size, tiling.stride)
        return [0, *(s + tiling.trim for s in begins[every::every]), length]

    def _cores_a_side(self, shape: tuple[int, int]) -> int:
        """Cores along each side of a block, as many as there is memory for. Raises UsageError ("memory")."""
        if self.least_mb(shape) > self.memory_mb:
            own = "".join(f", of which {name} itself takes {mb:.0f}" for name, mb in self._heavy_mb(shape).items())
            what = f"--memory {self.memory_mb} MB is too little: one tile needs {self.least_mb(shape)}{own}"
            raise UsageError(what, repair=f"give at least --memory {self.least_mb(shape)}", code="memory")
        heavy = sum(self._heavy_mb(shape).values())
        spare = (self.memory_mb - BASE_MB) / (HEAPS if heavy else 1) - heavy
        return max(n for n in range(1, MOST_CORES + 1) if n == 1 or self._block_mb(n, shape) <= spare)

    def least_mb(self, shape: tuple[int, int]) -> int:
        """What blocks of one tile take, all in all."""
        return int(BASE_MB + sum(self._heavy_mb(shape).values()) + self._block_mb(1, shape)) + 1

    def _heavy_mb(self, shape: tuple[int, int]) -> dict[str, float]:
        return {n: s.memory_mb(self._tile(shape), self.threads) for n, s in self.scorers.items() if isinstance(s, Heavy)}

    def _tile(self, shape: tuple[int, int]) -> tuple[int, int]:
        return min(self.tiling.size, shape[0]), min(self.tiling.size, shape[1])

    def _block_mb(self, cores: int, shape: tuple[int, int]) -> float:
        """What blocks take: four are in flight (read ahead, begun, scored, written), the tiles of one overlap what they
        score, and scores of tiles wait for those before them."""
        stride = self.tiling.stride
        reach = self.tiling.size - (0 if self.tiling.blend else stride)
        seen, mapped = (prod(min(cores * stride + more, length) for length in shape) for more in (reach, 0))
        blended = sum(40 + 16 * (planes_of(s) - 1) for s in self.scorers.values()) if self.tiling.blend else 0
        waiting = 4 * max(planes_of(s) for s in self.scorers.values()) if self.tiling.blend else 0
        return ((4 * 4 * len(self.stored) + waiting) * seen + (blended + 3 * (len(self.planes) + 4)) * mapped) / 1e6


def _windows(rows: Sequence[int], cols: Sequence[int]) -> list[Window]:
    """The windows between edges, row by row."""
    return [Window(r, c, r2 - r, c2 - c) for r, r2 in pairwise(rows) for c, c2 in pairwise(cols)]


@dataclass(frozen=True)
class Job:
    """What a block is made of, and where it goes: all that another process needs to know."""

    scene: Scene
    plan: Plan
    exclusions: Exclusions
    work: Path
    """The journal's folder."""
    names: Mapping[Window, str]
    """Block -> part_name."""
    witness: Witness = field(default_factory=Witness)
    """Of what the scene is read from."""

    def known(self) -> Job:
        """Itself, what is worked out of the whole scene when first read (relief.py) worked out, so that it goes along."""
        for one in self.plan.stored:
            self.scene.read(one, Window(0, 0, 1, 1))
        return replace(self, work=self.work.absolute())


def predict(
    scene: Scene, plan: Plan, exclusions: Exclusions, journal: Journal, *, progress: Callable[[int, int], None],
    crew: Workers = here, contents: Contents | None = None, witness: Witness | None = None,
) -> Parts:  # fmt: skip
    """Scores every block that the journal does not hold yet, less what is excluded; `progress(done, all)` is called after each,
    with workers after each group of them.

    Raises RasterError when a window cannot be read, InputRefusedError ("input-changed"); what was finished stays in the journal.
    """
    blocks, finished = plan.blocks(scene.shape), journal.done()
    names = _names(scene, plan, blocks, journal.key, contents)
    job = Job(scene, plan, exclusions, journal.work, names, witness or Witness())
    todo = {b for b in blocks if job.names[b] not in finished}
    done = len(blocks) - len(todo)
    progress(done, len(blocks))
    for made in _made(job, blocks, todo, crew) if todo else ():
        journal.note(made)
        done += 1
        progress(done, len(blocks))
    for scorer in plan.scorers.values():
        if isinstance(scorer, Heavy):
            scorer.release()
    return Parts(journal, job.names)


def _names(
    scene: Scene, plan: Plan, blocks: Sequence[Window], key: str, contents: Contents | None
) -> dict[Window, str]:  # fmt: skip
    """Of parts, by the key of the run, or with `contents` of the scorers and what each block reads."""
    if contents is None:
        return {block: part_name(block, key) for block in blocks}
    scorers = hashlib.sha256(pickle.dumps((plan.scorers, plan.calibrations))).hexdigest()
    return {b: part_name(b, digest([scorers, contents.key(_region(scene, plan, b))])) for b in blocks}


def _made(job: Job, blocks: Sequence[Window], todo: Container[Window], crew: Workers) -> Iterator[Made]:
    """Those to do as they are finished: here one after the other, by workers in groups."""
    if crew is here:
        return mapped(job, [b for b in blocks if b in todo])
    groups = grouped(blocks, job.plan.tiles(job.scene.shape), crew.count, handing=job.plan.tiling.blend > 0)
    left = ([b for b in group if b in todo] for group in groups)
    return spread(job.known(), mapped, filter(None, left), job.work, crew)


def mapped(job: Job, blocks: Sequence[Window]) -> Iterator[Made]:
    """Blocks, row by row, as they are finished; not made again are those that someone finished and nobody wrote down."""
    found = {block: noted(job.work, job.names[block]) for block in blocks}
    yield from filter(None, found.values())
    running.limit(job.plan.threads)
    job.witness.refuse_changed()
    fresh = [block for block in blocks if found[block] is None]
    yield from (_overlapped if job.plan.threads > 1 else _in_turn)(job, fresh)


def _in_turn(job: Job, blocks: Sequence[Window]) -> Iterator[Made]:
    """By this thread alone."""
    cubes = (_read_block(job.scene, job.plan, job.exclusions, block) for block in blocks)
    for block, found in _mapped(job, blocks, cubes, None):
        yield _store(job, block, found)


def _overlapped(job: Job, blocks: Sequence[Window]) -> Iterator[Made]:
    """Several tiles at once; meanwhile the next block is read and the last one written, and no tile waits for a block's end."""
    cubes = ahead(partial(_read_block, job.scene, job.plan, job.exclusions), blocks)
    with closing(cubes), Threads(1) as writer, Threads(job.plan.threads) as pool:
        try:
            writing: Future[Made] | None = None
            for block, found in _mapped(job, blocks, cubes, pool):
                if writing:
                    yield writing.result()
                writing = writer.submit(_store, job, block, found)
            if writing:
                yield writing.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _store(job: Job, block: Window, found: Mapped) -> Made:
    job.witness.refuse_changed()  # after the block was read, so that no part is kept of other pixels than were hashed
    kept = Kept(job.plan.planes, job.plan.classes, job.plan.keep_scores)
    return store(job.work, job.names[block], job.scene.grid[block.slices], kept, found)


@dataclass(frozen=True)
class _Cube:
    """What one block needs, read in one go: `region` and its pixels (stored band, y, x); codes (y, x) of what is excluded."""

    region: Window
    pixels: F32
    excluded: U8


def _region(scene: Scene, plan: Plan, block: Window) -> Window:
    """What a block reads."""
    margin = max((one.median_px // 2 for one in plan.bands), default=0)
    return reach(block, scene.shape, plan.tiling).pad(margin, scene.shape)


def _read_block(scene: Scene, plan: Plan, exclusions: Exclusions, block: Window) -> _Cube:
    region = _region(scene, plan, block)
    pixels = np.empty((len(plan.stored), region.height, region.width), np.float32)
    for kind in dict.fromkeys(replace(one, bands=()) for one in plan.stored):
        group = [one for one in plan.stored if replace(one, bands=()) == kind]
        wanted = replace(kind, bands=tuple(one.bands[0] for one in group))
        pixels[[plan.stored[one] for one in group]] = scene.read(wanted, region)
    return _Cube(region, pixels, exclusions.codes(block))


def _mapped(
    job: Job, blocks: Sequence[Window], cubes: Iterable[_Cube], pool: ThreadPoolExecutor | None
) -> Iterator[tuple[Window, Mapped]]:  # fmt: skip
    """Blocks and what is made of them; the pool has the tiles of what comes next before this ends."""
    plan, drawn = job.plan, one_ahead if pool else iter
    if not plan.tiling.blend:
        for block, found in drawn(_cores(job, blocks, cubes, pool)):
            yield block, _joined(plan, block, found)
        return
    every: dict[str, F32] = {}
    for block, cube, name, scores in drawn(_scores(job, blocks, cubes, pool)):
        every[name] = scores()
        if len(every) == len(plan.scorers):
            yield block, _made_of(plan, block, cube, block, every)
            every = {}


def _cores(
    job: Job, blocks: Sequence[Window], cubes: Iterable[_Cube], pool: ThreadPoolExecutor | None
) -> Iterator[tuple[Window, Iterator[tuple[Window, Mapped]]]]:  # fmt: skip
    """Where no tiles are blended each core is mapped on its own, start to end, by one thread."""
    for block, cube in zip(blocks, cubes, strict=True):

        def core(cell: Window, block: Window = block, cube: _Cube = cube) -> tuple[Window, Mapped]:
            every = {name: scores() for name, scores in _begun(job, cell, cube)}
            return cell, _made_of(job.plan, cell, cube, block, every)

        yield block, iter((pool.map if pool else map)(core, job.plan.cores(block, job.scene.shape)))


def _joined(plan: Plan, block: Window, cores: Iterable[tuple[Window, Mapped]]) -> Mapped:
    planes, kept = (np.empty((len(names), *block[2:]), np.uint8) for names in (plan.planes, plan.classes))
    whole = Mapped(planes, np.empty(block[2:], np.float32), kept)
    for cell, found in cores:
        at = cell.within(block).slices
        whole.planes[(..., *at)], whole.scores[at], whole.classes[(..., *at)] = found
    return whole


def _scores(
    job: Job, blocks: Sequence[Window], cubes: Iterable[_Cube], pool: ThreadPoolExecutor | None
) -> Iterator[tuple[Window, _Cube, str, Callable[[], F32]]]:  # fmt: skip
    """Block by block, scorer by scorer, what gives its scores."""
    handed = {name: Handed() for name in job.plan.scorers}
    for block, cube in zip(blocks, cubes, strict=True):
        for name, scores in _begun(job, block, cube, pool, handed):
            yield block, cube, name, scores


def _begun(
    job: Job, cell: Window, cube: _Cube, pool: ThreadPoolExecutor | None = None, handed: Mapping[str, Handed] | None = None
) -> Iterator[tuple[str, Callable[[], F32]]]:  # fmt: skip
    """Of each scorer what gives its scores (class, y, x): all classes where they are kept, else the first."""
    plan, shape = job.plan, job.scene.shape
    region = reach(cell, shape, plan.tiling)
    pixels = _smoothed(plan, cube, region, pool)
    for name, scorer in plan.scorers.items():
        own = pixels[[plan.bands[one] for one in singly(scorer)]]
        kept = slice(None if name in (plan.told_apart, plan.spread_of) else 1)
        read = {region: own}.__getitem__
        begun = begin_window(scorer, read, cell, shape, plan.tiling, pool, handed[name] if handed else None)
        yield name, partial(_planes, begun, kept)


def _planes(begun: Callable[[], F32], kept: slice) -> F32:
    return np.asarray(begun()[kept])


def _made_of(plan: Plan, cell: Window, cube: _Cube, block: Window, every: Mapping[str, F32]) -> Mapped:
    """Planes of a cell from the scores of every scorer."""
    scores = {name: one[0] for name, one in every.items()}
    apart = every[plan.told_apart or next(iter(every))][1 : 1 + len(plan.classes)]
    levels = np.rint(np.nan_to_num(apart) * LEVELS).astype(np.uint8)
    lead, calibrated = _led(plan, scores)
    exclusion = settle(cube.excluded[cell.within(block).slices], ~np.isnan(lead))
    analysed = exclusion == 0
    filled = np.where(analysed, lead, np.float32(0))
    likely = filled if calibrated is None else calibrated(filled)
    votes = sum(((s > plan.threshold).astype(np.uint8) for s in scores.values()), start=np.zeros(lead.shape, np.uint8))
    apart_by = [_percent(every[plan.spread_of][-1])] if plan.spread_of else []
    planes = np.stack([_percent(likely), filled > plan.threshold, exclusion, votes, *apart_by], dtype=np.uint8)
    for plane in (planes[0], planes[1], *planes[3:]):
        plane[~analysed] = NOT_ANALYSED
    return Mapped(planes, np.where(analysed, lead, np.float32(np.nan)), np.where(analysed, levels, np.uint8(0)))


def _percent(shares: F32) -> U8:
    """Whole percents (y, x) of shares in [0, 1]; NOT_ANALYSED where NaN."""
    return np.nan_to_num(np.rint(shares * 100), nan=NOT_ANALYSED).astype(np.uint8)


def _smoothed(plan: Plan, cube: _Cube, window: Window, pool: ThreadPoolExecutor | None) -> F32:
    """Pixels (band, y, x) as the scorers read them, each median once."""

    def band(one: LayerBands) -> F32:
        stored = cube.pixels[plan.stored[replace(one, median_px=1)]]
        return median_of(stored, window.within(cube.region), one.median_px)

    heavy = any(one.median_px > 1 for one in plan.bands)
    return np.stack(list((pool.map if pool and heavy else map)(band, plan.bands)))


def _led(plan: Plan, scores: Mapping[str, F32]) -> tuple[F32, Calibration | None]:
    """Scores (y, x) that the map is made of, and what calibrates them: those of one method, or the mean likelihood of several
    over those that observed a pixel."""
    names = plan.combined or (next(iter(scores)),)
    if len(names) == 1:
        return scores[names[0]], plan.calibrations.get(names[0])
    total, count = np.zeros(scores[names[0]].shape, np.float32), np.zeros(scores[names[0]].shape, np.float32)
    for name in names:
        table = plan.calibrations.get(name)
        likelihood = table(scores[name]) if table else scores[name]
        seen = ~np.isnan(likelihood)
        np.add(total, likelihood, out=total, where=seen)
        count += seen
    return np.where(count > 0, total / np.maximum(count, 1), np.float32(np.nan)), None


def singly(scorer: Scorer) -> list[LayerBands]:
    """The bands of all inputs of a scorer, one by one."""
    return [replace(wanted, bands=(band,)) for wanted in scorer.inputs for band in wanted.bands]
