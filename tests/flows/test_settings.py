"""Settings come from the file, then the environment, then the command line."""

import pytest

from contracts.errors import ContractError
from flows.settings import load_app_with_settings, overrides_from


def test_the_command_line_beats_the_environment_beats_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKET_TRAIN__SEED", "5")
    monkeypatch.setenv("ROCKET_TRAIN__BATCH_ROWS", "512")
    app = load_app_with_settings("adsim", ["train.seed=7"])
    assert (app.config.train.seed, app.config.train.batch_rows) == (7, 512)


def test_values_are_read_as_toml() -> None:
    assert overrides_from(["model.light.hidden=[8, 4]", "publish.dtype=fp32"], {}) == {
        "model": {"light": {"hidden": [8, 4]}},
        "publish": {"dtype": "fp32"},
    }


@pytest.mark.parametrize("given", ["train.seed", "train"])
def test_a_setting_without_a_value_says_the_form(given: str) -> None:
    with pytest.raises(ContractError, match=r"section\.key=value"):
        overrides_from([given], {})


def test_a_mistyped_variable_gets_a_suggestion() -> None:
    with pytest.raises(ContractError, match="did you mean 'train'"):
        overrides_from([], {"ROCKET_TRIAN__SEED": "1"})


def test_an_unknown_key_gets_a_suggestion() -> None:
    with pytest.raises(ContractError, match="did you mean 'batch_rows'"):
        load_app_with_settings("adsim", ["train.batch_row=3"])


def test_settings_do_not_change_what_the_nets_see() -> None:
    plain, tuned = load_app_with_settings("adsim"), load_app_with_settings("adsim", ["train.seed=9"])
    assert plain.schema_id == tuned.schema_id
