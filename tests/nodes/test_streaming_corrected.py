"""Streaming features where labels come late are those of `wait`: each impression counts once, with its final label."""

from random import Random

import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.errors import ContractError, CorruptError
from contracts.features import STATEFUL
from contracts.segments import ORDER
from nodes.featurize import Featurizer
from nodes.featurize_chunks import example_columns
from nodes.join import Joiner
from nodes.log_features import KEPT, LogFeatures, streaming_columns
from nodes.sample import sample
from nodes.simulate import simulate
from nodes.source import read_events

ROWS = 2_000
RECENT = {"name": "lately", "kind": "recent", "columns": ["user_id"], "of": "ad", "length": 3, "side": "user"}


def app_of(mode: str) -> App:
    features = [f.model_dump(by_alias=True, exclude_none=True) for f in load_app("adsim").features]
    for feature in features:  # few keys, so that impressions see each other
        if feature["kind"] in STATEFUL:
            feature["columns"] = ["category"]
    rate = next(feature for feature in features if feature["kind"] == "rate")
    features.append(rate | {"name": "fading_rate", "half_life_s": 60})
    labels = {"mode": mode, "wait_s": 600.001, "observe_s": 45, "dedupe_s": 3600}
    recent = RECENT | {"only": "booster", "columns": ["segment"]}
    return load_app("adsim", {"features": [*features, recent], "labels": labels})


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    folder, app = tmp_path_factory.mktemp("day"), app_of("wait")
    simulate(folder, impressions=ROWS, days=0.1, seed=3)
    streams = (("impressions", app.impressions), ("clicks", app.clicks))
    # all times are even and the wait is odd, so no wait ends at the very moment of another impression
    return [
        pl.concat([chunk.frame for chunk in read_events(folder / f"{name}.ndjson", contract, app, name)]).with_columns(
            event_time_ms=pl.col("event_time_ms") // 2 * 2
        )
        for name, contract in streams
    ]


def log_of(mode: str, events, cuts: Random | None = None) -> pl.DataFrame:
    app = app_of(mode)
    joiner = Joiner(app)
    joiner.add(*events)
    kept = sample(joiner.settle(None).examples, app).kept
    columns = [pl.col(name).alias(KEPT + name) for name in streaming_columns(app)]
    rows = kept.select(*example_columns(app), *columns).hstack(Featurizer(app.features)(kept)).sort(ORDER)
    log, made, start = LogFeatures(app), [], 0
    while start < rows.height:
        size = rows.height if cuts is None else cuts.randint(1, 300)
        made += [batch.frame for batch in log.push(rows.slice(start, size))]
        start += size
        if cuts is not None and cuts.random() < 0.3:
            log = LogFeatures(app, log.next_row, log.state())
    return pl.concat(made)


@pytest.mark.parametrize("mode", ["fake_negative", "es_dfm"])
def test_every_row_of_an_impression_has_the_features_that_waiting_gives_it(mode, events):
    names = [feature.name for feature in app_of(mode).features if feature.kind in STATEFUL]
    waited = log_of("wait", events).select("impression_id", *names)
    assert all(waited[name].n_unique() > 50 for name in names)
    made = log_of(mode, events)
    assert made.filter(role=2).height > 10
    wanted = made.select("impression_id").join(waited, on="impression_id", how="left", maintain_order="left")
    assert made.select(names).equals(wanted.select(names))
    assert log_of(mode, events, Random(5)).equals(made), "whatever the cuts and restarts"


def test_a_correction_without_its_first_row_is_refused(events):
    app = app_of("fake_negative")
    joiner = Joiner(app)
    joiner.add(*events)
    kept = sample(joiner.settle(None).examples, app).kept.filter(role=2)
    columns = [pl.col(name).alias(KEPT + name) for name in streaming_columns(app)]
    rows = kept.select(*example_columns(app), *columns).hstack(Featurizer(app.features)(kept)).sort(ORDER)
    with pytest.raises(CorruptError, match="first row never came"):
        list(LogFeatures(app).push(rows))


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"sampling": {"negative_keep_rate": 0.5}}, "streaming feature 'user_rate'"),
        ({"sampling": {"negative_keep_rate": 0.5, "correction": "logit"}}, 'sampling.correction = "weight"'),
        ({"labels": {"mode": "dfm", "wait_s": 10, "observe_s": 10}}, "observe_s"),
    ],
)
def test_what_no_correction_undoes_is_refused_when_the_app_is_loaded(over, said):
    with pytest.raises(ContractError, match=said):
        load_app("adsim", {"labels": {"mode": "es_dfm"}} | over)
