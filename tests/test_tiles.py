"""Laws of tiles and blending: tiles cover, constant stays constant, tiled equals whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftermap.errors import UsageError
from aftermap.predict import Plan
from aftermap.scorer import F32, Bool, LayerBands, Scorer
from aftermap.seamless import Handed, Tiling, score_window
from aftermap.tiles import Window, blocks, starts, taper

ONE_BAND = (LayerBands("after", ("VV",), "dB"),)


@dataclass(frozen=True)
class Constant:
    value: float
    halo_px: int = 0
    multiple_of: int = 1
    inputs = ONE_BAND
    classes = ("flood",)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        return np.full((1, 1, *pixels.shape[2:]), self.value, np.float32)


@dataclass(frozen=True)
class Pixelwise:
    halo_px: int = 0
    multiple_of: int = 1
    inputs = ONE_BAND
    classes = ("flood",)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        return np.asarray(1 / (1 + pixels.astype(np.float64) ** 2), np.float32)


@dataclass(frozen=True)
class Neighbourhood:
    """The mean of the observed pixels within the halo: looks exactly as far as it says."""

    halo_px: int = 3
    multiple_of: int = 1
    inputs = ONE_BAND
    classes = ("flood",)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        side = 2 * self.halo_px + 1
        padded = np.pad(pixels[0, 0], self.halo_px, constant_values=np.nan)
        around = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
        highest = np.where(np.isnan(around), -np.inf, around).max(axis=(-1, -2))
        return np.asarray(1 / (1 + np.exp(-highest.astype(np.float64))), np.float32)[None, None]


def noise(shape: tuple[int, int], seed: int) -> F32:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(1, *shape)).astype(np.float32)
    pixels[0, rng.random(shape) < 0.05] = np.nan
    return pixels


def map_all(scorer: Scorer, pixels: F32, tiling: Tiling, size: int) -> npt.NDArray[np.float32]:
    shape = (pixels.shape[1], pixels.shape[2])
    out = np.empty((1, *shape), np.float32)
    for window in blocks(shape, size):
        out[(..., *window.slices)] = score_window(scorer, lambda w: pixels[(..., *w.slices)], window, shape, tiling)
    return out


@given(st.integers(1, 200), st.integers(1, 60), st.data())
def test_tiles_cover_and_never_leave(length: int, size: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, size))
    begins = starts(length, size, stride)
    covered = np.zeros(length, bool)
    for s in begins:
        assert 0 <= s <= max(length - size, 0)
        covered[s : s + size] = True
    assert covered.all()
    assert len(set(begins)) == len(begins)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_blocks_cover_once(height: int, width: int, size: int) -> None:
    count = np.zeros((height, width), int)
    for window in blocks((height, width), size):
        count[window.slices] += 1
    assert (count == 1).all()


@given(st.integers(8, 64), st.integers(0, 3), st.integers(0, 8))
def test_taper_is_whole_numbers(length: int, trim: int, ramp: int) -> None:
    weights = taper(length, trim=trim, ramp=ramp, at_start=False, at_end=False)
    assert (weights == np.round(weights)).all()
    assert weights.min() >= 0
    assert weights.max() <= 256
    assert (weights == weights[::-1]).all()
    assert (taper(length, trim=trim, ramp=ramp, at_start=True, at_end=True) == 256).all()


geometry = st.tuples(
    st.integers(5, 90), st.integers(5, 90), st.integers(10, 40), st.integers(0, 4), st.integers(0, 9), st.integers(3, 50)
)


@settings(max_examples=60)
@given(geometry, st.floats(0, 1, width=32))
def test_constant_scorer_gives_a_constant_map(facts: tuple[int, ...], value: float) -> None:
    height, width, core, trim, blend, block = facts
    tiling = Tiling(core + 2 * trim + blend, trim, blend)
    scores = map_all(Constant(value), np.zeros((1, height, width), np.float32), tiling, block)
    assert (scores == np.float32(value)).all()


@settings(max_examples=60)
@given(geometry, st.integers(0, 5))
def test_pixelwise_scorer_is_the_same_tiled_or_whole(facts: tuple[int, ...], seed: int) -> None:
    height, width, core, trim, blend, block = facts
    pixels = noise((height, width), seed)
    tiled = map_all(Pixelwise(), pixels, Tiling(core + 2 * trim + blend, trim, blend), block)
    whole = Pixelwise()(pixels[None], np.isfinite(pixels))[0]
    np.testing.assert_array_equal(tiled, np.where(np.isnan(pixels), np.nan, whole))


@settings(max_examples=60)
@given(geometry, st.integers(0, 5))
def test_local_scorer_is_the_same_tiled_or_whole(facts: tuple[int, ...], seed: int) -> None:
    height, width, core, trim, blend, block = facts
    pixels = noise((height, width), seed)
    scorer = Neighbourhood(halo_px=trim)
    tiled = map_all(scorer, pixels, Tiling(core + 2 * trim + blend, trim, blend), block)
    whole = scorer(pixels[None], np.isfinite(pixels))[0]
    np.testing.assert_array_equal(tiled, np.where(np.isnan(pixels), np.nan, whole))


def test_blending_needs_the_taper() -> None:
    """A scorer that looks farther than it says does show seams: the laws above can fail."""
    pixels = noise((80, 70), 0)
    tiled = map_all(Neighbourhood(halo_px=4), pixels, Tiling(24, 0, 0), 40)
    whole = Neighbourhood(halo_px=4)(pixels[None], np.isfinite(pixels))[0]
    assert not np.array_equal(tiled, np.where(np.isnan(pixels), np.nan, whole))


@pytest.mark.parametrize(("halo", "multiple", "stride"), [(0, 1, 512), (2, 1, 512), (40, 32, 560), (64, 32, 512), (7, 16, 512)])
def test_tiling_serves_the_scorer(halo: int, multiple: int, stride: int) -> None:
    tiling = Tiling.of(Constant(0.5, halo_px=halo, multiple_of=multiple))
    assert tiling.stride == stride
    assert tiling.size % multiple == 0
    assert tiling.trim >= halo


@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(600, 4000), st.integers(0, 40))
def test_blocks_and_their_cores_cover_the_scene_once(height: int, width: int, memory: int, halo: int) -> None:
    plan = Plan({"constant": Constant(0.5, halo_px=halo)}, 0.5, False, memory)
    blocks = plan.blocks((height, width))
    cores = [core for block in blocks for core in plan.cores(block, (height, width))]
    for windows in (blocks, cores):
        assert sum(w.height * w.width for w in windows) == height * width
        rows, cols = sorted({w.row for w in windows}), sorted({w.col for w in windows})
        assert {(w.row, w.col) for w in windows} == {(r, c) for r in rows for c in cols}
        assert all(0 <= w.row < w.stop_row <= height and 0 <= w.col < w.stop_col <= width for w in windows)


@dataclass(frozen=True)
class Counting:
    """Scores that differ from tile to tile, and how many tiles were scored."""

    tiles: list[int]
    halo_px: int = 40
    multiple_of: int = 1
    inputs = ONE_BAND
    classes = ("flood",)

    def __call__(self, pixels: F32, valid: Bool) -> F32:
        self.tiles.append(1)
        return np.full((1, 1, *pixels.shape[2:]), abs(np.tanh(pixels[0, 0, ::7, ::7].sum())), np.float32)

    def memory_mb(self, tile: tuple[int, int], threads: int) -> float:
        return float(tile[0] * tile[1] * 1e-3)

    def release(self) -> None:
        self.tiles.clear()


@pytest.mark.parametrize("skipped", [(), (0,), (1, 4), (3,)])
def test_each_tile_is_scored_once_whatever_was_handed_on(skipped: tuple[int, ...]) -> None:
    """Row by row of blocks; where a run resumes in the middle more is scored, to the same scores."""
    scorer, shape = Counting([]), (1792, 2352)  # whole strides, so that no tile is pulled back
    pixels = np.random.default_rng(2).normal(size=(1, *shape)).astype(np.float32)
    tiling, handed = Tiling.of(scorer), Handed()
    found = Plan({"counting": scorer}, 0.5, False, 880).blocks(shape)
    assert len(found) == 12
    for n, window in enumerate(found):
        if n not in skipped:
            one = score_window(scorer, lambda w: pixels[(..., *w.slices)], window, shape, tiling, handed=handed)
            alone = score_window(Counting([]), lambda w: pixels[(..., *w.slices)], window, shape, tiling)
            np.testing.assert_array_equal(one, alone)
    every = len(starts(shape[0], tiling.size, tiling.stride)) * len(starts(shape[1], tiling.size, tiling.stride))
    assert len(scorer.tiles) == every if not skipped else len(scorer.tiles) < 2 * every
    assert sum(part[0].width * part[0].height for part in [*handed.right.values(), *handed.below.values()]) < 4 * 32 * shape[1]


def test_what_a_scorer_takes_is_left_out_of_the_blocks() -> None:
    blocks_at = {mb: len(Plan({"counting": Counting([])}, 0.5, False, mb).blocks((3000, 3000))) for mb in (880, 1200, 1400)}
    assert blocks_at[880] > blocks_at[1200] > blocks_at[1400]
    with pytest.raises(UsageError, match="of which counting itself takes 452") as caught:
        Plan({"counting": Counting([])}, 0.5, False, 820).blocks((3000, 3000))
    assert caught.value.code == "memory"
    least = int(caught.value.repair.split()[-1])
    assert Plan({"counting": Counting([])}, 0.5, False, least).blocks((3000, 3000))


def test_overlap_and_padding_stay_inside() -> None:
    assert Window(5, 6, 10, 10).pad(8, (20, 18)) == Window(0, 0, 20, 18)
    assert Window(0, 0, 4, 5).overlap(Window(4, 0, 2, 2)) is None
    assert Window(0, 0, 4, 5).overlap(Window(2, 3, 9, 9)) == Window(2, 3, 2, 2)
