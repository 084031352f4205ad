"""One request, taken apart: it adds up to what the scorer answers, from Redis and from a checkpoint alike."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from contracts.app import App, load_app
from contracts.errors import ContractError
from deploy.commands import explain as command
from flows import explain, train
from flows.checkpoint_light import light_of
from nodes.fake_traffic import light_arrays, requests
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher
from nodes.score import LightScorer
from tests.random_examples import random_examples, small_app, small_app_folder, write_log


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_the_parts_add_up_to_what_the_scorer_answers(name: str) -> None:
    app: App = load_app(name, {"publish": {"dtype": "fp32"}, "model": {"light": {"fm": True, "hidden": [8]}}})
    store = MemoryWeights(app.name)
    publisher = Publisher(app, store, force=True)
    publisher.offer(light_arrays(app, 3, scale=0.3), position=1, step=1, trained_until_ms=1)
    publisher.finish()
    weights = store.fetch()
    for line in requests(app, 3, 2, seed=5):
        (answer,) = LightScorer(app, weights).answer([line], now_ms=0)
        for score in answer.scores:
            told = explain.run(app, line, weights.arrays, candidate=score.item_id)
            assert told["pctr"] == pytest.approx(score.pctr, rel=1e-4)
            total = sum(row["total"] for row in told["contributions"])
            assert told["reference"] + total == pytest.approx(told["logit"], abs=1e-5)
            assert {row["feature"] for row in told["contributions"]} == {
                feature.name for feature in (*app.layout.light_ids, *app.layout.light_dense)
            }
        assert np.abs([row["total"] for row in told["contributions"]]).max() > 0.01


def test_what_cannot_be_explained_is_told(adsim: App) -> None:
    arrays, (line,) = light_arrays(adsim), requests(adsim, 1, 2)
    item = json.loads(line)["candidates"][1]["item_id"]
    with pytest.raises(ContractError, match=f"no candidate '{item}x'; did you mean '{item}'"):
        explain.run(adsim, line, arrays, candidate=f"{item}x")
    with pytest.raises(ContractError, match="the request is refused: not_json"):
        explain.run(adsim, b"{", arrays)
    bad = json.loads(line)
    bad["candidates"][0]["item_id"] = ""
    with pytest.raises(ContractError, match="candidate 1 of the request is refused: too_short"):
        explain.run(adsim, json.dumps(bad).encode(), arrays)


def test_the_command_explains_from_a_checkpoint(tmp_path: Path) -> None:
    folder = small_app_folder(tmp_path / "app")
    app = small_app(folder)
    train.run(app, write_log(tmp_path / "log", app, random_examples(app, 640)), tmp_path / "checkpoints")
    (line, other) = requests(app, 2, 2, seed=1)
    (tmp_path / "requests.ndjson").write_bytes(line + b"\n" + other + b"\n")
    given = ["--request", str(tmp_path / "requests.ndjson"), "--line", "2", "--app", str(folder)]
    given += ["--checkpoints", str(tmp_path / "checkpoints")]
    done = CliRunner().invoke(command.app, [*given, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    name, arrays = light_of(app, tmp_path / "checkpoints")
    assert told == {"checkpoint": name} | explain.run(app, other, arrays)
    shown = CliRunner().invoke(command.app, [*given, "--top", "2"])
    assert told["contributions"][0]["feature"] in shown.stdout
    assert f"{len(told['contributions']) - 2} more add" in shown.stdout
    assert CliRunner().invoke(command.app, given[:6]).exit_code == 2
    assert isinstance(CliRunner().invoke(command.app, [*given, "--line", "3"]).exception, ContractError)
