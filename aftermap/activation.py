"""A head that says of a chip what it is, and of each place in it by how much it speaks for that: class activation.

After Zhou et al. 2016, with the head of methods.md A'.2: mean of the deepest features, 256 hidden units, one logit. On a map
the same layers see the features of each place in place of their mean: ground of one kind gets the logit of a chip of that kind.
"""

from __future__ import annotations

from aftermap.torchdoor import Tensor, functional, nn

HIDDEN, DROPOUT = 256, 0.5


class Activation(nn.Module):
    """Features -> logits: of whole chips (n, output), or with `dense` a map (n, output, y, x); the weights are the same.

    The deepest features have `channels` and `stride`; a map is enlarged so many times, bilinearly.
    """

    def __init__(self, channels: int, outputs: int, stride: int, *, dense: bool):
        super().__init__()
        self.stride, self.dense = stride, dense
        self.hidden, self.dropout, self.last = nn.Linear(channels, HIDDEN), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        """As the class says."""
        deepest = features[-1]  # (n, channel, y / stride, x / stride)
        seen = deepest.movedim(1, -1) if self.dense else deepest.mean(dim=(2, 3))
        logits: Tensor = self.last(self.dropout(functional.relu(self.hidden(seen))))
        if not self.dense:
            return logits
        return functional.interpolate(logits.movedim(-1, 1), scale_factor=self.stride, mode="bilinear", align_corners=False)
