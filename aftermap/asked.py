"""A page that asks what frozen encoders know, with a table `probe` in place of steps that train: read, and run as the verb does.

Strict as pages that train are: what is not named here, steps among it, is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aftermap import looks, probing, recipe
from aftermap.areas import Place
from aftermap.card import find
from aftermap.experiment import refuse_without_extra
from aftermap.journal import digest
from aftermap.page import Data
from aftermap.probe import Plan
from aftermap.samples import Progress, choose_bands
from aftermap.strict import refuse, value


@dataclass(frozen=True)
class Probe:
    """What is asked, of whom; as the options of `aftermap probe`."""

    beside: tuple[str, ...] = looks.BESIDE
    untrained: tuple[str, ...] = ()
    """Encoders with their first weights."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Encoder -> the page of facts (.toml) of its weights, or "hub"."""
    models: tuple[str, ...] = ()
    """Names or folders of models that give embeddings."""
    areas: str = ""
    size: int = 64
    most: int = 4000
    labels: tuple[int, ...] = (50, 100, 250, 500, 1000)
    repeats: int = 15
    least_mixed: int = 200

    def __post_init__(self) -> None:
        if min((*self.labels, self.size)) < 3 or not self.labels or min(self.repeats, self.most, self.least_mixed) < 1:
            raise refuse(f"probe is {asdict(self)}", "give labels and a size of at least 3, and else numbers above 0")


@dataclass(frozen=True)
class Page:
    """All that it says; with data and seed it determines the result."""

    inputs: tuple[str, ...]
    """Layers or bands that what is no model of one's own sees."""
    probe: Probe
    data: Data = field(default_factory=Data)
    name: str = ""

    @property
    def sha256(self) -> str:
        """Of all that is said, overrides included, but for the name."""
        return digest({k: v for k, v in asdict(self).items() if k != "name"})


def asks(name: str | Path) -> bool:
    """Whether a recipe probes. Raises as `recipe.table`."""
    return "probe" in recipe.table(name)


def read(name: str | Path, overrides: Sequence[str] = ()) -> Page:
    """As recipe.read."""
    made: Page = value(recipe.table(name, overrides), Page, "")
    return made


def run(
    name: str | Path, data: Path, out: Path, *, seeds: Sequence[int] = (0,), overrides: Sequence[str] = (),
    progress: Progress = lambda *_: None,
) -> dict[Path, dict[str, Any]]:  # fmt: skip
    """For each seed the folder below `out` and what its probe.json holds: what `aftermap probe` writes, and the page's hash."""
    page, found = read(name, overrides), {}
    for seed in seeds:
        own = page.probe
        place = Place(data, page.data, own.size, own.areas, own.most, seed)
        plan = Plan(place.tasks, tuple(sorted(set(own.labels))), own.repeats, seed=seed, least_mixed=own.least_mixed)
        folder = out / f"{page.name}-seed{seed}-{digest([page.sha256, place.key])[:12]}"
        about = {"recipe": page.name, "page_sha256": page.sha256}
        encoders = _encoders(page, place, folder, seed)
        found[folder] = probing.probe(place, encoders, plan, folder, progress=progress, about=about)
    return found


def _encoders(page: Page, place: Place, out: Path, seed: int) -> list[Any]:
    bands = choose_bands(place.dataset.bands, page.inputs)
    named: Mapping[str, Path] = {name: find(model) for name, model in looks.named(page.probe.models).items()}
    if page.probe.untrained or page.probe.weights:
        refuse_without_extra()
        from aftermap import bare

        named = {**named, **bare.made(place, page.probe.untrained, page.probe.weights, bands, out / "encoders", seed)}
    return looks.chosen(place, named, page.probe.beside, page.inputs)
