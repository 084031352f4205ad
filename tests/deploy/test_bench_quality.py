"""What `rocket bench quality` says is what it measured: resampling, pairing, cuts and costs against plain oracles."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App
from contracts.errors import ContractError, RocketError
from contracts.segments import example_schema
from deploy.bench_options import BenchOptions
from deploy.benches import quality
from deploy.benches.quality_study.cost import costs_of
from deploy.benches.quality_study.judge import UserBootstrap, mean_and_error, paired
from deploy.benches.quality_study.learn import Learnt, known_truth, learn_linear, learn_nets
from deploy.benches.quality_study.rows import Rows, app_with
from deploy.benches.quality_study.study import Study
from deploy.benches.quality_study.variants import BOOSTER, LIGHT, LOGGED, ROCKET, chosen, variants_of
from model.metrics import auc
from model.tensors import to_batch

TRAIN = {"batch_rows": 32, "threads": 1, "device": "cpu"}


def drawn_rows(app: App, count: int = 400, seed: int = 0) -> Rows:
    """Random example rows of an app, a quarter of them the test."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name, dtype in example_schema(app.features).items():
        columns[name] = pl.Series(name, np.zeros(count)).cast(dtype) if dtype.is_numeric() else None
    label = (rng.random(count) < 0.4).astype(np.uint8)
    columns |= {
        "user_id": pl.Series([f"u{n}" for n in rng.integers(0, 20, count)]),
        "item_id": pl.Series(["i"] * count),
        "impression_id": pl.Series([str(n) for n in range(count)]),
        "label": pl.Series(label),
        "weight": pl.Series(np.ones(count, np.float32)),
        "kept_rate": pl.Series(np.ones(count, np.float32)),
    }
    for feature in app.features:
        if feature.output == "id":
            columns[feature.name] = pl.Series(rng.integers(0, feature.rows, count).astype(np.uint32))
        elif feature.output == "dense":
            columns[feature.name] = pl.Series(rng.normal(size=count).astype(np.float32))
        else:
            columns[feature.name] = pl.Series([[1, 2][: n % 3] for n in range(count)], dtype=pl.List(pl.UInt32()))
    return Rows(pl.DataFrame(columns), count // 2, 3 * count // 4)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.2, 0.5, 0.9])),
        min_size=2,
        max_size=40,
    )
)
def test_a_resampled_auc_is_that_of_rows_repeated_as_often_as_their_user(rows: list[tuple[str, int, float]]) -> None:
    user, label, p = (list(column) for column in zip(*rows, strict=True))
    bootstrap = UserBootstrap(pl.Series(user), label, draws=5)
    found = bootstrap.auc(p)
    for draw, value in enumerate(found):
        rng_draws = np.random.default_rng(1).integers(0, len(set(user)), (5, len(set(user))))
        names = [sorted(set(user))[n] for n in rng_draws[draw]]
        again = [n for name in names for n, owner in enumerate(user) if owner == name]
        expected = auc([label[n] for n in again], [p[n] for n in again])
        assert value == pytest.approx(expected) if expected is not None else np.isnan(value)


def test_differences_are_paired_by_seed_and_a_model_without_chance_stands_for_all() -> None:
    mine = [{"auc": 0.7}, {"auc": 0.8}, {"auc": 0.9}]
    theirs = [{"auc": 0.6}, {"auc": 0.7}, {"auc": 0.8}]
    assert paired(mine, theirs, "auc") == (pytest.approx(0.1), pytest.approx(0.0, abs=1e-12))
    assert paired(mine, theirs[:1], "auc") == (pytest.approx(0.2), pytest.approx(mean_and_error([0.1, 0.2, 0.3])[1]))


def test_the_table_says_how_much_of_the_gap_is_recovered(adsim: App) -> None:
    rows = drawn_rows(adsim)
    users, study = UserBootstrap(rows.user, rows.label, draws=20), Study()
    noise = np.random.default_rng(3).normal(size=rows.label.size)
    for name, share in ((LIGHT, 0.2), (ROCKET, 0.6), (BOOSTER, 1.5)):
        p = 1 / (1 + np.exp(-(noise + share * (2 * rows.label - 1))))
        study.add(name, 1, rows, users, Learnt({"light": p}, {"light": p}, {}, 1.0))
    light, rocket, booster = study.table()
    assert rocket["d_auc"] == pytest.approx(rocket["auc"] - light["auc"])
    assert rocket["gap_recovered"] == pytest.approx((rocket["auc"] - light["auc"]) / (booster["auc"] - light["auc"]))
    assert booster["gap_recovered"] == pytest.approx(1.0)
    assert 0 < rocket["d_auc_se_users"] < 0.2
    assert "d_auc" not in light


