"""Commands that tell about the machine."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from contracts.errors import RocketError
from deploy.benches.peers.other_python import CtrLibraries
from deploy.commands import bench, doctor


def test_doctor_finds_this_machine_complete() -> None:
    done = CliRunner().invoke(doctor.app, ["--json"])
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == 0, done.stdout
    assert found["app adsim"]["ok"]
    assert found["torch"]["ok"]


def test_doctor_reports_a_broken_app_and_exits_1(tmp_path) -> None:
    (tmp_path / "app.toml").write_text("name = 3\n")
    done = CliRunner().invoke(doctor.app, ["--app", str(tmp_path), "--json"])
    assert done.exit_code == 1
    assert not json.loads(done.stdout.splitlines()[-1])[f"app {tmp_path}"]["ok"]


@pytest.mark.parametrize(
    ("stage", "python", "told"),
    [
        ("join", sys.executable, "--peer-python is for `rocket bench train` and `quality`, not for join"),
        ("all", "/nowhere/python", "--peer-python /nowhere/python: no such file"),
    ],
)
def test_bench_refuses_a_python_that_it_cannot_use(stage: str, python: str, told: str) -> None:
    done = CliRunner().invoke(bench.app, [stage, "--peer-python", python])
    assert isinstance(done.exception, RocketError)
    assert told in str(done.exception)


def test_peers_that_are_not_there_are_named(tmp_path: Path) -> None:
    rows = np.zeros((1, 4, 1), np.int64)
    with pytest.raises(RocketError, match="has neither deepctr-torch nor fuxictr"):
        CtrLibraries(Path(sys.executable), tmp_path, sizes=[1], ids=rows, label=np.zeros((1, 4)), hidden=(2,), width=2)


def test_bench_lists_its_stages_and_suggests_one() -> None:
    stages = CliRunner().invoke(bench.app, []).stdout.removeprefix("stages: ").strip().split(", ")
    assert {"join", "serve", "all"} <= set(stages)
    assert not [stage for stage in stages if stage.startswith("serve-")], "parts of a stage are measured with it"
    done = CliRunner().invoke(bench.app, ["jion"])
    assert isinstance(done.exception, RocketError)
    assert "did you mean 'join'" in str(done.exception)
