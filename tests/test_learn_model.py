"""Networks: the four U-Nets to the parameter, any encoder with any bands, weights with their facts, and a graph that agrees."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from aftermap import encoders
from aftermap.card import WEIGHTS, Card
from aftermap.encoders import Weights
from aftermap.engine import Network
from aftermap.errors import AftermapError, UnknownNameError, UsageError
from aftermap.export import Graph, export
from aftermap.journal import sha256
from aftermap.model import DECODERS, OF_VIT, OWN_GRID, WHOLE, Model, Spec, build, dense, load, save
from aftermap.running import openvino
from aftermap.scorer import LayerBands
from aftermap.torchdoor import nn, timm, torch
from aftermap.unet import WINNERS

torch.set_num_threads(1)
SMALL = "mobilenetv3_small_050"


def card(bands: int, classes: tuple[str, ...] = ("flood",)) -> Card:
    """A card whose mean and std differ from band to band."""
    names = tuple(f"B{i + 1}" for i in range(bands))
    return Card(
        name="small", hazard="flood", classes=classes, inputs=(LayerBands("after", names, "dB"),), halo_px=32, multiple_of=32,
        mean=tuple(-10.0 - i for i in range(bands)), std=tuple(3.0 + i for i in range(bands)),
        training_data="none", licence="Apache-2.0", made_by="a test", sha256={},
    )  # fmt: skip


def conv(inputs: int, outputs: int, size: int = 3) -> int:
    return inputs * outputs * size**2 + outputs


def decoder_count(skips: Sequence[int], widths: Sequence[int], gated: bool) -> int:
    """Parameters by methods.md A.2: per stage a lift and a fusion, then the last lift and the 1 x 1 head."""
    total, deeper, times = 0, skips[-1], 2 if gated else 1
    for width, skip in zip(widths[:0:-1], skips[-2::-1], strict=True):
        total += conv(deeper, width) + conv(width + skip, width)
        if gated:
            total += conv(width, width // 16, 1) + conv(width // 16, width, 1) + width
        deeper = times * width
    return total + conv(deeper, widths[0]) + conv(widths[0], 1, 1)


# Whole classifiers as published, less their last layers: 512, 2048, 2048 and 2688 features to 1000 classes.
ENCODERS = {"resnet34": 21_797_672 - 513_000, "seresnext50": 27_559_896 - 2_049_000, "senet154": 115_088_984 - 2_049_000} | {
    "dpn92": 37_668_392 - 2_689_000
}


@pytest.mark.parametrize("name", WINNERS)
@pytest.mark.parametrize("size", [128, 512, 1024])
def test_the_four(name: str, size: int) -> None:
    winner = WINNERS[name]
    with torch.device("meta"):
        model = Model(Spec(name, "unet_plain", (3,))).eval()
        features = model.encoder(torch.zeros(1, 3, size, size))
        logits = model(torch.zeros(1, 3, size, size))
    assert tuple(f.shape[1] for f in features[1:]) == winner.skips
    assert [size // f.shape[2] for f in features[1:]] == [2, 4, 8, 16, 32]
    assert logits.shape == (1, 1, size, size)
    assert sum(p.numel() for p in model.encoder.parameters()) == ENCODERS[name]
    rest = decoder_count(winner.skips, winner.widths, winner.gated)
    assert sum(p.numel() for p in model.parameters()) == ENCODERS[name] + rest
    assert not [m for m in model.decoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_the_deepest_features_of_dpn_are_normed() -> None:
    # The original's last stage is every block whose name begins with conv5_, and so the closing norm too.
    with torch.no_grad():
        features = build(Spec("dpn92", "unet_plain", (3,))).eval().encoder(torch.randn(1, 3, 64, 64))
    assert features[-1].min() == 0
    assert features[-2].min() < 0


KINDS = [SMALL, "resnet10t", "efficientnetv2_rw_t", "swin_tiny_patch4_window7_224", "mit_b0", "hrnet_w18_small", "convnext_atto"]


@pytest.mark.parametrize("encoder", KINDS)
def test_encoders_with_any_bands(encoder: str) -> None:
    model = build(Spec(encoder, "fpn", (2, 2), fusion="siamese")).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 4, 96, 64)).shape == (1, 1, 96, 64)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("fusion", "bands"), [("single", (5,)), ("early", (2, 3)), ("siamese", (2, 2))])
def test_decoders_and_fusions(decoder: str, fusion: str, bands: tuple[int, ...]) -> None:
    own = decoder in OWN_GRID
    of_vit = decoder in OF_VIT and decoder != "pool"
    outputs = 1 if own else 3
    other = "double_conv_quarter" if decoder == "doubling" else "resnet10t"
    model = build(Spec("unet_depth1" if own else "vit_micro8" if of_vit else other, decoder, bands, outputs, fusion)).eval()
    x = torch.randn(2, sum(bands), 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(x)
        blank = model(torch.cat([x[:, : bands[0]], torch.zeros_like(x[:, bands[0] :])], dim=1))
    if decoder in ("mean", "token"):
        outputs = 128 * (2 if fusion == "siamese" else 1)
    assert logits.shape == ((2, outputs) if decoder in WHOLE and decoder != "activation" else (2, outputs, 64, 96))
    assert fusion == "single" or not torch.equal(logits, blank), "the second date is read"


@pytest.mark.parametrize("fusion", ["single", "siamese"])
def test_an_activation_is_the_logit_of_each_place(fusion: str) -> None:
    spec = Spec("resnet10t", "activation", (2,) if fusion == "single" else (1, 1), 1, fusion, gives="class")
    chips = build(spec).eval()
    places = build(replace(spec, gives="map")).eval()
    places.load_state_dict(chips.state_dict())
    channels: int = chips.decoder.hidden.in_features  # type: ignore[union-attr, assignment]
    one, other = torch.randn(2, 1, channels, 1, 1, generator=torch.Generator().manual_seed(0)).expand(2, 1, channels, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(places.decoder([one]), chips.decoder([one])[..., None, None].expand(1, 1, 64, 96))
        half = places.decoder([torch.cat([one, other], dim=3)])
        assert chips(torch.zeros(3, 2, 64, 96)).shape == (3, 1)
    torch.testing.assert_close(half[..., :80], places.decoder([one])[..., :80])
    torch.testing.assert_close(half[..., 112:], places.decoder([other])[..., :80])


def test_labels_of_chips_become_a_map(tmp_path: Path) -> None:
    spec = Spec("resnet10t", "activation", (2,), gives="classes")
    facts = replace(card(2, ("artificial",)), gives="classes", scores=({"f1": 0.5},))
    save(tmp_path / "chips", build(spec, seed=3), facts)
    made = dense(tmp_path / "chips", tmp_path / "map")
    assert (made.gives, made.classes, made.scores) == ("map", ("flood",), ())
    assert sha256(tmp_path / "map" / WEIGHTS) != sha256(tmp_path / "chips" / WEIGHTS), "the spec is in it"
    raw = np.random.default_rng(0).normal(-11, 4, (1, 2, 64, 96)).astype(np.float32)
    mapped = Network.open(tmp_path / "map", precision="f32")(raw, np.ones((1, 64, 96), bool))
    with torch.no_grad():
        expected = Graph(load(tmp_path / "map")[0], made.mean, made.std)(torch.from_numpy(raw)).numpy()
    assert mapped.shape == (1, 1, 64, 96)
    np.testing.assert_allclose(mapped, expected, atol=5e-3)


def test_any_class_but_background_is_the_hazard(tmp_path: Path) -> None:
    """The baseline of methods.md A.7 iii: 21 classes of natural images, of which 20 are no background."""
    names = ("background", *(f"object-{k}" for k in range(1, 21)))
    save(tmp_path, build(Spec("resnet10t", "deeplabv3", (2,), 21)), replace(card(2), classes=names, hazard_classes=names[1:]))
    raw = np.random.default_rng(0).normal(-11, 4, (1, 2, 64, 64)).astype(np.float32)
    network = Network.open(tmp_path, precision="f32")
    scores = network(raw, np.ones((1, 64, 64), bool))
    assert scores.shape == (1, 22, 64, 64), "the hazard, then each class"
    np.testing.assert_allclose(scores[:, 0], 1 - scores[:, network.places[0]], atol=1e-3)
    assert scores[:, 0].min() > 0.5, "of random weights everything is an object"
    with pytest.raises(UsageError, match="decoder deeplabv3 and 21 outputs"):
        dense(tmp_path, tmp_path / "other")


def test_seeds() -> None:
    spec, state = Spec(SMALL, "unet_plain", (2,)), torch.get_rng_state()
    one, same, other = (next(build(spec, seed=s).parameters()) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"decoder": "unte"}, "unet"),
        ({"encoder": "resnet43", "decoder": "unet"}, "resnet34"),
        ({"bands": (2, 2)}, "early"),
        ({"bands": (2, 3), "fusion": "siamese"}, "early"),
        ({"encoder": "swin_tiny_patch4_window7_224", "decoder": "deeplabv3"}, "cannot be dilated"),
        ({"encoder": "mit_b0", "decoder": "deeplabv3"}, "resnet50"),
        ({"encoder": "double_conv"}, "doubling"),
        ({"decoder": "doubling"}, "double_conv"),
    ],
)
def test_wrong_specs(spec: dict[str, Any], match: str) -> None:
    with pytest.raises(AftermapError, match=match):
        build(Spec(**({"encoder": SMALL, "decoder": "unet", "bands": (2,)} | spec)))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """A classifier's weights as timm publishes them."""
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(5)
        save_file(timm.create_model("resnet10t").state_dict(), file)
    return Weights(file, sha256(file), "a test", "Apache-2.0", (0.5,) * 3, (0.25,) * 3)