def test_what_comes_later_changes_no_prediction_before_it(adsim: App) -> None:
    app = app_with("adsim", {"train": TRAIN})
    rows = drawn_rows(app)
    late = rows.cut + 64
    flipped = rows.frame.with_columns(
        label=pl.when(pl.int_range(pl.len()) >= late).then(1 - pl.col("label")).otherwise("label").cast(pl.UInt8)
    )
    told = [learn_nets(app, replace(rows, frame=frame), to_batch(frame, app), 1) for frame in (rows.frame, flipped)]
    for net in ("light", "booster"):
        assert np.array_equal(told[0].frozen[net], told[1].frozen[net])
        assert np.array_equal(told[0].going_on[net][:96], told[1].going_on[net][:96])
        assert not np.array_equal(told[0].going_on[net][96:], told[1].going_on[net][96:])
    assert told[0].tuning["light"].size == rows.cut // 32 * 32 - rows.tuning
    assert learn_linear(app, rows).tuning["light"].size == told[0].tuning["light"].size


def test_with_tables_of_its_own_the_booster_is_the_booster_alone() -> None:
    hinted, left_alone = (
        app_with(
            "adsim", {"train": TRAIN, "model": {"sharing": "separate"}, "rocket": {"hint_weight": w, "gate": False}}
        )
        for w in (1.0, 0.0)
    )
    rows = drawn_rows(hinted)
    batch = to_batch(rows.frame, hinted)
    told = [learn_nets(app, rows, batch, 1) for app in (hinted, left_alone)]
    assert np.array_equal(told[0].frozen["booster"], told[1].frozen["booster"])
    assert not np.array_equal(told[0].frozen["light"], told[1].frozen["light"])


def test_multiplications_are_those_of_the_layers() -> None:
    app = app_with("adsim", {"train": TRAIN, "model": {"booster": {"kind": "mlp", "hidden": [16]}}})
    layout, width = app.layout, app.config.model.embedding_dim
    rows = drawn_rows(app, 520)
    costs = costs_of(app, to_batch(rows.frame, app))
    widths = (len(layout.light_ids) * width + len(layout.light_dense), *app.config.model.light.hidden, 1)
    assert costs["light"].multiplications == sum(a * b for a, b in pairwise(widths))
    flat = (len(layout.ids) + len(layout.sequences)) * width + len(layout.dense)
    assert costs["booster"].multiplications == flat * 16 + 16
    assert costs["light"].cpu_ms > 0


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_every_variant_is_an_app_that_can_be_made_and_says_what_it_is_over(name: str, request) -> None:
    variants = variants_of(request.getfixturevalue(name))
    named = [variant.name for variant in variants]
    assert len(set(named)) == len(named)
    assert named[:2] == [LIGHT, ROCKET]
    for variant in variants:
        assert variant.against in named
        app = app_with(name, variant.settings, variant.seen, variant.added)
        privileged = [feature for feature in app.features if feature.only == "booster"]
        if variant.name.startswith("equal features"):
            assert not privileged
        others = variant.name.startswith("rich light") or variant.name.endswith("without rows for pairs")
        assert app.layout.light_ids == app_with(name, {}).layout.light_ids or others
        if variant.name.startswith("rich light, "):
            assert {feature.output for feature in privileged} == {"ids"}
        if variant.name.startswith("counters fade"):
            counters = [feature for feature in privileged if feature.kind in {"count", "rate"}]
            assert len(privileged) == sum(f.only == "booster" for f in app_with(name, {}).features)
            assert len({feature.half_life_s for feature in counters}) == 1
            assert counters[0].half_life_s


def test_a_truth_that_is_not_known_is_refused(adsim: App) -> None:
    with pytest.raises(ContractError, match="not known"):
        known_truth(drawn_rows(adsim))


def test_the_rows_asked_for_come_with_what_they_are_compared_with(monkeypatch, adsim: App) -> None:
    rows = replace(drawn_rows(adsim), truth=np.full(100, 0.4))
    monkeypatch.setattr(quality, "adsim_rows", lambda *_: rows)
    found = quality.run(True, BenchOptions(seeds=2, device="cpu", variants=("rich light, rocket", "truth")))
    table = {row["model"]: row for row in found["models"]}
    assert list(table) == ["light alone", "rich light alone", "rich light, rocket", "truth"]
    assert {row["seeds"] for row in table.values()} == {2}
    assert table["rich light, rocket"]["against"] == "rich light alone"
    assert "gain" not in found


def test_a_logs_rows_have_what_any_variant_adds(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(quality, "kuairand_rows", lambda app, _: drawn_rows(app))
    wanted = "counters fade by half in 1 day"
    found = quality.run(True, BenchOptions(data=tmp_path, seeds=1, device="cpu", variants=(wanted,)))
    assert [row["model"] for row in found["models"]] == [LIGHT, wanted, f"{wanted}: booster"]


def test_a_row_that_the_study_does_not_have_is_named(kuairand: App) -> None:
    assert chosen(["LightGBM, all fields"], variants_of(kuairand), LOGGED) == {LIGHT, "LightGBM, all fields"}
    with pytest.raises(RocketError, match=r"has no 'equal feature' .*did you mean 'equal features'"):
        chosen(["equal feature"], variants_of(kuairand), LOGGED)
