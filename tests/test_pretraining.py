"""Objectives without labels: numbers worked by hand from the papers' equations, and what each must not do."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from aftermap import experiment, multicrop
from aftermap.card import Card
from aftermap.cli import main
from aftermap.errors import InputRefusedError, UsageError
from aftermap.known import Known
from aftermap.model import Model, Spec, build, load
from aftermap.multicrop import Bands, Light, boxes, cut, one_band, spread, spread_sums, within
from aftermap.objectives import clip, contrast, dino, mae
from aftermap.results import gather, lines
from aftermap.torchdoor import Tensor, nn, torch
from aftermap.train import Objective
from tests.dataset_layouts import simulated_landcover

BANDS = Bands(
    ("s1.VV", "s1.VH", "rgb.red", "rgb.green", "rgb.blue", "dem.elevation"),
    ("dB", "dB", *["digital_number"] * 3, "m"), (-8.0, -14.0, 90.0, 90.0, 90.0, 400.0), (3.0, 3.0, 20.0, 20.0, 20.0, 50.0),
)  # fmt: skip
RADAR = BANDS.of([0, 1])
SIDE = 32


def _batch(n: int = 8, bands: Bands = BANDS) -> dict[str, Tensor]:
    """Smooth images that differ: blobs at other places."""
    rng = torch.Generator().manual_seed(3)
    coarse = torch.randn(n, len(bands.names), 4, 4, generator=rng)
    pixels = nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    return {"pixels": pixels, "valid": torch.ones(n, SIDE, SIDE, dtype=torch.bool)}


def _micro(decoder: str, bands: int, **more: Any) -> Model:
    return build(Spec("vit_micro8", decoder, (bands,), gives="embedding", side=SIDE, **more))


def _mae() -> tuple[nn.Module, Objective, Bands]:
    return *mae.prepare({"": _micro("mean", 2)}, RADAR, mae.Settings(width=64, heads=2), 50), RADAR


def _dino() -> tuple[nn.Module, Objective, Bands]:
    settings = dino.Settings(prototypes=64, hidden=64, bottleneck=32, local=2, drop_path=0.0, momentum=1.0, centre_momentum=1.0)
    return *dino.prepare({"": _micro("token", 2)}, RADAR, settings, 50), RADAR


def _clip() -> tuple[nn.Module, Objective, Bands]:
    bands = BANDS.of(range(5))
    models = {"s1": _micro("projected", 2, outputs=32, fusion="each"), "rgb": _micro("projected", 3, outputs=32)}
    return *clip.prepare(models, bands, clip.Settings(width=32), 50), bands


def _contrast() -> tuple[nn.Module, Objective, Bands]:
    bands = BANDS.of([2, 3, 4, 5])
    model = build(Spec("resnet18_half", "mean", (3,), gives="embedding"))
    return *contrast.prepare({"": model}, bands, contrast.Settings(region_px=8, style=True), 50), bands


MADE = {"mae": _mae, "dino": _dino, "clip": _clip, "contrast": _contrast}
Made = Callable[[], tuple[nn.Module, Objective, Bands]]


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_loss_falls_and_is_measured_the_same_twice(made: Made) -> None:
    network, objective, bands = made()
    batch = _batch(bands=bands)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-3)

    def measured() -> float:
        network.eval()
        with torch.no_grad():
            one, two = (objective(network, batch)["loss"].item() for _ in range(2))
        assert one == two
        network.train()
        return one

    first = measured()
    for step in range(8):
        torch.manual_seed(step)
        optimiser.zero_grad()
        objective(network, batch)["loss"].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert measured() < first
    with torch.no_grad():
        assert 0 <= objective.scores(objective.sums(network.eval(), batch).numpy())["spread"] <= 1


class _Told(nn.Module):
    """Tells nothing, and hides the first patch."""

    patch = 8

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.zeros(len(pixels), 16, dtype=torch.bool)
        hidden[:, 0] = True
        return torch.zeros(len(pixels), 16, 2 * 64), hidden


def test_masked_loss_is_of_hidden_and_valid_pixels_alone() -> None:
    """methods.md 17.9."""
    objective, batch = mae.MaskedPatches(RADAR, mae.Settings(crop=1.0)), _batch(2, RADAR)
    network = _Told().eval()
    loss = objective(network, batch)["loss"]
    torch.testing.assert_close(loss, (batch["pixels"][:, :, :8, :8] ** 2).mean())
    seen = batch | {"pixels": batch["pixels"].clone()}
    seen["pixels"][:, :, 8:] += 7
    torch.testing.assert_close(objective(network, seen)["loss"], loss)
    seen["pixels"][:, :, :4] = 50
    seen["valid"] = batch["valid"].clone()
    seen["valid"][:, :4] = False
    torch.testing.assert_close(objective(network, seen)["loss"], (batch["pixels"][:, :, 4:8, :8] ** 2).mean())


def test_a_quarter_of_the_tokens_is_kept_the_class_token_among_them() -> None:
    """methods.md D.2: 196 of 785 at 448 px, patches of 16, three quarters masked."""
    model = build(Spec("vit_t16", "mean", (1,), gives="embedding", side=448))
    network = mae.Masked(model, mae.Settings(width=16, heads=1))
    with torch.no_grad():
        told, hidden = network(torch.zeros(1, 1, 448, 448))
    assert told.shape == (1, 784, 256)
    assert int(hidden.sum()) == 589


def test_patches_are_band_after_band() -> None:
    pixels = torch.arange(2 * 16.0).reshape(1, 2, 4, 4)
    assert mae.patches(pixels, 2)[0, 1].tolist() == [2, 3, 6, 7, 18, 19, 22, 23]


def test_teacher_and_centre_follow_by_hand() -> None:
    """methods.md 17.10; Caron et al. 2021, equations 3 and 4."""
    settings = dino.Settings(prototypes=8, hidden=16, bottleneck=8, local=0, drop_path=0.0, momentum=0.9)
    network, objective = dino.prepare({"": _micro("token", 2)}, RADAR, settings, 100)
    taught = torch.randn(4, 8)
    network.recentre(taught)
    torch.testing.assert_close(network.centre, 0.1 * taught.mean(dim=0, keepdim=True))
    old = network.teacher_head.prototypes.clone()
    with torch.no_grad():
        network.head.prototypes.add_(1.0)
    network.step.fill_(50)
    network.follow(100)
    momentum = 1 - 0.1 * (math.cos(math.pi / 2) + 1) / 2
    torch.testing.assert_close(network.teacher_head.prototypes, momentum * old + (1 - momentum) * (old + 1))
    objective(network, _batch(4, RADAR))["loss"].backward()  # type: ignore[no-untyped-call]
    teacher = [*network.model.parameters(), *network.teacher_head.parameters()]
    assert all(p.grad is None for p in teacher)
    assert network.head.prototypes.grad is not None


def test_prototypes_do_not_learn_at_first() -> None:
    settings = dino.Settings(prototypes=8, hidden=16, bottleneck=8, local=0, frozen=1)
    network, objective = dino.prepare({"": _micro("token", 2)}, RADAR, settings, 100)
    for expected in (False, True):
        network.zero_grad()
        objective(network, _batch(4, RADAR))["loss"].backward()  # type: ignore[no-untyped-call]
        assert (network.head.prototypes.grad is not None) == expected


def test_pairs_of_views_are_all_but_a_view_with_itself() -> None:
    sharp = (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    said = [torch.log(torch.tensor([[p, 1 - p]])) for p in (0.5, 0.25, 0.125)]
    by_hand = -(math.log(0.25) + math.log(0.125) + math.log(0.5) + math.log(0.875)) / 4
    assert dino.cross_views(sharp, said, 1.0).item() == pytest.approx(by_hand)


def test_across_modalities_nothing_known_is_ln_n() -> None:
    """methods.md 17.11."""
    rng = torch.Generator().manual_seed(0)
    n = 64
    a, b = (nn.functional.normalize(torch.randn(n, 512, generator=rng), dim=1) for _ in range(2))
    assert clip.symmetric(a, b, torch.tensor(1 / 0.07)).item() == pytest.approx(math.log(n), rel=0.1)
    eye = torch.eye(2)
    assert clip.symmetric(eye, eye, torch.tensor(2.0)).item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_a_modality_that_lacks_leaves_the_others_alone() -> None:
    network, objective, bands = _clip()
    network.eval()
    batch = _batch(6, bands)
    both = objective(network, {k: v[:4] for k, v in batch.items()})["loss"]
    batch["pixels"][4:, :2] = 0
    torch.testing.assert_close(objective(network, batch)["loss"], both)
    batch["pixels"][:, :2] = 0
    assert objective(network, batch)["loss"].item() == 0


def test_contrast_of_views_by_hand() -> None:
    """Chen et al. 2020, equation 1: two chips, orthogonal, views alike."""
    eye, t = torch.eye(2), 0.5
    assert contrast.nt_xent(eye, eye, t).item() == pytest.approx(-math.log(math.exp(1 / t) / (math.exp(1 / t) + 2)))


def test_one_box_cuts_image_and_elevation_alike() -> None:
    """methods.md 17.20: grids of 96 and of 33 px over the same ground."""
    torch.manual_seed(0)

    def ground(side: int) -> Tensor:
        at = (torch.arange(side) + 0.5) / side
        return (at[:, None] + 10 * at[None]).expand(5, 1, side, side)

    box = boxes(5, (0.3, 0.8))
    image, heights = cut(ground(96), box, 33), cut(ground(33), box, 33)
    inner = np.s_[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(image[inner], heights[inner], atol=0.02, rtol=0)


def test_places_are_found_again_in_the_view() -> None:
    torch.manual_seed(0)
    box, places = boxes(3, (0.3, 0.8), tilt=10), torch.rand(3, 4, 2) - 0.5
    there = within(box, places)
    back = (box[:, :, :2] @ there.transpose(1, 2) + box[:, :, 2:]).transpose(1, 2)
    torch.testing.assert_close(back, places)


def test_matched_places_show_the_same_ground() -> None:
    """Of an image whose pixels are their own place, both views have the same at matched places."""
    torch.manual_seed(0)
    at = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    ground = torch.stack([at[None].expand(SIDE, SIDE), at[:, None].expand(SIDE, SIDE)])[None].expand(4, 2, SIDE, SIDE)
    views = contrast.Views(RADAR, contrast.Settings(region_px=4))
    box = [boxes(4, (0.7, 1)) for _ in range(2)]
    seen = [
        nn.functional.grid_sample(cut(ground, one, SIDE), middle[:, :, None], align_corners=False)
        for one, middle in zip(box, views._matched(box, SIDE), strict=True)
    ]
    torch.testing.assert_close(*seen, atol=0.02, rtol=0)


def test_the_whole_image_is_a_box_but_for_flips() -> None:
    image = _batch(2)["pixels"]
    torch.testing.assert_close(cut(image, boxes(2, (1.0, 1.0), flip=0.0), SIDE), image)


def test_light_keeps_what_was_not_seen_and_elevation() -> None:
    torch.manual_seed(0)
    pixels = _batch(4)["pixels"]
    pixels[:, :, :5] = 0
    found = Light(1.0, jitter=1.0, blur=1.0)(pixels, BANDS)
    assert (found[:, :, :5] == 0).all()
    plain = Light(1.0, jitter=1.0)(pixels, BANDS)
    torch.testing.assert_close(plain[:, 5], pixels[:, 5])
    assert not torch.equal(plain[:, 0], pixels[:, 0])


@pytest.mark.parametrize("unit", ["dB", "power", "amplitude"])
def test_speckle_keeps_the_mean_power(unit: str) -> None:
    torch.manual_seed(0)
    bands = Bands(("VV",), (unit,), (0.0,), (1.0,))
    found = Light(1.0, looks=(8.0,), gain_db=0)(torch.ones(64, 1, 32, 32), bands)
    power = {"dB": 10 ** (found / 10), "power": found, "amplitude": found**2}[unit]
    assert power.mean().item() == pytest.approx(10**0.1 if unit == "dB" else 1, rel=0.01)
    assert power.var().item() / power.mean().item() ** 2 == pytest.approx(1 / 8, rel=0.05)


def test_bands_change_places_within_their_group() -> None:
    pixels = torch.arange(4.0)[None, :, None, None].expand(50, 4, 2, 2) + 1
    torch.manual_seed(0)
    found = Light(0, gain_db=0, jitter=0, grey=0, permute=0.5, groups=((0, 1), (2, 3)))(pixels, BANDS.of([0, 1, 0, 1]))
    order = found[:, :, 0, 0]
    assert (order[:, :2].sort(dim=1).values == torch.tensor([1.0, 2.0])).all()
    swapped = (order[:, 0] == 2).float().mean().item()
    assert 0.1 < swapped < 0.4


def test_one_band_is_never_constant() -> None:
    pixels = torch.randn(100, 3, 4, 4)
    pixels[:, 1] = 2.0
    torch.manual_seed(0)
    found = one_band(pixels)
    assert not (found.flatten(1) == 2.0).all(dim=1).any()
    assert {int((found[k, 0] == pixels[k, 2]).all()) for k in range(100)} == {0, 1}


def test_spread_is_0_of_one_embedding_and_1_of_opposites() -> None:
    same, opposite = torch.ones(4, 3), torch.cat([torch.ones(2, 3), -torch.ones(2, 3)])
    assert spread(spread_sums(same).numpy()) == pytest.approx(0, abs=1e-6)
    halves = spread_sums(opposite[:1]) + spread_sums(opposite[1:])
    assert spread(halves.numpy()) == pytest.approx(1)


def test_views_of_a_seed_are_the_same_again() -> None:
    for _ in range(2):
        torch.manual_seed(5)
        drawn = [multicrop.boxes(3, (0.2, 0.9), tilt=10) for _ in range(2)]
    torch.manual_seed(5)
    torch.testing.assert_close(boxes(3, (0.2, 0.9), tilt=10), drawn[0])


SMALL = ["data={'kind': 'simulated-landcover', 'settings': {'size': 32}}"]
"""The chips of the fixture."""


def test_a_network_starts_from_what_was_learned_without_labels(tmp_path: Path) -> None:
    """Two models of a stack, then a regression on one of its modalities that starts from the encoder."""
    data = simulated_landcover(tmp_path / "data").folder
    few = ["steps.0.train.epochs=0", "steps.0.train.steps=2", "steps.0.train.batch=4", "chips.size=32", *SMALL]
    (row,) = experiment.run("clip-small", data, tmp_path / "first", overrides=[*few, "inputs=['s1', 'rgb']"])
    assert row["scores"] is None
    assert row["skipped"] == {}
    (radar,) = (tmp_path / "first").glob("*/model/s1")
    card = Card.read(radar)
    assert (card.gives, card.chip_px, card.reads) == ("embedding", 32, "s1 VV, VH in dB")
    told = Known.of(radar, card)
    assert told is not None
    assert told.train.shape[1] == 128
    own = ["inputs=['s1']", f"model.weights={radar}", "model.fusion=each", *few[:-1]]
    page = _page(tmp_path / "own.toml")
    (second,) = experiment.run(page, data, tmp_path / "second", overrides=[*own, "steps.0.train.lr=0.0"])
    (folder,) = (tmp_path / "second").glob("*/model")
    begun, given = load(folder)[0].encoder.state_dict(), load(radar)[0].encoder.state_dict()
    assert all(torch.equal(begun[k], v) for k, v in given.items())
    assert "which learned from simulated-landcover" in Card.read(folder).training_data
    assert second["weights_sha256"] != row["weights_sha256"]
    with pytest.raises(InputRefusedError, match="fused single"):
        experiment.run(page, data, tmp_path / "third", overrides=[*own, "model.fusion=single"])
    with pytest.raises(UsageError, match=r"model\.weights is 'nowhere'"):
        experiment.run(page, data, tmp_path / "third", overrides=["model.weights=nowhere"])


def test_rows_without_labels_stand_in_no_table(tmp_path: Path) -> None:
    data = simulated_landcover(tmp_path / "data").folder
    few = ["steps.0.train.epochs=0", "steps.0.train.steps=2", "steps.0.train.batch=4", "chips.size=32", "inputs=['s1']", *SMALL]
    said = CliRunner().invoke(
        main, ["run", "mae-small", "--on", str(data), "-o", str(tmp_path / "out"), "--quiet", *(f"--set={o}" for o in few)]
    )
    assert said.exit_code == 0, said.output
    assert "spread of embeddings" in said.output
    assert lines(gather(tmp_path / "out")) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("steps.0.train.losses={'dice': 1}", "losses are of objectives with labels"),
        ("steps.0.train.settings={'msk': 1}", "did you mean train.settings.mask"),
        ("classes=['a', 'b']", "without classes"),
        ("steps.0.train.decay=some", "unknown-decay"),
    ],
)
def test_a_recipe_without_labels_is_strict(wrong: str, says: str, tmp_path: Path) -> None:
    data = simulated_landcover(tmp_path / "data").folder
    with pytest.raises(UsageError) as refused:
        experiment.run("mae-small", data, tmp_path / "out", overrides=["inputs=['s1']", "chips.size=32", *SMALL, wrong])
    assert says in f"{refused.value} {refused.value.code}"


def _page(path: Path) -> Path:
    path.write_text(
        """hazard = "none"
inputs = ["s1"]
data = { kind = "simulated-landcover", settings = { truth = "vegetation", size = 32 } }
model = { encoder = "vit_micro8", decoder = "pool" }
[[steps]]
train = { objective = "regress", losses = { mse = 1 }, epochs = 1, batch = 4 }
"""
    )
    return path
