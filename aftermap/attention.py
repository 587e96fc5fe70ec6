"""What a vision transformer looks at: attention of its class token, and its tokens, of pixels in sensor units; numpy out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aftermap import model as networks
from aftermap.card import FILE, WEIGHTS, Card
from aftermap.errors import UsageError
from aftermap.journal import sha256
from aftermap.model import Model, there
from aftermap.torchdoor import Tensor, torch
from aftermap.vit import SIZES, Vit

F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
SIDE = 256
"""Side of the squares that a model looks at whose card tells no chip_px."""


@dataclass(frozen=True)
class Onlooker:
    """A model as one that looks: `heads` planes of attention and tokens of `width` numbers, one for each patch of `patch` px."""

    name: str
    card: Card
    model: Model
    sha256: dict[str, str]
    mean: F32
    std: F32

    @property
    def heads(self) -> int:
        """Of the last layer."""
        return SIZES[self.model.spec.encoder].heads

    @property
    def width(self) -> int:
        """Numbers of a token."""
        return SIZES[self.model.spec.encoder].width * (len(self.model.spec.bands) if self.model.spec.fusion == "siamese" else 1)

    @property
    def patch(self) -> int:
        """Side in px."""
        return SIZES[self.model.spec.encoder].patch

    @property
    def side(self) -> int:
        """Side in px of the squares that it looks at: whole patches."""
        return -(-(self.card.chip_px or SIDE) // self.patch) * self.patch

    def seen(self, pixels: F32) -> Bool:
        """Where (y, x) it has something to look at: every band, or any where each is seen by itself."""
        missing = np.isnan(pixels)
        return np.asarray(~(missing.all(axis=0) if self._apart else missing.any(axis=0)), np.bool_)

    @property
    def _apart(self) -> bool:
        return self.model.spec.fusion == "each"

    def __call__(self, pixels: F32) -> tuple[F32, F32]:
        """Attention (head, row, col) and tokens (width, row, col) of a square (band, y, x) of whole patches, NaN where unseen."""
        missing = np.isnan(pixels) if self._apart else np.isnan(pixels).any(axis=0, keepdims=True)  # as export.Graph
        normal = np.where(missing, np.float32(0), (pixels - self.mean) / self.std)
        with torch.no_grad():
            attention, tokens = _sight(self.model, torch.from_numpy(normal[None]))
        return attention[0].numpy(), tokens[0].numpy()


def open_onlooker(folder: Path) -> Onlooker:
    """The model of a folder. Raises the errors of model.load, and UsageError where its encoder is no vision transformer."""
    found, card = networks.load(folder)
    _refuse(found, folder)
    hashes = {name: sha256(folder / name) for name in (FILE, WEIGHTS)}
    mean, std = (np.asarray(k, np.float32)[:, None, None] for k in (card.mean, card.std))
    return Onlooker(card.name, card, found, hashes, mean, std)


@contextmanager
def one_thread() -> Iterator[None]:
    """Meanwhile each square is worked on by one thread: many side by side are faster, and sums come in one order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _refuse(model: Model, folder: Path) -> None:
    if not isinstance(model.encoder, Vit):
        raise UsageError(
            f"the encoder of {folder} is {model.spec.encoder}, which has no attention to show",
            repair=f"give a model whose encoder is one of {', '.join(SIZES)}", code="model-attention",
        )  # fmt: skip
    if model.spec.upsample != 1:
        raise UsageError(
            f"{folder} enlarges its images {model.spec.upsample:g} times, so its patches are not of whole pixels",
            repair="give a model whose upsample is 1", code="model-attention",
        )  # fmt: skip


def _sight(model: Model, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (n, head, row, col) and tokens (n, width, row, col): means over bands where each is
    seen by itself; of dates the mean attention, and tokens side by side."""
    encoder, spec = model.encoder, model.spec
    assert isinstance(encoder, Vit)
    if spec.fusion not in ("each", "siamese"):
        return encoder.sight(pixels)
    parts = pixels.shape[1] if spec.fusion == "each" else len(spec.bands)
    share = there(pixels) if spec.fusion == "each" else torch.full((len(pixels), parts), 1 / parts)
    attention, tokens = (
        torch.unflatten(one, 0, (-1, parts)) for one in encoder.sight(torch.unflatten(pixels, 1, (parts, -1)).flatten(0, 1))
    )  # (n, part, ...)
    weighed = [(one * share[..., None, None, None]).sum(dim=1) for one in (attention, tokens)]
    return weighed[0], weighed[1] if spec.fusion == "each" else tokens.flatten(1, 2)
