"""`rocket init`: an app to start from that passes `rocket check`, and never an overwritten file."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.app import load_app
from contracts.errors import ContractError, StoreError
from deploy.commands import check, init


def test_a_new_app_passes_the_check(tmp_path: Path) -> None:
    folder = tmp_path / "My Shop"
    done = CliRunner().invoke(init.app, [str(folder), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["app"] == load_app(folder).name == "my_shop"
    assert len(said["files"]) == 4
    checked = CliRunner().invoke(check.app, ["--app", str(folder), "--json"])
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout.splitlines()[-1])["schema_id"] == said["schema_id"]
    assert "rocket.my_shop.clicks" in (folder / "clicks.odcs.yaml").read_text()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "clicks.odcs.yaml").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine too")
    done = CliRunner().invoke(init.app, [str(tmp_path), "--name", "shop"])
    assert isinstance(done.exception, StoreError)
    assert "clicks.odcs.yaml is there already" in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clicks.odcs.yaml", "notes.txt"]
    assert (tmp_path / "clicks.odcs.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["9shop", "shop name", "Shop", "a" * 65])
def test_a_name_that_cannot_be_one_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="--name"):
        init.write_app(tmp_path, name)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        init.write_app(tmp_path / "file" / "app", "shop")
