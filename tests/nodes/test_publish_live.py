"""A publisher that never ends: it outlives its store, keeps its numbers, and knows when it is fenced out."""

import uuid
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
import redis

from contracts.app import App, load_app
from contracts.errors import FencedError, StoreError
from contracts.names import current_key
from contracts.weights import WeightManifest
from nodes.fake_traffic import examples, light_arrays
from nodes.fakes import ManualClock, MemoryWeights
from nodes.publish import LiveTerms, Publisher
from nodes.redis_weights import RedisWeights

ROWS = 100
#: Random labels and weights look wrong in every way; here that is not the question.
LAX = {
    "max_logloss_increase": 99.0, "calibration": [0.0, 1e9], "max_live_ne": 99.0, "max_score_shift": 99.0,
    "max_score_psi": 99.0, "min_rank_correlation": -1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def app() -> App:
    lax = LAX | {"window_rows": ROWS}
    return load_app("adsim", {"publish": {"gate": lax}})


@pytest.fixture(scope="module")
def rows(app: App) -> pl.DataFrame:
    return examples(app, ROWS)


@pytest.fixture
def store(valkey_url: str) -> Iterator[RedisWeights]:
    made = RedisWeights(valkey_url, f"live-{uuid.uuid4().hex[:8]}")
    yield made
    made.close()


class Told:
    """What a publisher told, and whether it is still ours."""

    def __init__(self) -> None:
        self.versions: list[WeightManifest] = []
        self.fenced = False

    def still_ours(self) -> None:
        if self.fenced:
            raise FencedError("another trainer has claimed these checkpoints")

    def terms(self, **more: int) -> LiveTerms:
        return LiveTerms(still_ours=self.still_ours, on_published=self.versions.append, settle_ms=12_000, **more)


def publish(publisher: Publisher, app: App, rows: pl.DataFrame, position: int) -> str:
    arrays: dict[str, np.ndarray] = light_arrays(app, position, bias=-1.5, scale=0.3)
    publisher.offer(arrays, position=position, step=position, trained_until_ms=position)
    made = publisher.observe(rows)
    assert made is not None
    return made.reason if made.version is None else f"version {made.version}"


def wipe(valkey_url: str, model: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        client.delete(current_key(model), *client.keys(f"ctr:{model}:*"))


def test_a_flushed_store_gets_the_next_candidate_under_a_larger_number(
    app: App, rows: pl.DataFrame, store: RedisWeights, valkey_url: str
) -> None:
    told = Told()
    publisher = Publisher(app, store, live=told.terms(after_version=7, after_epoch=3))
    assert store.epoch() == 4
    assert publish(publisher, app, rows, 1) == "version 8"
    wipe(valkey_url, store.model)
    assert store.current_version() is None
    assert publish(publisher, app, rows, 2) == "version 9"
    assert (store.current_version(), store.epoch()) == (9, 4)
    assert [manifest.version for manifest in told.versions] == [8, 9]
    late = Publisher(app, store, live=Told().terms(after_version=9, after_epoch=4))
    assert publish(late, app, rows, 3) == "version 10"
    with pytest.raises(FencedError, match="has taken over"):
        publish(publisher, app, rows, 4)


def test_a_store_that_is_away_at_the_start_gets_a_version_once_it_is_there(app: App, rows: pl.DataFrame) -> None:
    away, told = MemoryWeights("adsim"), Told()
    away.fail = StoreError("redis://h: cannot be reached")
    with pytest.raises(StoreError):
        Publisher(app, away)
    publisher = Publisher(app, away, live=told.terms())
    assert publish(publisher, app, rows, 1) == "redis://h: cannot be reached"
    away.fail = None
    assert publish(publisher, app, rows, 2) == "version 1"
    assert (publisher.published, dict(publisher.held_by), publisher.live_position) == (1, {"store": 1}, 2)


def test_who_is_fenced_out_asks_the_store_for_nothing(app: App, rows: pl.DataFrame) -> None:
    store, told = MemoryWeights("adsim"), Told()
    publisher = Publisher(app, store, live=told.terms())
    told.fenced = True
    with pytest.raises(FencedError, match="another trainer"):
        publish(publisher, app, rows, 1)
    assert (store.releases, store.epoch()) == ([], 1)


def test_a_version_says_how_fresh_it_is(app: App, rows: pl.DataFrame) -> None:
    store, told = MemoryWeights("adsim"), Told()
    publish(Publisher(app, store, ManualClock(20_000), live=told.terms()), app, rows, 5000)
    figures = store.fetch().manifest.gate
    assert (figures["freshness_s"], figures["freshness_after_wait_s"]) == (15.0, 3.0)
    assert told.versions[0].gate == figures


def test_a_store_that_is_emptied_while_a_version_goes_out_is_told_apart_from_a_rollback(
    app: App, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, told = MemoryWeights("adsim"), Told()
    publisher = Publisher(app, store, live=told.terms())
    real = store.publish

    def emptied(manifest, chunks):
        made = real(manifest, chunks)
        store.wipe()
        return made

    monkeypatch.setattr(store, "publish", emptied)
    reason = publish(publisher, app, rows, 1)
    assert "when the store was emptied" in reason
    assert (publisher.decisions[-1].kind, told.versions) == ("emptied", [])
    monkeypatch.setattr(store, "publish", real)
    assert publish(publisher, app, rows, 2) == "version 2"


def test_the_live_version_of_another_schema_is_no_yardstick(app: App, kuairand: App, rows: pl.DataFrame) -> None:
    store = MemoryWeights("adsim")
    other = Publisher(kuairand, store, force=True)
    other.offer(light_arrays(kuairand), position=10**6, step=1, trained_until_ms=1)
    other.finish()
    publisher = Publisher(app, store, live=Told().terms())
    assert publisher.live_position is None
    assert publish(publisher, app, rows, 1) == "version 2"
