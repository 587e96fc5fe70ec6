"""M3LEO (methods.md J): its U-Net, worked by hand."""

from __future__ import annotations

from aftermap.model import Spec, build
from aftermap.torchdoor import nn, torch

torch.set_num_threads(1)


def test_the_network_has_the_published_size() -> None:
    """A pair of convolutions i -> o with biases and norms has 9 o (i + o) + 6 o parameters."""
    made = build(Spec("double_conv", "doubling", (12,), 11))
    pairs = [(12, 32), (32, 64), (64, 128), (128, 256), (256, 512), (768, 256), (384, 128), (192, 64), (96, 32)]
    expected = sum(9 * o * (i + o) + 6 * o for i, o in pairs) + 32 * 11 + 11
    assert sum(p.numel() for p in made.parameters()) == expected == 7_855_467
    modes = {m.padding_mode for m in made.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}
    assert modes == {"reflect"}


def test_the_network_keeps_size_and_halves_four_times() -> None:
    made = build(Spec("double_conv_quarter", "doubling", (3,), 2)).eval()
    with torch.no_grad():
        features = made.features(torch.zeros(1, 3, 64, 96))
        assert [f.shape[1:] for f in features[1:]] == [(8, 64, 96), (16, 32, 48), (32, 16, 24), (64, 8, 12), (128, 4, 6)]
        assert made(torch.zeros(1, 3, 64, 96)).shape == (1, 2, 64, 96)