def test_weights_are_inflated_to_any_bands(published: Weights) -> None:
    trained, many = (encoders.build("resnet10t", bands, published).eval() for bands in (3, 7))
    assert torch.equal(trained.state_dict()["model.conv1.0.weight"], load_file(published.file)["conv1.0.weight"])
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        same = zip(trained(grey.expand(1, 3, 64, 64))[1:], many(grey.expand(1, 7, 64, 64))[1:], strict=True)
    for a, b in same:
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert many.out_channels[0] == 7  # type: ignore[index]


def test_weights_travel_with_their_facts(published: Weights, tmp_path: Path) -> None:
    with pytest.raises(AftermapError, match="checksum") as caught:
        Weights(published.file, "0" * 64, "a test", "?")
    assert caught.value.code == "weights-changed"
    with pytest.raises(AftermapError, match="pickle"):
        Weights(tmp_path / "model.bin", "", "a test", "?")
    with pytest.raises(AftermapError, match="does not fit") as caught:
        encoders.build("resnet18", 3, published)
    assert caught.value.code == "weights-misfit"


class _Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one file, whatever repository is asked for."""

    content = b""

    def _answer(self, body: bool) -> None:
        self.send_response(200)
        for key, value in {"X-Repo-Commit": "c" * 40, "ETag": '"abc"', "Content-Length": str(len(self.content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(self.content)

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def endpoint(published: Weights) -> Iterator[str]:
    _Hub.content = published.file.read_bytes()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_weights_from_a_hub(endpoint: str, published: Weights, tmp_path: Path) -> None:
    found = encoders.hub("resnet10t", endpoint=endpoint, cache=tmp_path)
    assert found.sha256 == published.sha256
    assert found.licence == "apache-2.0"
    assert "resnet10t" in found.source
    assert found.mean == pytest.approx((0.485, 0.456, 0.406))


AGREE = [Spec(SMALL, "unet_plain", (2,)), Spec(SMALL, "unet", (2, 2), 3, "siamese"), Spec(SMALL, "segformer", (3,)),
         Spec("double_conv_quarter", "doubling", (2, 3), 3, "early")]  # fmt: skip


@pytest.mark.parametrize("spec", AGREE, ids=lambda s: s.decoder)
def test_graph_agrees_with_the_network(spec: Spec, tmp_path: Path) -> None:
    classes = ("flood",) if spec.outputs == 1 else ("land", "flood", "river")
    bands = sum(spec.bands)
    model, facts = build(spec, seed=3).eval(), card(bands, classes)
    compiled = (
        openvino().Core().compile_model(export(model, tmp_path, facts, fp16=False), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    )
    for n, y, x in ((1, 64, 64), (3, 96, 160)):  # neither is the size that was traced
        raw = np.random.default_rng(y).normal(-12, 4, (n, bands, y, x)).astype(np.float32)
        raw[:, 0, 5:20, 7:9] = np.nan
        raw[0, -1, 40:] = np.nan
        found = compiled(raw)[0]
        with torch.no_grad():
            expected = Graph(model, facts.mean, facts.std).eval()(torch.from_numpy(raw)).numpy()
        assert found.shape == (n, spec.outputs, y, x)
        assert np.abs(found - expected).max() < 1e-4
        assert found.min() >= 0
        assert found.max() <= 1
        if spec.outputs > 1:
            np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_what_lacks_a_band_counts_as_the_mean() -> None:
    model, facts = build(Spec(SMALL, "unet_plain", (2,))).eval(), card(2)
    raw = torch.full((1, 2, 64, 64), -30.0)
    raw[:, 1, :20] = torch.nan
    normal = (raw - Graph(model, facts.mean, facts.std).mean) / torch.tensor(facts.std).reshape(1, 2, 1, 1)
    normal[:, :, :20] = 0
    with torch.no_grad():
        torch.testing.assert_close(Graph(model, facts.mean, facts.std).eval()(raw), torch.sigmoid(model(normal)))


def test_saved_folder_is_whole(tmp_path: Path) -> None:
    model = build(Spec(SMALL, "unet_plain", (2, 2), fusion="siamese", widths=(8, 8, 16, 16, 32)), seed=4).train()
    facts = save(tmp_path / "small", model, card(4))
    assert model.training
    again, read = load(tmp_path / "small")
    assert read == facts
    assert set(read.sha256) == {WEIGHTS, "graph.xml", "graph.bin"}
    assert read.decoder == "unet_plain, siamese"
    x = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x), model.eval()(x))
        raw = x * torch.tensor(read.std).reshape(1, 4, 1, 1) + torch.tensor(read.mean).reshape(1, 4, 1, 1)
        compiled = openvino().Core().compile_model(tmp_path / "small/graph.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        half = np.abs(compiled(raw.numpy())[0] - torch.sigmoid(again(x)).numpy()).max()
    assert half < 5e-3
    assert (tmp_path / "small/graph.bin").stat().st_size < 0.6 * (tmp_path / "small" / WEIGHTS).stat().st_size
    (tmp_path / "small" / WEIGHTS).write_bytes(b"x")
    with pytest.raises(AftermapError) as caught:
        load(tmp_path / "small")
    assert caught.value.code == "model-changed"


def test_unknown_encoders_have_neighbours() -> None:
    with pytest.raises(UnknownNameError, match="mit_b"):
        encoders.build("mit_bo", 3)
