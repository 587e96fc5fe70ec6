"""Vision transformers: sizes, positions on any grid, attention, and the graph that does what the network does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aftermap.card import Card
from aftermap.errors import UsageError
from aftermap.export import export
from aftermap.model import Model, Spec, build
from aftermap.running import openvino
from aftermap.scorer import LayerBands
from aftermap.torchdoor import torch
from aftermap.vit import Vit

MICRO = Spec("vit_micro8", "upward", (2,), side=64)


def test_parameter_counts_are_those_of_the_paper() -> None:
    """methods.md D.2: ViT-B/16 on 12 bands of 448 px; 86 M of three bands at 224 px (Dosovitskiy et al. 2021, table 1)."""
    with torch.device("meta"):
        base = Vit("vit_b16", 3)
        own = Vit("vit_b16", 12, side=448)
    assert sum(p.numel() for p in base.parameters()) == 85_798_656
    assert own.transformer.pos_embed.shape == (1, 785, 768)


def test_attention_is_that_of_the_class_token() -> None:
    encoder = Vit("vit_micro8", 2, side=32).eval()
    pixels = torch.randn(3, 2, 32, 48)
    with torch.no_grad():
        looked = encoder.attention(pixels)
        last = encoder.transformer.blocks[-1].attn
        last.fused_attn = False
        seen: list[torch.Tensor] = []
        last.attn_drop.register_forward_hook(lambda _m, _i, out: seen.append(out))
        encoder(pixels)
    assert looked.shape == (3, 4, 4, 6)
    np.testing.assert_allclose(looked.flatten(2), seen[0][:, :, 0, 1:], atol=1e-6)


def test_tokens_that_are_kept_are_those_of_their_places() -> None:
    encoder = Vit("vit_micro8", 1, side=32).eval()
    pixels, kept = torch.randn(2, 1, 32, 32), torch.tensor([[3, 0], [15, 7]])
    whole, part = encoder.placed(pixels), encoder.placed(pixels, kept)
    assert part.shape == (2, 3, 128)
    torch.testing.assert_close(part[1, 1], whole[1, 16])
    torch.testing.assert_close(part[:, 0], whole[:, 0])


@pytest.mark.parametrize(
    ("decoder", "gives"), [("upward", "map"), ("deconv", "map"), ("mean", "embedding"), ("token", "embedding")]
)
def test_graph_does_what_the_network_does_at_any_size(tmp_path: Path, decoder: str, gives: str) -> None:
    network = build(replace(MICRO, decoder=decoder, gives=gives)).eval()
    graph = openvino().Core().read_model(export(network, tmp_path, _card(gives), fp16=False))
    run = openvino().Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((2, 2, 64, 64), (1, 2, 32, 96)):
        pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        with torch.no_grad():
            wanted = network(torch.from_numpy(pixels))
        wanted = torch.sigmoid(wanted) if gives == "map" else wanted
        np.testing.assert_allclose(run({0: pixels})[0], wanted.numpy(), atol=2e-4)


def test_each_band_by_itself_and_those_that_are_constant_not_at_all() -> None:
    network = build(Spec("vit_micro8", "token", (3,), fusion="each", gives="embedding", side=32)).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        alone = [network(torch.nn.functional.pad(pixels[:, k : k + 1], (0, 0, 0, 0, 0, 2))) for k in range(3)]
        torch.testing.assert_close(network(pixels), torch.stack(alone).mean(dim=0))
        pixels[:, 1] = 0
        torch.testing.assert_close(network(pixels), (alone[0] + alone[2]) / 2)


def test_decoders_of_others_are_refused() -> None:
    with pytest.raises(UsageError, match="upward"):
        Spec("vit_micro8", "unet", (2,))
    with pytest.raises(UsageError, match="vit_b16"):
        Spec("resnet18", "token", (2,))


def test_sides_are_whole_patches() -> None:
    assert Spec("vit_h14", "upward", (2,)).multiple_of == 224
    with pytest.raises(UsageError, match="patches of 14 px"):
        Spec("vit_h14", "deconv", (2,))
    with torch.device("meta"):
        assert Model(Spec("vit_h14", "upward", (2,)))(torch.empty(1, 2, 224, 448, device="meta")).shape == (1, 1, 224, 448)


def _card(gives: str) -> Card:
    return Card(
        name="x", hazard="flood", classes=("flood",), inputs=(LayerBands("after", ("VV", "VH"), "dB"),), mean=(0.0, 0.0),
        std=(1.0, 1.0), halo_px=0, multiple_of=32, training_data="", licence="", made_by="", sha256={}, gives=gives,
    )  # fmt: skip
