"""One settings model: `app.toml`, then the environment (`ROCKET_TRAIN__SEED=2`), then `--set train.seed=2`.

This is the only module that reads the environment.
"""

import os
import tomllib
from collections.abc import Mapping
from typing import Any

from contracts.app import App, AppConfig, laid_over, load_app
from contracts.errors import ContractError, did_you_mean

_PREFIX = "ROCKET_"


def _value(text: str) -> Any:
    """A TOML value; a bare word is a string.

    >>> _value("2"), _value("[64, 32]"), _value("fp32")
    (2, [64, 32], 'fp32')
    """
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for "a.b"."""
    for step in reversed(dotted.split(".")):
        value = {step: value}
    nested: dict[str, Any] = value
    return nested


def overrides_from(sets: list[str] | None, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Settings from the environment, then from `section.key=value` strings, nested as in `app.toml`.

    Args:
        sets: as given with `--set`; later ones win.
        environment: the process's own by default.

    Raises:
        ContractError: a string without "=", or a variable that names no section.

    >>> overrides_from(["train.seed=2"], {"ROCKET_TRAIN__BATCH_ROWS": "512"})
    {'train': {'batch_rows': 512, 'seed': 2}}
    """
    merged: dict[str, Any] = {}
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(_PREFIX):
            dotted = name.removeprefix(_PREFIX).lower().replace("__", ".")
            section = dotted.split(".")[0]
            if section not in AppConfig.model_fields:
                mend = did_you_mean(section, AppConfig.model_fields)
                raise ContractError(f"environment variable {name}: no section '{section}'; {mend}")
            merged = laid_over(merged, _nested(dotted, _value(text)))
    for given in sets or []:
        key, equals, text = given.partition("=")
        if not equals:
            raise ContractError(f"--set {given}: needs section.key=value, as in --set train.seed=2")
        merged = laid_over(merged, _nested(key.strip(), _value(text.strip())))
    return merged


def load_app_with_settings(name_or_dir: str, sets: list[str] | None = None) -> App:
    """The app with the environment's and the command line's settings laid over its file."""
    return load_app(name_or_dir, overrides_from(sets))
