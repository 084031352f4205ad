"""The table of the shelf in model/README.md says what the tables in the code say."""

from pathlib import Path

import model
from contracts.hint_names import hint_names, usable
from model.hints.shelf import METHODS


def line(name: str) -> str:
    place = next((setting for setting in ("hint", "feature_hint") if name in usable(setting)), None)
    row = hint_names()[name]
    where = f"`{place}`" if place else f"refused: `{row.instead}`"
    return f"| `{name}` | {row.takes} | {where} | {row.scaling} | {row.paper} |"


def test_every_hint_stands_in_the_readme_with_its_place_scaling_and_paper() -> None:
    shelf = Path(model.__path__[0], "README.md").read_text().partition("## The shelf")[2].partition("\n## ")[0]
    rows, wanted = {row for row in shelf.splitlines() if row.startswith("| `")}, {line(name) for name in METHODS}
    assert rows == wanted, "\n".join(
        ["in the table of model/README.md, paste:", *sorted(wanted - rows), "and take out:", *sorted(rows - wanted)]
    )
