"""A run's folder is replaced by the next run, and nothing of anyone else's is touched."""

from pathlib import Path

import pytest

from contracts.errors import ContractError
from flows.run_folder import RunFolder


def test_a_new_run_takes_the_place_of_an_earlier_one_and_leaves_other_files(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin({"app": "adsim"})
    run.write_json("summary.json", {"old": 1})
    (run.events).mkdir()
    (run.events / "impressions.ndjson").write_text("{}\n")
    (run.root / "notes.txt").write_text("mine")
    run.begin({"app": "kuairand"})
    assert not run.events.exists()
    assert not run.summary.exists()
    assert (run.root / "notes.txt").read_text() == "mine"
    assert run.read_json("run.json") == {"app": "kuairand"}


def test_a_folder_that_is_no_run_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "precious.txt").write_text("mine")
    with pytest.raises(ContractError, match=r"no run\.json"):
        RunFolder(tmp_path).begin({})
    assert (tmp_path / "events" / "precious.txt").read_text() == "mine"
