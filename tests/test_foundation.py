"""Foundation models: facts against the libraries that keep them, and each from real chips through a low-rank step to a map."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from safetensors.torch import save_file

import aftermap as am
from aftermap import encoders, experiment, foundation, lowrank
from aftermap.borrowed import COMPUTED, Borrowed
from aftermap.card import Card
from aftermap.errors import AftermapError
from aftermap.foundation import FOUNDATIONS, RADAR, S2, reading
from aftermap.journal import sha256
from aftermap.model import Model, Spec, build
from aftermap.normalise import Normaliser
from aftermap.satmae import GROUPS, GroupedVit, places
from aftermap.scorer import LayerBands
from aftermap.tiles import Window
from tests.conftest import shared

SIDE = 64
SMALLEST = {
    "prithvi_tiny", "prithvi1_100", "clay1", "terramind_tiny", "dofa_small", "croma_base", "scalemae_large", "satmae_base",
    "dinov3_small",
}  # fmt: skip
"""One of each family, and both kinds of Prithvi."""


def _reads(name: str, which: int = 0) -> tuple[str, ...]:
    image = FOUNDATIONS[name].images[which]
    return tuple(f"{band} {image.unit}" for band in image.bands)


def _spec(name: str, which: int = 0, decoder: str = "deconv", **more: Any) -> Spec:
    reads = _reads(name, which)
    return Spec(name, decoder, (len(reads),), widths=(16,), side=SIDE, reads=reads, **more)


@pytest.mark.parametrize("name", FOUNDATIONS)
def test_facts_are_whole(name: str) -> None:
    model = FOUNDATIONS[name]
    assert not model.side % model.patch
    for image in model.images:
        assert len(image.mean) == len(image.std) == (len(image.bands) if image.mean else 0)
        assert len(image.waves_um) in (0, len(image.bands))
        assert not model.any_bands or image.waves_um
        found = reading(name, image.bands, [image.unit] * len(image.bands))
        assert found.statistics == ((image.mean, image.std) if image.mean else None)
        if image.unit == "reflectance" and image.mean:
            assert all(0.01 < m < 0.5 for m in image.mean)


def test_bands_have_many_names() -> None:
    common = reading("prithvi2_300", ("blue", "green", "red", "B8A", "swir1", "swir2"), ["reflectance"] * 6)
    assert common == reading("prithvi2_300", ("B2", "B3", "B4", "B8A", "B11", "B12"), ["reflectance"] * 6)
    assert common.statistics is not None
    assert common.statistics[0][0] == pytest.approx(0.1087)


def test_some_models_take_any_band_and_others_several_images() -> None:
    mixed = reading("clay1", ("VH", "red", "VV"), ("dB", "reflectance", "dB"))
    assert mixed.waves_um == (4.0, 0.665, 3.5)
    assert mixed.statistics == ((-18.673, 0.1552, -12.113), (8.017, 0.1888, 8.314))
    both = reading("croma_base", (*RADAR, *foundation.L2A), ("dB",) * 2 + ("reflectance",) * 12)
    assert [one.kind for one in both.images] == ["sar", "optical"]
    terrain = reading("terramind_tiny", ("VV", "VH", "dem.elevation"), ("dB", "dB", "metres"))
    assert [one.kind for one in terrain.images] == ["S1GRD", "DEM"]


@pytest.mark.parametrize(
    ("name", "bands", "unit"),
    [
        ("prithvi2_300", ("B03", "B02", "B04", "B8A", "B11", "B12"), "reflectance"),  # another order
        ("prithvi2_300", ("B02", "B03", "B04", "B08", "B11", "B12"), "reflectance"),  # the wide near infrared
        ("terramind_tiny", RADAR, "power"),
        ("terramind_tiny", (*RADAR, *RADAR), "dB"),  # two dates at once
        ("croma_base", ("VV",), "dB"),
        ("clay1", ("B01",), "reflectance"),
    ],
)
def test_other_bands_are_refused(name: str, bands: tuple[str, ...], unit: str) -> None:
    with pytest.raises(AftermapError, match=f"{name} was trained on") as caught:
        reading(name, bands, [unit] * len(bands))
    assert caught.value.code == "foundation-bands"


def test_statistics_for_one_date_and_for_two() -> None:
    inputs = (LayerBands("after", ("VV", "VH"), "dB"), LayerBands("before", ("VV", "VH"), "dB"))
    of = Normaliser(("VV", "VH", "before.VV", "before.VH"), ("dB",) * 4, (0.0,) * 4, (1.0,) * 4)
    own = foundation.normaliser("terramind_tiny", of, inputs, each_date=True)
    assert own == replace(of, mean=(-12.599, -20.293) * 2, std=(5.195, 5.890) * 2)
    with pytest.raises(AftermapError, match="normalise") as caught:
        foundation.normaliser("dofa_small", of, inputs, each_date=True)
    assert caught.value.code == "foundation-statistics"


def test_squares_are_seen_one_by_one() -> None:
    encoder = encoders.build("dinov3_small", 3, side=SIDE, reads=_reads("dinov3_small")).eval()
    wide = torch.randn(2, 3, 2 * SIDE, 3 * SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, token, whole = encoder(wide)
        alone = encoder(wide[:, :, SIDE:, SIDE : 2 * SIDE])[2]
    assert whole.shape == (2, 384, 8, 12)
    assert torch.allclose(whole[:, :, 4:, 4:8], alone, atol=1e-4)
    assert torch.allclose(token[..., 0, 0], whole.mean(dim=(2, 3)), atol=1e-5)


def test_what_it_sees_is_cut_as_eight_bits_were(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = encoders.build("satmae_base", 10, side=SIDE, reads=_reads("satmae_base"))
    seen: list[torch.Tensor] = []

    def told(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        return torch.zeros(1, 64, 768)

    monkeypatch.setattr(encoder.inner, "forward", told)
    encoder(torch.tensor([-3.0, -2, 0, 1, 2, 3, 0, 0, 0, 0]).reshape(1, 10, 1, 1).expand(1, 10, SIDE, SIDE))
    assert seen[0][0, :6, 0, 0].tolist() == [0, 0, 0.5, 0.75, 1, 1]


def test_satmae_is_the_published_network() -> None:
    network = GroupedVit("base", 96, 8)
    layers = 12 * (12 * 768**2 + 13 * 768)
    assert sum(p.numel() for p in network.parameters()) == layers + 10 * 64 * 768 + 3 * 768 + 2 * 768 + 768
    assert {"patch_embed.2.proj.weight", "blocks.11.mlp.fc2.bias", "channel_embed", "pos_embed", "cls_token"} <= set(
        network.state_dict()
    )
    assert network.pos_embed.shape == (1, 145, 512)
    assert sorted(k for group in GROUPS for k in group) == list(range(10))


def test_places_are_sines_and_cosines_of_column_and_row() -> None:
    found = places(8, 2)  # two frequencies, 1 and 1 / 100, for each
    assert found.shape == (4, 8)
    one = np.array([np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)])
    nil = np.array([0, 0, 1, 1])
    assert found[1].numpy() == pytest.approx(np.concatenate([one, nil]))  # row 0, column 1
    assert found[2].numpy() == pytest.approx(np.concatenate([nil, one]))


def _wants(library: str) -> None:
    if library and find_spec(library) is None:
        pytest.skip(f"{library} is not installed (pip install aftermap[foundation])")


def test_a_library_that_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aftermap.borrowed.find_spec", lambda _: None)
    with pytest.raises(AftermapError, match=r"aftermap\[foundation\]") as caught:
        build(_spec("prithvi_tiny"))
    assert caught.value.code == "extra-missing"


def test_statistics_are_those_of_the_library() -> None:
    _wants("terratorch")
    vit = import_module("terratorch.models.backbones.prithvi_vit")
    kinds = import_module("terratorch.models.backbones.terramind.model.terramind_register")
    for name, mean, std in (("prithvi1_100", vit.PRITHVI_V1_MEAN, vit.PRITHVI_V1_STD),
                            ("prithvi2_300", vit.PRITHVI_V2_MEAN, vit.PRITHVI_V2_STD)):  # fmt: skip
        own = FOUNDATIONS[name].images[0]
        assert np.allclose(np.array([own.mean, own.std]) * 1e4, [mean, std])
    keys = {"S1GRD": "untok_sen1grd@224", "S2L1C": "untok_sen2l1c@224", "S2L2A": "untok_sen2l2a@224", "DEM": "untok_dem@224"}
    for own in FOUNDATIONS["terramind_tiny"].images:
        times, key = 1e4 if own.unit == "reflectance" else 1, keys[own.kind]
        assert np.allclose(np.array(own.mean) * times, kinds.v1_pretraining_mean[key])
        assert np.allclose(np.array(own.std) * times, kinds.v1_pretraining_std[key])
        assert len(kinds.PRETRAINED_BANDS[key]) == len(own.bands)


def _published(encoder: Borrowed, name: str) -> dict[str, torch.Tensor]:
    """Tensors of the encoder as its authors name them; without those that follow from the side, as if it were another."""
    within = {"prithvi1_100": "", "prithvi_tiny": "encoder.", "clay1": "model.encoder."}.get(name, "")
    own = {k.removeprefix("inner.").removeprefix("model."): v for k, v in encoder.state_dict().items()}
    return {f"{within}{k}": v.clone() for k, v in own.items() if not k.endswith(COMPUTED)}


@pytest.mark.parametrize("name", ["satmae_base", "dinov3_small"])
def test_weights_with_their_facts(name: str, tmp_path: Path) -> None:
    _weights(name, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(SMALLEST - {"satmae_base", "dinov3_small"}))
def test_weights_of_other_libraries(name: str, tmp_path: Path) -> None:
    _wants(FOUNDATIONS[name].library)
    _weights(name, tmp_path)


def _weights(name: str, folder: Path) -> None:
    torch.manual_seed(3)
    reads = _reads(name)
    first: Any = encoders.build(name, len(reads), side=SIDE, reads=reads)
    file = folder / "model.safetensors"
    save_file(_published(first, name), file)
    page = folder / "model.toml"
    page.write_text(f'file = "{file.name}"\nsha256 = "{sha256(file)}"\nsource = "a test"\nlicence = "Apache-2.0"\n')
    other = encoders.build(name, len(reads), encoders.described(page), side=SIDE, reads=reads)
    for (key, a), b in zip(first.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b) or "model.pos_embed" in key, key
    page.write_text(f'file = "{file.name}"\nsource = "a test"\nlicence = "Apache-2.0"\n')
    with pytest.raises(AftermapError, match="sha256"):
        encoders.described(page)


def _step(model: Model, bands: int) -> None:
    """One low-rank step: nothing changes before it, no gradient reaches own weights, and merging changes nothing."""
    pixels = torch.randn(2, bands, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    model.eval()
    with torch.no_grad():
        before = model(pixels)
        facts = lowrank.put(model, rank=4, layers="attention")
        assert torch.allclose(model(pixels), before, atol=1e-6)
    assert facts.layers >= 4
    assert facts.effective_rank == 4
    own = {n: p for n, p in model.encoder.named_parameters() if "lora_" not in n}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()(pixels).square().mean().backward()
    assert all(p.grad is None for p in own.values())
    optimiser.step()
    model.eval()
    with torch.no_grad():
        after = model(pixels)
        assert not torch.allclose(after, before, atol=1e-4)
        assert torch.allclose(lowrank.merged(model)(pixels), after, atol=1e-5)


@pytest.mark.parametrize("name", ["dinov3_small"])
def test_a_low_rank_step(name: str) -> None:
    _step(build(_spec(name)), len(_reads(name)))


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(SMALLEST - {"dinov3_small"}))
def test_a_low_rank_step_of_other_libraries(name: str) -> None:
    _wants(FOUNDATIONS[name].library)
    _step(build(_spec(name)), len(_reads(name)))


PAGE = """
hazard    = "flood"
inputs    = [{inputs}]
data      = {{ kind = "sen1floods11", settings = {{ image = "{image}" }} }}
chips     = {{ size = 64 }}
normalise = "{normalise}"
model     = {{ encoder = "{name}", decoder = "deconv", widths = [16] }}
surgery   = ["lora"]
lora      = {{ rank = 4, layers = "attention" }}
[[steps]]
train = {{ losses = {{ ce = 1, dice = 1 }}, steps = 1, batch = 2, precision = "fp32" }}
"""
REAL = [
    (name, image)
    for name in sorted(SMALLEST)
    for image, unit in (("s1", "dB"), ("s2", "reflectance"))
    if any(one.unit == unit for one in FOUNDATIONS[name].images)
]


def _quarters(folder: Path) -> Path:
    """The one chip with Sentinel-2, in its four quarters as chips of 256 px, in the official layout."""
    real = shared("flood_sen1floods11")
    for layer in ("S1Hand", "S2Hand", "LabelHand"):
        (folder / layer).mkdir(parents=True)
        with rasterio.open(real / layer / f"Spain_7370579_{layer}.tif") as chip:
            for number in range(4):
                corner = (256 * (number % 2), 256 * (number // 2))
                window = rasterio.windows.Window(*corner, 256, 256)
                facts = chip.profile | {"width": 256, "height": 256, "transform": chip.transform @ Affine.translation(*corner)}
                with rasterio.open(folder / layer / f"Spain_{number}_{layer}.tif", "w", **facts) as out:
                    out.write(chip.read(window=window))
    return folder


@pytest.mark.full
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")  # of the libraries
@pytest.mark.parametrize(("name", "image"), REAL)
def test_from_real_chips_to_a_map(name: str, image: str, tmp_path: Path) -> None:
    _wants(FOUNDATIONS[name].library)
    data = _quarters(tmp_path / "data")
    unit = "dB" if image == "s1" else "reflectance"
    kind = next(one for one in FOUNDATIONS[name].images if one.unit == unit)
    names = [b.replace("B0", "B") for b in kind.bands]
    normalise = "as_trained" if kind.mean else "all"
    inputs = ", ".join(f'"after.{b}"' for b in names if b != "B8A" or image == "s2")
    page = tmp_path / "page.toml"
    page.write_text(PAGE.format(name=name, image=image, normalise=normalise, inputs=inputs))
    (row,) = experiment.run(page, data, tmp_path / "runs")
    assert 0 < row["learning"]["trainable"] < row["learning"]["parameters"]
    model = next((tmp_path / "runs").glob("*/model"))
    card = Card.read(model)
    assert "with first weights" in card.training_data
    assert {FOUNDATIONS[name].library} - {""} <= set(card.versions)
    if kind.mean:
        assert card.mean == pytest.approx(kind.mean)
    after = data / f"{image.upper()}Hand" / f"Spain_0_{image.upper()}Hand.tif"
    options = am.Options(
        model=str(model), baseline=False, keep_scores=True, precision="f32", memory_mb=4000, only=("likelihood", "extent")
    )
    own = am.Declared(bands=RADAR, unit="dB") if image == "s1" else am.Declared(sensor="sentinel-2-l1c", bands=S2)
    found = am.map(after, out=tmp_path / "map", hazard="flood", options=options, declared={"after": own})
    score = found.score(Window(0, 0, 256, 256))
    assert np.isfinite(score).mean() > 0.9
    assert np.nanstd(score) > 0
