"""`rocket bench` with options: who takes them, who refuses them, and the files that results become."""

import csv
import json
import sys
import types

import pytest
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from contracts.errors import RocketError
from deploy.bench_options import BenchOptions
from deploy.bench_results import figures_and_tables, write_picture, write_results
from deploy.commands import bench

RESULTS = {
    "speed": {"ours": 2.0, "peer": 1.0},
    "arms": [{"arm": "a|b", "error": 0.123456789}, {"arm": "c", "spread": 1}],
}


@pytest.fixture
def stages(monkeypatch):
    """Two stages in place of the real ones: `plain` as they were, `choosy` with options."""
    seen = []

    def choosy(quick, options):
        seen.append((quick, options))
        return RESULTS

    runs = {"plain": lambda quick: {"quick": quick}, "choosy": choosy}
    monkeypatch.setattr(bench, "_stages", lambda: sorted(runs))
    monkeypatch.setattr(
        bench.importlib, "import_module", lambda name: types.SimpleNamespace(run=runs[name.split(".")[-1]])
    )
    return seen


def test_a_stage_with_options_is_given_them_and_its_results_are_written(stages, tmp_path) -> None:
    out = tmp_path / "made" / "here"
    done = CliRunner().invoke(
        bench.app,
        ["choosy", "--quick", "--data", str(tmp_path), "--out", str(out), "--seeds", "4", "--device", "cpu", "--json"],
    )
    assert done.exit_code == 0, done.output
    assert stages == [(True, BenchOptions(tmp_path, out, 4, "cpu"))]
    assert json.loads(done.stdout.splitlines()[-1]) == RESULTS
    assert sorted(path.name for path in out.iterdir()) == ["choosy-arms.csv", "choosy.csv", "choosy.json", "choosy.md"]
    command = f"rocket bench choosy --quick --data {tmp_path} --out {out} --seeds 4 --device cpu"
    assert json.loads((out / "choosy.json").read_text()) == {"command": command, "results": RESULTS}
    for path in out.iterdir():
        assert command in path.read_text(), f"{path.name} does not say what made it"


def test_a_stage_without_options_runs_as_before_and_its_figures_can_be_written(stages, tmp_path) -> None:
    done = CliRunner().invoke(bench.app, ["plain", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "quick" in (tmp_path / "plain.csv").read_text()


def test_all_stages_run_with_an_out_folder(stages, tmp_path) -> None:
    done = CliRunner().invoke(bench.app, ["all", "--out", str(tmp_path), "--json"])
    assert json.loads(done.stdout.splitlines()[-1]) == {"choosy": RESULTS, "plain": {"quick": False}}
    assert {"choosy.md", "plain.md"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plain", "--seeds", "2"], "`rocket bench plain` has no use for --seeds"),
        (["plain", "--device", "cpu"], "no use for --device"),
        (["all", "--seeds", "2"], "--seeds is a stage's own"),
        (["choosy", "--seeds", "0"], "at least one seed"),
        (["choosy", "--variants", "rocket"], "--variants is for `rocket bench quality` and `hints`, not for"),
        (["choosy", "--impressions", "9"], "--impressions is for `rocket bench hints`, not for choosy"),
        (["choosy", "--impressions", "0"], "nothing to learn; give more, or 0 with --data DIR"),
        (["choosy", "--variants", " ; "], "--variants: names none"),
        (["choosy", "--data", "nowhere"], "--data nowhere: no such folder"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(stages, words, told) -> None:
    done = CliRunner().invoke(bench.app, words)
    assert isinstance(done.exception, RocketError)
    assert told in str(done.exception)
    assert stages == []


@pytest.mark.parametrize("stage", ["train", "all"])
def test_a_python_of_peers_goes_to_the_stages_that_have_some(stage, monkeypatch, tmp_path) -> None:
    runs = {"plain": lambda quick: {}, "train": lambda quick, peer_python=None: {"peer": str(peer_python)}}
    monkeypatch.setattr(bench, "_stages", lambda: sorted(runs))
    monkeypatch.setattr(bench, "_run_of", runs.__getitem__)
    done = CliRunner().invoke(bench.app, [stage, "--peer-python", sys.executable, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for path in tmp_path.glob("*.json"):
        written, whose = json.loads(path.read_text()), path.stem
        assert ("--peer-python" in written["command"]) == (whose == "train")
        assert written["results"] == ({"peer": sys.executable} if whose == "train" else {})
    assert (tmp_path / "train.json").exists()


def test_a_table_is_whole_where_no_terminal_bounds_it(stages, monkeypatch) -> None:
    wide = {f"what is measured {number}": f"a value of some words, {number}" for number in range(20)}
    monkeypatch.setitem(RESULTS, "wide", [wide])
    lines = CliRunner().invoke(bench.app, ["choosy"]).output.splitlines()
    (head,) = (line for line in lines if "what is measured 0" in line)
    (row,) = (line for line in lines if "a value of some words, 0" in line)
    assert all(name in head and value in row for name, value in wide.items())
    assert max(map(len, lines)) == len(head) < 1000, "no wider than it is"


def test_tables_keep_every_column_and_full_precision(tmp_path) -> None:
    write_results(tmp_path, "s", RESULTS, "rocket bench s")
    first, *rest = (tmp_path / "s-arms.csv").read_text().splitlines()
    assert first == "# rocket bench s"
    assert list(csv.DictReader(rest)) == [
        {"arm": "a|b", "error": "0.123456789", "spread": ""},
        {"arm": "c", "error": "", "spread": "1"},
    ]
    assert (tmp_path / "s.md").read_text().split("\n")[4:9] == [
        "## arms", "", "| arm | error | spread |", "| --- | --- | --- |", "| a\\|b | 0.1235 |  |",
    ]  # fmt: skip


def test_only_lists_of_rows_are_tables() -> None:
    assert figures_and_tables({"a": [1, 2], "b": [], "c": {"d": [{"x": 1}]}}) == (
        {"a": [1, 2], "b": []},
        {"c.d": [{"x": 1}]},
    )


def test_a_picture_tells_its_command_and_repeats_byte_for_byte(tmp_path) -> None:
    for name in ("a.png", "b.png"):
        figure = Figure(figsize=(2, 1))
        figure.add_subplot().plot([0, 1], [1, 0])
        write_picture(tmp_path / name, figure, "rocket bench s")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "a.png").text["Description"] == "rocket bench s"
