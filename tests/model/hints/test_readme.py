"""The table of the shelf in model/README.md says what the tables in the code say."""

from pathlib import Path

import model
from contracts.hint_names import HINT_NAMES, usable
from model.hints.shelf import METHODS


def line(name: str) -> str:
    place = next((setting for setting in ("hint", "feature_hint") if name in usable(setting)), None)
    row, method = HINT_NAMES[name], METHODS[name]
    where = f"`{place}`" if place else f"refused: `{row.instead}`"
    return f"| `{name}` | {row.takes} | {where} | {method.scaling} | {method.paper} |"


def test_every_hint_stands_in_the_readme_with_its_place_scaling_and_paper() -> None:
    text = Path(model.__path__[0], "README.md").read_text()
    missing = [line(name) for name in METHODS if line(name) not in text]
    assert not missing, "\n".join(missing)
    shelf = text.partition("## The shelf")[2].partition("\n## ")[0]
    assert shelf.count("\n| `") == len(METHODS)
