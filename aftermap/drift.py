"""The verb `drift`: how far what a model sees in one set of images lies from another, or from what it knows, and from its errors.

After methods.md E.2. A chip is as large as those of training. Its error is the Brier score of the hazard, the mean over its
labelled pixels of the squared difference of score and truth: defined for a chip of one class too, as balanced accuracy is not.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aftermap import distances, stats, transfer
from aftermap.adapt.crops import picture_of
from aftermap.ahead import ahead
from aftermap.card import find
from aftermap.chips import U8, UNKNOWN
from aftermap.distances import F64
from aftermap.engine import Network
from aftermap.errors import InputRefusedError, UsageError
from aftermap.journal import write_json
from aftermap.known import MOST, Known, seen
from aftermap.layer import Declared
from aftermap.normalise import F32
from aftermap.page import Data, Target
from aftermap.samples import MOST_PX, Progress
from aftermap.scene import open_scene
from aftermap.targets import Images
from aftermap.tiles import Window, starts

IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
RULE = "even"
"""No threshold is looked for here; a network on a scene has to have some rule."""
COLUMNS = ("name", "event", "row", "col", "nearest", "mahalanobis", "familiarity", "brier")
_DRAW, _APART, _RELATED = range(3)
"""What the seed draws, each by itself."""


@dataclass(frozen=True)
class Seen:
    """What images are looked at, and how: files, folders of them, and data sets."""

    paths: Sequence[Path]
    data: Data = field(default_factory=Data)
    band_map: str = "auto"
    declared: Declared = field(default_factory=Declared)
    """What files do not say of themselves."""

    @property
    def words(self) -> str:
        """Their names."""
        return ", ".join(path.name for path in self.paths)


class _Image(NamedTuple):
    """One of them: pixels (band, y, x) of a window on the level of the network, and class codes (y, x) of all of it."""

    name: str
    event: str
    shape: tuple[int, int]
    read: Callable[[Window], F32]
    truth: U8 | None


@dataclass(frozen=True, eq=False)
class Cloud:
    """Chips of a set as a model sees them."""

    words: str
    embeddings: F32
    """(n, d)."""
    chips: tuple[tuple[str, str, int, int], ...] = ()
    """Name, event, first row and column of each."""
    errors: F64 = field(default_factory=lambda: np.empty(0))
    """Brier score (n,), NaN where no truth is known."""


def drift(
    model: str, to: Seen, source: Seen | None = None, *, most: int = MOST["train"], seed: int = 0,
    progress: Progress = lambda *_: None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """Distances of two sets for a model (name or folder), and rows of COLUMNS, one for each chip of the set `to`.

    Without a `source` it is what the model knows. Raises UsageError, InputRefusedError ("no-embedding", "no-chips",
    "band-missing", "model-input").
    """
    network = Network.open(find(model), precision="f32")
    known = Known.of(network.folder, network.card)
    if source is None and known is None:
        raise UsageError(f"the model {network.name} has no known.npz", repair="give the images that it was trained on as --from")
    side = known.chip_px if known else network.card.chip_px or MOST_PX
    target = _cloud(to, network, side, most, seed, partial(progress, "to"))
    if source is not None:
        origin = _cloud(source, network, side, most, seed, partial(progress, "from"), errors=False)
    else:
        assert known is not None
        origin = Cloud(f"what {network.name} knows", known.train)
    table = {
        "nearest": distances.nearest(target.embeddings, origin.embeddings),
        "mahalanobis": distances.mahalanobis(target.embeddings, origin.embeddings),
        "familiarity": known.familiarity(target.embeddings) if known else np.full(len(target.embeddings), np.nan),
        "brier": target.errors,
    }
    facts = {
        "model": network.name, "sha256": network.sha256, "from": origin.words, "to": target.words, "chip_px": side, "seed": seed,
        "chips": [len(origin.embeddings), len(target.embeddings)], "numbers_a_chip": int(target.embeddings.shape[1]),
        **apart(origin.embeddings, target.embeddings, seed),
        "familiarity_median": float(np.median(table["familiarity"])) if known else None,
        "error": "Brier score of the hazard, mean over labelled pixels",
        **{f"error_by_{name}": related(table[name], target, seed) for name in ("nearest", "mahalanobis")},
    }  # fmt: skip
    values = zip(*(column.tolist() for column in table.values()), strict=True)
    plain = ([None if np.isnan(v) else round(v, 6) for v in row] for row in values)
    return facts, [dict(zip(COLUMNS, (*chip, *row), strict=True)) for chip, row in zip(target.chips, plain, strict=True)]


def apart(first: F32, second: F32, seed: int) -> dict[str, Any]:
    """Every distance between two clouds (n, d), by name."""
    rng = partial(np.random.default_rng, [seed, _APART])
    return {
        "frechet": distances.frechet(first, second),
        "mmd": asdict(distances.mmd(first, second, rng())),
        "sliced_wasserstein": distances.sliced(first, second, rng()),
        "whitened_means": distances.whitened(first, second),
        "told_apart": asdict(distances.told_apart(first, second, rng())),
    }


def related(distance: F64, target: Cloud, seed: int) -> dict[str, Any] | None:
    """Spearman's correlation of a distance with the error, its interval by resampling events, of one event chips, and the p of a
    permutation of chips; None where fewer than LEAST_POINTS chips have an error, or nothing varies."""
    places = np.flatnonzero(np.isfinite(target.errors))
    if len(places) < distances.LEAST_POINTS:
        return None
    names = [target.chips[k][1] for k in places]
    by_event = len(set(names)) > 1
    units = [places[[n == name for n in names]] for name in sorted(set(names))] if by_event else [places[k : k + 1] for k in
             range(len(places))]  # fmt: skip

    def score(drawn: Sequence[Any]) -> float | None:
        own = np.concatenate(drawn) if drawn else places[:0]
        return distances.rank_correlation(distance[own], target.errors[own])

    rng = np.random.default_rng([seed, _RELATED])
    if score(units) is None:
        return None
    found = stats.interval(units, score, rng)
    p = distances.permuted(distance[places], target.errors[places], rng)
    return {
        "spearman": found.value, "low": found.low, "high": found.high, "interval": found.method, "chips": len(places),
        "resampled": "events" if by_event else "chips", "units": len(units), "undefined": found.undefined, "p": p,
        "permutations": distances.PERMUTATIONS,
    }  # fmt: skip


def _cloud(
    given: Seen, network: Network, side: int, most: int, seed: int, told: Callable[[int, int], None], *, errors: bool = True
) -> Cloud:  # fmt: skip
    """At most so many chips of all images, as many of each as there are; those that were hardly observed are left out."""
    rng = np.random.default_rng([seed, _DRAW])
    count, images = _images(given, network, rng, most)
    chips, embeddings, found = [], [], []
    errors = errors and network.card.gives == "map"
    for done, image in enumerate(images, 1):
        windows = [Window(r, c, *(min(side, length) for length in image.shape)) for r in starts(image.shape[0], side, side)
                   for c in starts(image.shape[1], side, side)]  # fmt: skip
        for k in sorted(rng.permutation(len(windows))[: -(-most // count)]):
            pixels = image.read(windows[k])
            if seen(pixels):
                padded = _padded(pixels, network.multiple_of)
                chips.append((image.name, image.event, windows[k].row, windows[k].col))
                embeddings.append(network.embeddings(padded[None])[0])
                found.append(_brier(network, padded, image.truth, windows[k]) if errors else float("nan"))
        told(done, count)
    if len(chips) < distances.LEAST_POINTS:
        what = f"{given.words} has {len(chips)} chips of {side} px that were observed"
        raise InputRefusedError(what, repair=f"give at least {distances.LEAST_POINTS}", code="no-chips")
    kept = slice(most)
    return Cloud(given.words, np.stack(embeddings)[kept], tuple(chips[kept]), np.asarray(found)[kept])


def _images(given: Seen, network: Network, rng: np.random.Generator, most: int) -> tuple[int, Iterator[_Image]]:
    """How many images are looked at, and those: of more than `most` a draw."""
    every: list[Callable[[], _Image]] = [one for path in given.paths for one in _of(given, path, network)]
    taken = [every[k] for k in sorted(rng.permutation(len(every))[:most])]
    if not taken:
        raise InputRefusedError(f"{given.words} holds no image", repair="give images, or a data set", code="no-chips")
    return len(taken), ahead(lambda opened: opened(), taken)


def _of(given: Seen, path: Path, network: Network) -> list[Callable[[], _Image]]:
    files = sorted(p for p in path.glob("*") if p.suffix.lower() in IMAGES) if path.is_dir() else []
    if files and not given.data.kind:
        return [partial(_file, given, file, network) for file in files]
    if not path.is_dir():
        return [partial(_file, given, path, network)]
    images = Images.of(Target(network.card.hazard, given.data, given.band_map), path, network.card)
    return [partial(_member, images, name, network) for name in images.names]


def _member(images: Images, name: str, network: Network) -> _Image:
    chip = images.dataset.read(name)
    pixels = images.levelled(network, chip)
    truth = None if chip.truth is None else np.where(chip.labelled, chip.truth, np.uint8(UNKNOWN))
    return _Image(name, chip.event, chip.shape, lambda window: np.asarray(pixels[(..., *window.slices)]), truth)


def _file(given: Seen, path: Path, network: Network) -> _Image:
    scene = open_scene({"after": [path]}, hazard=network.card.hazard, declared={"after": given.declared})
    own = transfer.on(scene, network, RULE, given.band_map).levelled(scene)
    picture = picture_of(scene, own.inputs, lambda pixels: own.network.levelled(own.as_read(pixels)))
    return _Image(path.name, path.name, scene.shape, picture.read, None)


def _padded(pixels: F32, multiple_of: int) -> F32:
    pad = ((0, 0), *((0, -side % multiple_of) for side in pixels.shape[1:]))
    return np.asarray(np.pad(pixels, pad, constant_values=np.nan), np.float32)


def _brier(network: Network, pixels: F32, truth: U8 | None, window: Window) -> float:
    if truth is None:
        return float("nan")
    own, valid = truth[window.slices], np.asarray(np.isfinite(pixels).all(axis=0))
    scores = network(pixels[None], valid[None])[0, 0, : window.height, : window.width]
    labelled = (own != UNKNOWN) & valid[: window.height, : window.width]
    return float(((scores[labelled] - (own[labelled] > 0)) ** 2).mean()) if labelled.any() else float("nan")


def words(facts: dict[str, Any]) -> list[str]:
    """Lines for a reader."""
    mmd, told = facts["mmd"], facts["told_apart"]
    lines = [
        f"{facts['model']}: {facts['chips'][1]} chips of {facts['to']} from {facts['chips'][0]} of {facts['from']}, "
        f"{facts['chip_px']} px",
        f"  Frechet {facts['frechet']:.4g}  MMD^2 {mmd['squared']:.4g} (p {mmd['p']:.3g})  sliced Wasserstein "
        f"{facts['sliced_wasserstein']:.4g}  whitened means {facts['whitened_means']:.4g}",
        f"  told apart in {told['accuracy']:.1%} of chips; naming the larger set every time {told['majority']:.1%}",
    ]
    if facts["familiarity_median"] is not None:
        lines.append(f"  familiarity {facts['familiarity_median']:.1%} of the median chip; of training's like 50 %")
    for name, distance in (("nearest", "to the nearest chips"), ("mahalanobis", "of Mahalanobis")):
        if (found := facts[f"error_by_{name}"]) is not None:
            lines.append(
                f"  error by distance {distance}: Spearman {found['spearman']:.2f} ({found['low']:.2f} to {found['high']:.2f} "
                f"over {found['units']} {found['resampled']}, p {found['p']:.3g} of permuted chips)"
            )
    return lines


def write(folder: Path, facts: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """drift.json, drift.csv and drift.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "drift.json", facts)
    with (folder / "drift.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / "drift.txt").write_text("\n".join(words(facts)) + "\n", encoding="utf-8")
