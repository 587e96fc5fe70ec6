"""Object context by hand, images seen enlarged, and the five kinds of network of papers/004 at 14 bands: trained and exported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from aftermap import encoders
from aftermap.card import WEIGHTS, Card
from aftermap.enlarging import multiple_of
from aftermap.errors import UsageError
from aftermap.export import Graph, export
from aftermap.losses import Sum
from aftermap.model import Spec, build, save_weights
from aftermap.objectives.segment import Segment
from aftermap.ocr import SHARE, ObjectContext
from aftermap.page import Chips
from aftermap.running import openvino
from aftermap.scorer import LayerBands
from aftermap.torchdoor import Tensor, functional, nn, torch

torch.set_num_threads(1)
SMALL = "mobilenetv3_small_050"
FIVE = [
    Spec("resnet18", "unet", (14,), widths=(4, 8, 8, 16, 16)),
    Spec("tf_efficientnetv2_b0", "unet", (14,), widths=(4, 8, 8, 16, 16)),
    Spec("mit_b0", "segformer", (14,), widths=(16,)),
    Spec("swin_tiny_patch4_window7_224", "unet", (14,), widths=(4, 8, 8, 16, 16)),
    Spec("hrnet_w18_small", "ocr", (14,), widths=(32,)),
]


def card(bands: int) -> Card:
    names = tuple(f"B{i + 1}" for i in range(bands))
    return Card(
        name="small", hazard="landslide", classes=("landslide",), inputs=(LayerBands("after", names, "digital_number"),),
        halo_px=32, multiple_of=32, mean=tuple(1.0 + i / 10 for i in range(bands)), std=tuple(0.3 + i / 10 for i in range(bands)),
        training_data="none", licence="Apache-2.0", made_by="a test", sha256={},
    )  # fmt: skip


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def agrees(spec: Spec, folder: Path, *sizes: tuple[int, int, int]) -> float:
    """The largest difference of a score between torch and the engine; scores are spread out, that there be some to see."""
    bands = sum(spec.bands)
    model, facts = build(spec, seed=3).eval(), replace(card(bands), multiple_of=spec.multiple_of)
    with torch.no_grad():
        deviation = model(image(2, bands, *sizes[0][1:])).std()
        for one in model.modules():
            if isinstance(one, nn.Conv2d) and one.out_channels == spec.outputs:
                one.weight *= 2 / deviation
    graph = export(model, folder, facts, fp16=False)
    compiled = openvino().Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    difference = 0.0
    for n, y, x in sizes:
        raw = image(n, bands, y, x, seed=y) * torch.tensor(facts.std)[:, None, None]
        raw[:, 0, 5:20, 7:9] = torch.nan
        found = compiled(raw.numpy())[0]
        with torch.no_grad():
            expected = Graph(model, facts.mean, facts.std).eval()(raw).numpy()
        assert found.shape == expected.shape == (n, 1, y, x)
        assert expected.std() > 0.02
        difference = max(difference, float(np.abs(found - expected).max()))
    return difference


@pytest.mark.parametrize("spec", FIVE, ids=lambda s: f"{s.encoder}-{s.decoder}")
def test_the_five_kinds(spec: Spec, tmp_path: Path) -> None:
    model = build(spec, seed=1).train()
    batch = {"pixels": image(2, 14, 64, 64), "valid": torch.ones(2, 64, 64, dtype=torch.bool)}
    batch["truth"] = (image(2, 64, 64, seed=1) > 1).long()
    optimiser, first = torch.optim.AdamW(model.parameters(), 1e-3), next(model.encoder.parameters())
    Segment(Sum({"ce": 1.0, "dice": 1.0}))(model, batch)["loss"].backward()  # type: ignore[no-untyped-call]
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not idle, "every part learns"
    assert first.grad is not None
    assert first.grad.abs().amax(dim=(0, 2, 3)).min() > 0, "from each band"
    optimiser.step()
    with torch.no_grad():
        assert model(batch["pixels"]).isfinite().all()
    assert agrees(spec, tmp_path, (1, 64, 64), (2, 96, 160)) < 1e-3


@pytest.mark.parametrize("encoder", [s.encoder for s in FIVE])
def test_three_bands_become_fourteen(encoder: str) -> None:
    """Mean of the trained bands x 3 / 14: what is alike in every band is seen as before (methods.md C.3)."""
    trained, grey = encoders.build(encoder, 3).eval(), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before = trained(grey.expand(1, 3, 64, 64))
        encoders.inflate(trained, 14)
        after = trained(grey.expand(1, 14, 64, 64))
    for a, b in zip(before[1:], after[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_context_by_hand() -> None:
    """Equations 1 to 4 place by place, with layers that change nothing and regions of which one holds the bright places."""
    head = ObjectContext(2, 1).eval()
    for name in ("query", "key", "value", "widen"):
        setattr(head, name, nn.Identity())
    head.keys = 2
    pixels, soft = image(1, 2, 3, 4).abs(), image(1, 1, 3, 4, seed=1)
    with torch.no_grad():
        found = head._context(pixels, soft)[0].flatten(1).T.numpy()  # (place, width)
    x, h = pixels[0].flatten(1).T.numpy().astype(float), soft.flatten().numpy().astype(float)
    objects = np.stack([np.average(x, axis=0, weights=np.exp(sign * h / 2)) for sign in (-1, 1)])
    for place in range(12):
        related = np.exp(objects @ x[place] / np.sqrt(2))
        np.testing.assert_allclose(found[place], related @ objects / related.sum(), atol=1e-5)


def test_one_logit_is_two_regions() -> None:
    """A network of one logit h sees as one of two classes with the logits -h / 2 and h / 2."""
    one, two = ObjectContext(8, 1).eval(), ObjectContext(8, 2).eval()
    halves = {
        name: torch.cat([-value, value]) / 2
        for name, value in one.state_dict().items()
        if name.split(".")[0] in ("regions", "last")
    }
    two.load_state_dict(one.state_dict() | halves)
    pixels = image(2, 8, 5, 6)
    with torch.no_grad():
        alone, both = one(pixels), two(pixels)
        torch.testing.assert_close(torch.sigmoid(alone[:, 0]), both.softmax(dim=1)[:, 1])
        assert alone.shape == (2, 1, 20, 24)
        far = pixels.clone()
        far[:, :, -1] += 3
        assert not torch.allclose(one(far)[:, :, :8], alone[:, :, :8], atol=1e-4), "context reaches across the image"


def test_soft_regions_learn_from_the_loss_of_the_map() -> None:
    head = ObjectContext(4, 1).eval()
    nn.init.zeros_(head.last.weight)
    head(image(1, 4, 2, 3)).sum().backward()
    assert head.regions.bias is not None
    assert head.regions.bias.grad is not None
    assert head.regions.bias.grad.item() == pytest.approx(SHARE * 8 * 12)


@pytest.mark.parametrize("encoder", ["hrnet_w18_small", "resnet10t", "mit_b0"])
def test_ocr_gathers_strides_4_to_32(encoder: str) -> None:
    model = build(Spec(encoder, "ocr", (14,), 3)).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 14, 64, 96)).shape == (2, 3, 64, 96)
    wanted = {"hrnet_w18_small": 16 + 32 + 64 + 128, "resnet10t": 64 + 128 + 256 + 512, "mit_b0": 32 + 64 + 160 + 256}
    assert model.decoder.join[0].weight.shape == (512, wanted[encoder], 3, 3)  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    ("times", "side"), [(1, 32), (2, 32), (4, 32), (2.5, 64), (1.5, 64), (1.25, 128), (1.6, 160), (0.5, 0), (9, 0), (2.3, 0)]
)
def test_sides_of_what_is_enlarged(times: float, side: int) -> None:
    assert multiple_of(times) == side
    if side:
        assert side * times % 32 == 0
        assert Spec(SMALL, "unet", (2,), upsample=times).multiple_of == side
    else:
        with pytest.raises(UsageError, match=r"2\.5"):
            Spec(SMALL, "unet", (2,), upsample=times)


def test_logits_come_back_as_means_by_area() -> None:
    model = build(Spec(SMALL, "unet", (2,), upsample=2.5, widths=(4, 4, 8, 8, 16))).eval()
    plain = build(replace(model.spec, upsample=1)).eval()
    plain.load_state_dict(model.state_dict())
    pixels = image(1, 2, 64, 128)
    large = functional.interpolate(pixels, size=(160, 320), mode="bilinear", align_corners=False)
    with torch.no_grad():
        fine = plain(large).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)  # 5 x 5 of these are one pixel
        torch.testing.assert_close(model(pixels), functional.avg_pool2d(fine, 5))


def test_a_graph_enlarges_by_parts_of_a_pixel(tmp_path: Path) -> None:
    spec = Spec(SMALL, "unet", (2,), upsample=2.5, widths=(4, 4, 8, 8, 16))
    assert agrees(spec, tmp_path, (1, 64, 128), (2, 192, 64)) < 1e-3


def test_whole_numbers_stay_as_they_were(tmp_path: Path) -> None:
    """Files and hashes from when only whole numbers were allowed."""
    spec = Spec(SMALL, "unet", (2,), upsample=2, widths=(4, 4, 8, 8, 16))
    save_weights(tmp_path, build(spec))
    with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        assert json.loads(file.metadata()["spec"])["upsample"] == 2
    for given in (4, 4.0):
        assert type(Chips(96, given).upsample) is int
    assert Chips(128, 2.5).upsample == 2.5
    for size in (0, 96):
        with pytest.raises(UsageError, match="a multiple of 64") as refused:
            Chips(size, 2.5)
        assert refused.value.code == "recipe-invalid"
