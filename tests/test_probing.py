"""The verb `probe` on a small data set: areas and sides, embeddings and fits kept and reused, tables, words, refusals."""

from __future__ import annotations

import csv
import json
import os
import pickle
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("pyarrow", reason="pyarrow is not installed")

from aftermap import asked, probing, recipe, tables
from aftermap.areas import Encoder, Place, embed
from aftermap.card import BUNDLED
from aftermap.cli import main
from aftermap.closedform import decompose
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.journal import sha256
from aftermap.looks import PATCH_PX, Learned, Patches, Statistics, read_by
from aftermap.page import Data
from aftermap.probe import ARMS, Plan, draws
from aftermap.workers import workers
from tests.conftest import shared
from tests.dataset_layouts import png, table

SIDE, SIZE = 64, 32


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OMBRIA as published, groups C and D in two of four tiles each: bright ground is flooded, by a share of its own."""
    root = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    rows = []
    for k in range(8):
        number, group = f"{k + 1:04d}", "CD"[k % 2]
        wet = rng.random((SIDE, SIDE)) < rng.random((2, 2)).repeat(SIZE, 0).repeat(SIZE, 1)
        level = np.where(wet, 60, 160) + rng.integers(-20, 20, (SIDE, SIDE))
        for when, pixels in (("before", level * 0 + 160), ("after", level), ("mask", wet * 255)):
            png(root / "OmbriaS1/train" / when.upper() / f"S1_{when}_{number}.png", pixels[None].astype(np.uint8))
        rows.append([number, "train", group])
    table(root / "groups_inferred.csv", [["tile", "original_split", "group_inferred"], *rows])
    return root


def place(tiles: Path, **changed: object) -> Place:
    return Place(tiles, Data("ombria", {"image": "s1"}), SIZE, **changed)  # type: ignore[arg-type]


BANDS = ("VV",)
PLAN = Plan(("flood",), (4, 6), 3, least_mixed=4)


def test_an_area_is_what_the_pattern_names_and_half_of_its_images_are_held(tiles: Path, tmp_path: Path) -> None:
    here = place(tiles)
    assert (list(here.areas), here.tasks) == (["C", "D"], ("flood",))
    found = embed(here, Statistics(BANDS), "C", tmp_path / "c.parquet")
    assert (found.left_out, len(found.area.features), int(found.area.held.sum())) == (0, 16, 8)
    columns, _ = tables.read(tmp_path / "c.parquet") or pytest.fail("nothing was written")
    held = {name for name, side in zip(columns["chip"].to_pylist(), columns["held"].to_pylist(), strict=True) if side}
    fitted = set(columns["chip"].to_pylist()) - held
    assert len(held) == len(fitted) == 2
    chip = here.dataset.read(columns["chip"][0].as_py())
    assert chip.truth is not None
    window = np.s_[:SIZE, :SIZE]
    assert found.area.shares[0, 0] == pytest.approx((chip.truth[window] == 1).mean())
    assert found.area.features[0, 0] == pytest.approx(chip.pixels[chip.bands.index("VV")][window].mean(), rel=1e-6)
    assert not here.alone("C")
    one = place(tiles, pattern="()")
    assert list(one.areas) == [""]
    with pytest.raises(UsageError) as refused:
        _ = place(tiles, pattern="(x)").areas
    assert refused.value.code == "no-area"


def test_what_is_kept_is_read_again_and_what_changed_is_made_anew(tiles: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    first = embed(place(tiles), Statistics(BANDS), "C", path)
    made = path.stat().st_mtime_ns
    again = embed(place(tiles), Statistics(BANDS), "C", path)
    assert path.stat().st_mtime_ns == made
    np.testing.assert_array_equal(first.area.features, again.area.features)
    other = embed(place(tiles, seed=1), Statistics(BANDS), "C", path)
    assert path.stat().st_mtime_ns != made
    assert not np.array_equal(other.area.held, again.area.held) or len(other.area.features) == len(again.area.features)
    image = tiles / "OmbriaS1/train/AFTER/S1_after_0001.png"
    os.utime(image, ns=(1, 1))
    before = path.stat().st_mtime_ns
    embed(place(tiles, seed=1), Statistics(BANDS), "C", path)
    assert path.stat().st_mtime_ns != before
    path.write_bytes(b"no table")
    assert len(embed(place(tiles), Statistics(BANDS), "C", path).area.features) == 16


def test_patches_are_the_components_of_ground_that_is_fitted_on(tiles: Path) -> None:
    made = Patches.of(place(tiles), BANDS)
    assert made.axes.shape == (32, PATCH_PX**2)
    np.testing.assert_allclose(made.axes @ made.axes.T, np.eye(32), atol=1e-4)
    flat = np.full((1, SIZE, SIZE), made.mean[0], np.float32)
    np.testing.assert_allclose(made(flat), 0, atol=1e-5)


def test_a_probe_writes_every_fit_and_tables_and_goes_on_where_it_stood(tiles: Path, tmp_path: Path) -> None:
    encoders: list[Encoder] = [Statistics(BANDS), Patches.of(place(tiles), BANDS)]
    facts = probing.probe(place(tiles), encoders, PLAN, tmp_path)
    assert facts["cells"] == 2 * 2 * 2 * len(ARMS) * 2 * 3  # encoders, train, test, budgets, repeats
    assert facts == json.loads((tmp_path / probing.SUMMARY).read_text(encoding="utf-8"))
    columns, _ = tables.read(tmp_path / "cells/statistics/C.parquet") or pytest.fail("nothing was written")
    area = {
        name: embed(place(tiles), encoders[0], name, tmp_path / f"embeddings/statistics/{name}.parquet").area for name in "CD"
    }
    repeat, drawn = [*draws(area["C"], PLAN)][1]
    fit = decompose(area["C"].features[drawn]).ridge(area["C"].shares[drawn])
    asked = fit(area["D"].features[area["D"].held])[:, 0]
    wanted = area["D"].shares[area["D"].held, 0]
    row = next(
        r for r in columns.to_pylist()
        if (r["test"], r["arm"], r["labels"], r["repeat"]) == ("D", ARMS[1], len(drawn), repeat)
    )  # fmt: skip
    assert row["rmse"] == pytest.approx(np.sqrt(((asked - wanted) ** 2).mean()))
    assert row["r"] == pytest.approx(np.corrcoef(asked, wanted)[0, 1])
    shares = facts["explained"][ARMS[1]]["shares"]
    assert sum(shares.values()) == pytest.approx(1)
    decided = [*csv.DictReader((tmp_path / "decisions.csv").read_text(encoding="utf-8").splitlines())]
    assert {(d["area"], d["best_foreign"]) for d in decided} == {("C", "D"), ("D", "C")}
    assert (tmp_path / "matrix.png").stat().st_size > 1000
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert probing.probe(place(tiles), encoders, PLAN, tmp_path) == facts
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == stamps


def test_every_fit_can_be_asked_for_in_sql(tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    out = tmp_path / "it's"
    with pytest.raises(InputRefusedError, match="no finished probe"):
        probing.query(out, "select 1")
    facts = probing.probe(place(tiles), [Statistics(BANDS), Patches.of(place(tiles), BANDS)], PLAN, out)
    assert probing.query(out, "select count(*) as fits from cells") == [{"fits": facts["cells"]}]
    asked = "select encoder, avg(r) as r from cells where arm = 'ridge' and train = 'C' and test = 'D' group by 1 order by 1"
    columns, _ = tables.read(out / "cells/statistics/C.parquet") or pytest.fail("nothing was written")
    own = [row["r"] for row in columns.to_pylist() if (row["arm"], row["test"]) == ("ridge", "D")]
    found = probing.query(out, asked)
    assert [row["encoder"] for row in found] == ["patches", "statistics"]
    assert found[1]["r"] == pytest.approx(np.mean(own))
    for sql, lacking, code in (("select nothing from cells", False, "query-invalid"), ("select 1", True, "extra-missing")):
        if lacking:
            monkeypatch.setitem(sys.modules, "duckdb", None)
        with pytest.raises(UsageError) as refused:
            probing.query(out, sql)
        assert refused.value.code == code


def test_two_processes_make_the_same_bytes_and_what_is_there_is_not_made_again(tiles: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="distributed is not installed")
    encoders: list[Encoder] = [Statistics(BANDS), Patches.of(place(tiles), BANDS)]
    facts = probing.probe(place(tiles), encoders, PLAN, tmp_path / "here")
    with workers(2) as crew:
        assert probing.probe(place(tiles), encoders, PLAN, tmp_path / "spread", workers=crew) == facts
        made = {path.relative_to(tmp_path / "spread"): path for path in (tmp_path / "spread").rglob("*.*")}
        assert len(made) == 2 * 2 * 2 + 4
        for name, path in made.items():
            assert path.read_bytes() == (tmp_path / "here" / name).read_bytes(), name
        lost = tmp_path / "spread/cells/statistics/D.parquet"
        lost.unlink()
        stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "spread").rglob("*.parquet")}
        assert probing.probe(place(tiles), encoders, PLAN, tmp_path / "spread", workers=crew) == facts
    assert lost.read_bytes() == (tmp_path / "here/cells/statistics/D.parquet").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_workers_that_write_elsewhere_are_refused(tiles: Path, tmp_path: Path) -> None:
    class Elsewhere:
        count = 1

        def __call__(self, act: object, units: Iterable[object], *, ordered: bool = True) -> Any:
            return ("" for _ in units)

    with pytest.raises(UsageError) as refused:
        probing.probe(place(tiles), [Statistics(BANDS)], PLAN, tmp_path, workers=Elsewhere())
    assert refused.value.code == "not-shared"


def test_where_no_area_has_enough_chips_nothing_is_claimed(tiles: Path, tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError) as refused:
        probing.probe(place(tiles), [Statistics(BANDS)], Plan(("flood",), (4,), 1, least_mixed=1000), tmp_path)
    assert refused.value.code == "no-cells"
    assert "16 mixed chips" in refused.value.what
    assert not (tmp_path / probing.SUMMARY).exists()


def test_the_command_says_what_scores_go_with(tiles: Path, tmp_path: Path) -> None:
    run = CliRunner()
    words = ["probe", "--on", str(tiles), "--kind", "ombria", "--set", "image=s1", "--size", str(SIZE), "--labels", "4,6",
             "--repeats", "2", "--least-mixed", "4", "--inputs", "after", "-o", str(tmp_path / "out"), "--quiet"]  # fmt: skip
    said = run.invoke(main, words)
    assert said.exit_code == 0, said.output
    assert "64 fits: 2 encoders, 1 tasks, 2 areas of ombria" in said.output
    assert "r goes with (ridge): " in said.output
    for option, value, code in (("--beside", "", "no-encoder"), ("--beside", "magic", "unknown-encoder"),
                                ("--labels", "2", "usage"), ("--inputs", "before.VH", "unknown-input")):  # fmt: skip
        refused = run.invoke(main, [*words, option, value, "--json"])
        assert refused.exit_code == 2, refused.output
        assert json.loads(refused.output.splitlines()[0])["error"] == code


@pytest.mark.parametrize("name", [name for name in recipe.listed() if asked.asks(name)])
def test_every_recipe_that_asks_parses_and_runs(name: str, tiles: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    path = recipe.listed()[name]
    assert all(recipe.header(path).values()), "Run, Expect and Differs stand at the head"
    assert asked.read(name) == asked.read(path)
    few = ["untrained=['vit_micro8']", "labels=[4, 6]", "repeats=2", "least_mixed=4", f"size={SIZE}"]
    words = ["run", name, "--on", str(tiles), "-o", str(tmp_path), "--quiet", "--json", "--set", "data.settings.image=s1"]
    words += [word for one in few for word in ("--set", f"probe.{one}")]
    said = CliRunner().invoke(main, words)
    assert said.exit_code == 0, said.output
    (facts,), (out,) = json.loads(said.output), tmp_path.glob(f"{name}-seed0-*")
    assert facts["encoders"] == ["untrained-vit_micro8", "statistics", "patches"]
    assert facts["page_sha256"] == asked.read(name, words[words.index("--set") + 1 :: 2]).sha256
    assert facts == json.loads((out / probing.SUMMARY).read_text(encoding="utf-8"))
    stamps = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.suffix in (".parquet", ".safetensors")}
    models = [*words, "--set", f"probe.models=['{out / 'encoders/untrained-vit_micro8'}']", "--set", "probe.untrained=[]"]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    (own,) = json.loads(CliRunner().invoke(main, models).output)
    assert own["encoders"] == ["untrained-vit_micro8", "statistics", "patches"]
    assert own["explained"] == facts["explained"]


def test_published_weights_are_asked(tiles: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from safetensors.torch import save_file

    from aftermap import bare, encoders
    from aftermap.model import load

    torch.manual_seed(4)
    network, file, page = encoders.build("resnet10t", 3), tmp_path / "model.safetensors", tmp_path / "model.toml"
    save_file(network.state_dict(), file)
    page.write_text(f'file = "{file.name}"\nsha256 = "{sha256(file)}"\nsource = "a test"\nlicence = "MIT"\n')
    found = bare.made(place(tiles), ("resnet10t",), {"resnet10t": str(page)}, BANDS, tmp_path, 0)
    given, (own, card), (first, bare_card) = network.state_dict(), *map(load, (found[n] for n in sorted(found)))
    assert (card.licence, bare_card.licence) == ("of the encoder's weights: MIT", "none")
    same = [torch.equal(one, given[key]) for key, one in own.encoder.state_dict().items() if one.ndim > 3]
    assert same.count(False) == 1, "the first layer takes one band"
    assert not all(torch.equal(one, given[key]) for key, one in first.encoder.state_dict().items())


def test_a_page_that_asks_trains_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="steps"):
        asked.read("linear-probe", ["steps={}"])
    for labels in ("[2]", "[]"):
        with pytest.raises(UsageError, match="at least 3"):
            asked.read("linear-probe", [f"probe.labels={labels}"])
    with pytest.raises(UnknownNameError, match="probe"):
        recipe.read("linear-probe")
    words = ["run", "linear-probe", "--on", str(tmp_path), "-o", str(tmp_path / "out")]
    for option in (["--target", f"x={tmp_path}"], ["--pretrain-on", str(tmp_path)]):
        refused = CliRunner().invoke(main, [*words, *option])
        assert refused.exit_code == 2, refused.output
        assert "trains nothing" in refused.output


def test_a_model_is_asked_for_its_embeddings_of_real_radar(tmp_path: Path) -> None:
    here = Place(shared("flood_sen1floods11"), Data("sen1floods11"), pattern="^([A-Z])", most=16)
    encoder = Learned.of("flood-s1", BUNDLED / "flood-s1", here)
    name = max(here.areas, key=lambda area: len(here.areas[area]))
    found = embed(here, encoder, name, tmp_path / "area.parquet").area
    columns, _ = tables.read(tmp_path / "area.parquet") or pytest.fail("nothing was written")
    chip, row, col = (columns[what][0].as_py() for what in ("chip", "row", "col"))
    pixels = encoder.images.levelled(encoder.network, here.dataset.read(chip))[:, row : row + 64, col : col + 64]
    np.testing.assert_allclose(found.features[0], encoder.network.embeddings(pixels[None])[0], rtol=1e-6)
    assert read_by([encoder], here.dataset.bands) == ("VV", "VH")
    sent = pickle.loads(pickle.dumps(encoder))
    assert sent.key == encoder.key
    np.testing.assert_array_equal(sent(pixels), encoder(pixels))
