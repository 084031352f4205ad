"""A file of requests is answered: whole files, figures that mean something."""

import json
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from contracts.app import App
from contracts.errors import ContractError, StoreError
from contracts.serving import AdResponse
from flows import score
from nodes.fake_traffic import light_arrays, requests
from nodes.fakes import ManualClock, MemoryWeights
from nodes.publish import Publisher


@pytest.fixture
def store(adsim: App) -> MemoryWeights:
    made = MemoryWeights("adsim")
    publisher = Publisher(adsim, made, ManualClock(1000), force=True)
    for number in (1, 2):
        publisher.offer(light_arrays(adsim, number), position=number, step=number, trained_until_ms=number)
        publisher.finish()
    return made


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def test_every_line_gets_an_answer_in_order_and_every_candidate_a_row(
    tmp_path: Path, adsim: App, store: MemoryWeights
) -> None:
    lines = requests(adsim, 700, 3)
    lines[5] = b"junk"
    broken = json.loads(lines[600])
    broken["candidates"][1]["bid"] = "x"
    lines[600] = json.dumps(broken).encode()
    out = tmp_path / "out" / "answers.ndjson"
    said = score.run(adsim, write(tmp_path / "r.ndjson", lines), store, out, clock_ms=ManualClock(1000))
    answers = [msgspec.json.decode(line, type=AdResponse) for line in out.read_bytes().splitlines()]
    assert [answer.id for answer in answers] == [None if n == 5 else f"request-{n}" for n in range(700)]
    rows = pl.read_parquet(out.with_suffix(".parquet"))
    assert rows.columns == ["request_id", "candidate", "item_id", "pctr", "logit", "model_version"]
    given = [
        (answer.id, place, one.item_id, one.pctr)
        for answer in answers
        for place, one in enumerate(answer.scores)
    ]  # fmt: skip
    assert rows.select("request_id", "candidate", "item_id", "pctr").rows() == given
    assert rows.filter(pl.col("pctr").is_null()).select("request_id", "candidate").rows() == [("request-600", 1)]
    np.testing.assert_allclose(1 / (1 + np.exp(-rows["logit"].drop_nulls())), rows["pctr"].drop_nulls(), rtol=1e-6)
    assert (said["requests"], said["candidates"], said["model_version"]) == (700, 699 * 3, 2)
    assert said["refused"] == {"requests": 1, "candidates": 1}
    assert said["refusal_codes"] == {"not_json": 1, "wrong_type": 1}
    assert said["timed_requests"] == 234
    assert 0 < said["p50_us"] <= said["p99_us"]


def test_a_chosen_version_answers(tmp_path: Path, adsim: App, store: MemoryWeights) -> None:
    asked = write(tmp_path / "r.ndjson", requests(adsim, 3, 2))
    said = score.run(adsim, asked, store, tmp_path / "a.ndjson", version=1)
    assert said["model_version"] == 1
    assert pl.read_parquet(tmp_path / "a.parquet")["model_version"].unique().to_list() == [1]
    with pytest.raises(StoreError, match="no version 9"):
        score.run(adsim, asked, store, tmp_path / "b.ndjson", version=9)
    assert not (tmp_path / "b.ndjson").exists()


def test_an_empty_file_gives_empty_answers(tmp_path: Path, adsim: App, store: MemoryWeights) -> None:
    said = score.run(adsim, write(tmp_path / "r.ndjson", []), store, tmp_path / "a.ndjson")
    assert (said["requests"], said["p50_us"], (tmp_path / "a.ndjson").read_bytes()) == (0, None, b"")
    assert pl.read_parquet(tmp_path / "a.parquet").height == 0


def test_a_missing_file_is_one_sentence(tmp_path: Path, adsim: App, store: MemoryWeights) -> None:
    with pytest.raises(ContractError, match="one JSON request a line"):
        score.run(adsim, tmp_path / "none", store, tmp_path / "a.ndjson")


def test_a_file_without_a_last_newline_loses_no_request(tmp_path: Path, adsim: App, store: MemoryWeights) -> None:
    (tmp_path / "r.ndjson").write_bytes(b"\n".join(requests(adsim, 3, 1)))
    assert score.run(adsim, tmp_path / "r.ndjson", store, tmp_path / "a.ndjson")["candidates"] == 3
