"""A few lines of a public log all the way: import, ingest, train, score."""

import json
from pathlib import Path

import numpy as np
import pytest

from contracts.app import load_app
from flows import ingest, score, train
from nodes.weight_stores import open_weights
from tests.commands import rocket
from tests.import_logs import AVAZU_HEADER, avazu_line, criteo_line, write_taobao

SMALL = {
    "model": {"embedding_dim": 2, "light": {"hidden": [4]}, "booster": {"hidden": [4], "cross_rank": 2}},
    "train": {"batch_rows": 64, "device": "cpu"},
    "publish": {"every_rows": 256, "gate": {"window_rows": 64, "max_logloss_increase": 5.0}},
}
ROWS = 800


def criteo(folder: Path) -> list[Path]:
    draw = np.random.default_rng(1)
    path = folder / "train.txt"
    numbers = draw.integers(0, 50, (ROWS, 13)).tolist()
    path.write_text("".join(criteo_line(int(row[0] > 30), row) for row in numbers))
    return [path]


def avazu(folder: Path) -> list[Path]:
    path = folder / "train.csv"
    rows = (avazu_line(n, n % 5 == 0, "14102100", ad=15000 + n % 5) for n in range(ROWS))
    path.write_text(AVAZU_HEADER + "".join(rows))
    return [path]


def taobao(folder: Path) -> list[Path]:
    write_taobao(folder)
    rows = [
        f"{n % 50},{1494137644 + n * 7919 % 90000},{n % 9},430539_1007,{int(n % 9 != 0)},{int(n % 9 == 0)}"
        for n in range(ROWS)
    ]
    (folder / "raw_sample.csv").write_text("\n".join(["user,time_stamp,adgroup_id,pid,nonclk,clk", *rows]))
    return [folder]


@pytest.mark.parametrize(("log", "write"), [("criteo", criteo), ("avazu", avazu), ("taobao-ad", taobao)])
def test_a_public_log_is_imported_trained_on_and_scored(log: str, write, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    events = tmp_path / "events"
    said = rocket("import", log, *write(tmp_path / "log"), "--out", events, "--json")
    assert said.code == 0, said.err
    made = json.loads(said.out.splitlines()[-1])
    assert (made["impressions"], made["dead_lettered"].get("wrong_label")) == (ROWS, None)

    whole = load_app(log)
    features = [
        feature.model_dump(by_alias=True, exclude_none=True) | ({"buckets": 16} if feature.buckets else {})
        for feature in whole.features
    ]
    app = load_app(log, SMALL | {"features": features})
    told = ingest.run(app, [events / "impressions.ndjson"], [events / "clicks.ndjson"], tmp_path / "in")
    assert told["examples"] == ROWS
    assert told["streams"]["impressions"]["dead_lettered"] == told["streams"]["clicks"]["dead_lettered"] == 0
    with open_weights(tmp_path / "weights", app.name, keep=2) as store:
        learnt = train.run(app, tmp_path / "in" / "examples", tmp_path / "checkpoints", store=store)
        assert learnt["versions"] >= 1
        answered = score.run(app, events / "requests.ndjson", store, tmp_path / "answers.ndjson")
    assert answered["candidates"] == ROWS
    assert answered["refused"] == {"requests": 0, "candidates": 0}
    answers = [json.loads(line) for line in (tmp_path / "answers.ndjson").read_text().splitlines()]
    assert all(0 < one["pctr"] < 1 for answer in answers for one in answer["scores"])
