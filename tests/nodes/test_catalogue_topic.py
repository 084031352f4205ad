"""A catalogue in a compacted topic: read to its end, followed, and never broken by what stands in it."""

import json

import pytest
from kafka import KafkaProducer

from contracts.app import load_app
from contracts.errors import StoreError
from nodes.catalogue_topic import CatalogueTopic, open_catalogue


def _item(number, **more):
    return {"item_id": f"a{number}", "campaign_id": "c", "category": "k", "format": "banner", "bid": 1.0} | more


@pytest.fixture
def send(kafka):
    writer = KafkaProducer(bootstrap_servers=kafka.brokers)

    def write(topic, key, value):
        data = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        writer.send(topic, key=key.encode(), value=data)
        writer.flush()

    yield write
    writer.close()


def test_items_are_read_to_the_end_changed_and_removed(kafka, send):
    app, topic = load_app("adsim"), kafka.create(partitions=3, cleanup_policy="compact")
    for number in range(5):
        send(topic, f"a{number}", _item(number))
    send(topic, "a1", None)
    send(topic, "a2", _item(2, bid=9.0))
    with CatalogueTopic(app, kafka.url(topic)) as source:
        items = source.latest()
        assert set(items.places) == {"a0", "a2", "a3", "a4"}
        assert items.items["bid"][items.places["a2"]] == 9.0
        assert source.latest() is items, "without news it is the same"
        send(topic, "a7", _item(7))
        send(topic, "a0", None)
        for _ in range(50):
            later = source.latest()
            if later is not items and "a7" in later.places and "a0" not in later.places:
                break
        assert set(later.places) == {"a2", "a3", "a4", "a7"}
        assert set(items.places) == {"a0", "a2", "a3", "a4"}, "who still uses the earlier one sees no change"
        assert later.generation is items.generation


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"{", "not_json"),
        (b"\xff", "not_json"),
        (_item(1, price=1), "unknown_column"),
        (_item(1, bid="dear"), "wrong_type"),
        (_item(1, bid=-1), "below_minimum"),
        (_item(1, format="poster"), "not_allowed"),
        (_item(2), "wrong_key"),
        ({"item_id": "a1"}, "missing"),
    ],
)
def test_a_bad_item_is_refused_alone_and_what_was_known_stays(kafka, send, value, code):
    app, topic = load_app("adsim"), kafka.create()
    send(topic, "a1", _item(1, bid=3.0))
    send(topic, "a1", value)
    send(topic, "a9", _item(9))
    with CatalogueTopic(app, kafka.url(topic)) as source:
        items = source.latest()
        assert source.refused == {code: 1}
        assert "item 'a1'" in str(source.last_refusal)
        assert set(items.places) == {"a1", "a9"}
        assert items.items["bid"][items.places["a1"]] == 3.0


def test_a_topic_that_is_not_there_says_so(kafka):
    with (
        pytest.raises(StoreError, match="no-such-topic"),
        open_catalogue(load_app("adsim"), kafka.url("no-such-topic")),
    ):
        pytest.fail("opened")
