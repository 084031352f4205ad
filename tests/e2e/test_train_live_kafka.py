"""Live training from a topic: the same weights as from a folder, also when the broker goes away meanwhile."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.segments import FeatureBatch
from flows import train, train_live
from model.checkpoint import load_newest
from nodes.example_logs import open_examples
from tests.kafka_broker import KafkaBroker
from tests.random_examples import random_examples, small_app, write_log

pytestmark = pytest.mark.e2e

ROWS, LEARNT = 1400, 1344


def test_a_broker_that_goes_away_and_comes_back_changes_no_weight(
    own_kafka: Callable[[], KafkaBroker], tmp_path: Path
) -> None:
    app = small_app(tmp_path / "small", {"live": {"poll_s": 0.01}})
    frame, broker, stop, beats = random_examples(app, ROWS), own_kafka(), threading.Event(), list[dict[str, Any]]()
    url = broker.url(broker.create(retention_ms=-1))
    hasty = app.config.kafka.model_copy(update={"request_timeout_s": 3})
    writer, reader = open_examples(url, app), open_examples(url, app, hasty)
    checkpoints, done, failed = tmp_path / "checkpoints", dict[str, Any](), list[Exception]()

    def follow() -> None:
        try:
            done.update(train_live.run(app, reader, checkpoints, called=url, stop=stop, on_beat=beats.append))
        except Exception as error:  # shown below
            failed.append(error)

    def wait(position: int) -> None:
        deadline = time.monotonic() + 90
        while not (beats and beats[-1]["position"] >= position):
            assert not failed, failed
            assert time.monotonic() < deadline, beats[-1:]
            time.sleep(0.05)

    following = threading.Thread(target=follow)
    following.start()
    try:
        for start in range(0, 700, 100):
            writer.append(FeatureBatch(frame.slice(start, 100), start, app.schema_id))
        wait(640)
        writer.close()
        broker.kill()
        time.sleep(3)
        broker.start()
        writer = open_examples(url, app)
        writer.append(FeatureBatch(frame.slice(600, 800), 600, app.schema_id))  # overlaps: what stands is skipped
        wait(LEARNT)
    finally:
        stop.set()
        following.join(30)
        writer.close()
        reader.close()
    assert not failed
    assert (done["examples"], done["pending"], done["lag_rows"]) == (LEARNT, ROWS - LEARNT, ROWS - LEARNT)
    train.run(app, write_log(tmp_path / "whole", app, frame), tmp_path / "folder")
    train.run(app, url, tmp_path / "topic")
    found = [load_newest(path, app.schema_id) for path in (checkpoints, tmp_path / "folder", tmp_path / "topic")]
    for name, tensor in found[0].tensors.items():
        assert all(other.tensors[name].numpy().tobytes() == tensor.numpy().tobytes() for other in found[1:]), name
