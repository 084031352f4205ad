"""What is seen of a request before it is read is what the reader then finds, or nothing."""

import json
from typing import Any

import pytest

from contracts.app import App
from contracts.stores import Record
from nodes.fake_traffic import requests
from nodes.peek_requests import NEVER_MS, RequestPeeker
from nodes.read_requests import RequestReader


def test_the_reader_finds_the_same_id_user_and_deadline(adsim: App, kuairand: App) -> None:
    for app in (adsim, kuairand):
        lines = requests(app, 20, 2, seed=3)
        lines += [json.dumps(json.loads(line) | {"tmax": 7}).encode() for line in lines]
        asked = RequestReader(app).read(lines)
        user = app.impressions.role("user_id")
        seen = RequestPeeker(app).peek([Record(None, line, timestamp_ms=1000) for line in lines])
        assert [each.id for each in seen] == asked.ids
        assert [each.deadline_ms - 1000 for each in seen] == asked.tmax_ms
        assert [each.user_id for each in seen] == asked.requests[user].to_list()


@pytest.mark.parametrize(
    ("over", "found"),
    [
        ({"id": 7}, (None, "u", 60)),
        ({"id": "i" * 257}, (None, "u", 60)),
        ({"tmax": "5"}, ("r", "u", 60)),
        ({"tmax": -5}, ("r", "u", 60)),
        ({"tmax": True}, ("r", "u", 60)),
        ({"user": None}, ("r", None, 60)),
        ({"user": {"user_id": ["u"]}}, ("r", None, 60)),
        ({"user": "u"}, (None, None, NEVER_MS)),
    ],
)
def test_what_is_not_as_it_should_be_is_not_seen(
    adsim: App, over: dict[str, Any], found: tuple[str | None, str | None, int]
) -> None:
    line = json.dumps({"id": "r", "user": {"user_id": "u"}} | over).encode()
    assert RequestPeeker(adsim).peek([Record(None, line, timestamp_ms=10)]) == [found]


def test_junk_and_what_is_too_large_or_without_a_time_has_no_deadline(adsim: App) -> None:
    large = b'{"id":"r","user":{"user_id":"' + b"u" * adsim.config.serving.max_request_bytes + b'"}}'
    records = [Record(None, data, timestamp_ms=10) for data in (b"", b"junk", b"\xff", b"[" * 9999, large)]
    assert RequestPeeker(adsim).peek([*records, Record(None, b'{"id":"r"}')]) == [(None, None, NEVER_MS)] * 5 + [
        ("r", None, NEVER_MS)
    ]
