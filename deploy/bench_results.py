"""A bench's results as tables: on the terminal, and as JSON, CSV, Markdown and pictures in a folder.

What a stage returns is a nested dict. A list of dicts in it is a table, one row a dict; everything else is a figure
with a dotted name. Files are whole or absent, and each names the command that made it.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodes.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]


def figures_and_tables(results: Row, prefix: str = "") -> tuple[Row, dict[str, list[Row]]]:
    """Single figures and tables of a stage's results, by dotted name.

    >>> figures_and_tables({"a": {"b": 1}, "t": [{"x": 1}, {"x": 2}]})
    ({'a.b': 1}, {'t': [{'x': 1}, {'x': 2}]})
    """
    figures: Row = {}
    tables: dict[str, list[Row]] = {}
    for key, value in results.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            more, further = figures_and_tables(value, f"{name}.")
            figures |= more
            tables |= further
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            tables[name] = value
        else:
            figures[name] = value
    return figures, tables


def shown(value: Any) -> str:
    """A value as a table shows it: four digits of a float, nothing for what is missing.

    >>> shown(12345.678), shown(0.123456), shown(None), shown("x")
    ('1.235e+04', '0.1235', '', 'x')
    """
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def columns_of(rows: list[Row]) -> list[str]:
    """Every key of the rows, in the order of first sight."""
    return list(dict.fromkeys(key for row in rows for key in row))


def write_results(out: Path, stage: str, results: Row, command: str) -> list[Path]:
    """Write `STAGE.json`, `STAGE.md`, `STAGE.csv` (figures) and `STAGE-TABLE.csv` for each table.

    Args:
        out: made if it is not there.
        stage: begins each file's name.
        results: what the stage returned.
        command: stands in every file: how to make it again. In CSV it is a first line that begins with `#`.

    Returns:
        The files, in the order written.

    Raises:
        StoreError: the folder cannot be written.
    """
    figures, tables = figures_and_tables(results)
    as_rows = [{"figure": name, "value": value} for name, value in figures.items()]
    texts = {f"{stage}.json": json.dumps({"command": command, "results": results}, indent=1) + "\n"}
    texts[f"{stage}.md"] = "\n".join(_markdown(stage, as_rows, tables, command)) + "\n"
    texts[f"{stage}.csv"] = _csv(as_rows, command)
    for name, rows in tables.items():
        texts[f"{stage}-{name.replace('.', '-')}.csv"] = _csv(rows, command)
    for name, text in texts.items():
        write_whole(out / name, text.encode())
    return [out / name for name in texts]


def write_picture(path: Path, figure: "Figure", command: str) -> None:
    """A matplotlib figure as a PNG whose description is the command that made it; the same figure gives the same bytes.

    Raises:
        StoreError: the folder cannot be written.
    """
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=150, metadata={"Software": None, "Description": command})
    write_whole(path, sink.getvalue())


def _csv(rows: list[Row], command: str) -> str:
    sink = io.StringIO()
    sink.write(f"# {command}\n")
    writer = csv.DictWriter(sink, columns_of(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def _markdown(stage: str, figures: list[Row], tables: dict[str, list[Row]], command: str) -> Iterator[str]:
    yield from (f"# rocket bench {stage}", "", f"Made by `{command}`.")
    for name, rows in (tables | ({"figures": figures} if figures else {})).items():
        columns = columns_of(rows)
        yield from ("", f"## {name}", "", _line(columns), _line(["---"] * len(columns)))
        yield from (_line([shown(row.get(column)) for column in columns]) for row in rows)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
