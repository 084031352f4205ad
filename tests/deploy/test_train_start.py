"""`rocket train --light-from` and `--new-booster`, as they are typed."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from contracts.errors import ContractError
from deploy.commands import publish, train
from tests.random_examples import random_examples, small_app, small_app_folder, write_log


def test_a_light_net_begins_as_published_and_then_gets_another_booster(tmp_path: Path) -> None:
    folder = small_app_folder(tmp_path / "app")
    app = small_app(folder)
    log = write_log(tmp_path / "log", app, random_examples(app, 320))

    def run(checkpoints: str, *options: str) -> Any:
        given = ["--examples", str(log), "--checkpoints", str(tmp_path / checkpoints), "--app", str(folder), "--json"]
        return CliRunner().invoke(train.app, [*given, *options])

    def said(checkpoints: str, *options: str) -> dict[str, Any]:
        done = run(checkpoints, *options)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1])

    weights = str(tmp_path / "valkey")
    assert said("first")["light_from"] is None
    given = ["--checkpoints", str(tmp_path / "first"), "--weights", weights, "--app", str(folder), "--force", "--json"]
    published = CliRunner().invoke(publish.app, given)
    newest = json.loads(published.stdout.splitlines()[-1])["version"]
    assert said("second", "--light-from", weights)["light_from"] == newest
    assert said("third", "--weights", weights, "--light-from", "weights")["light_from"] == newest
    assert said("first", "--light-from", weights)["light_from"] is None
    other = ("--set", "model.booster.kind=mlp")
    assert isinstance(run("first", *other).exception, ContractError)
    assert said("first", *other, "--new-booster")["resumed_from"] is not None
    assert run("fourth", "--light-from", "weights").exit_code == 2
