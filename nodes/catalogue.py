"""The items that a scorer knows by heart, so that a request may name candidates by their ids alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from contracts.app import App
from contracts.errors import ContractError
from contracts.rowcheck import reasons

_READ: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".ndjson": pl.read_ndjson,
    ".jsonl": pl.read_ndjson,
}


class Catalogue:
    """Item columns by item id; a candidate's own values win over them.

    Args:
        app: its requests contract says which columns an item has.
        items: one row an item: its id, and some or all of those columns.
        where: names them in an error.

    Raises:
        ContractError: a column that no candidate has, an id twice or missing, or a row that breaks the contract.
    """

    def __init__(self, app: App, items: pl.DataFrame, where: str = "catalogue") -> None:
        columns = {column.name: column for column in app.requests.columns if column.side == "item"}
        item_id = app.requests.role("item_id")
        columns[item_id] = next(column for column in app.requests.columns if column.name == item_id)
        for name in items.columns:
            if name not in columns:
                raise ContractError(f"{where}: no candidate has the column '{name}'; it may have {', '.join(columns)}")
        if item_id not in items.columns:
            raise ContractError(f"{where}: lacks the column '{item_id}', by which items are known; add it")
        try:
            known = items.select(
                pl.col(name).cast(column.dtype) if name in items.columns else pl.lit(None, column.dtype).alias(name)
                for name, column in columns.items()
            )
        except pl.exceptions.PolarsError as error:
            raise ContractError(f"{where}: a column has another type than its contract says ({error})") from error
        contract = app.requests.model_copy(update={"columns": tuple(columns.values())})
        wrong = known.select(item_id, reason=reasons(contract)).filter(pl.col("reason").is_not_null())
        if wrong.height:
            raise ContractError(f"{where}: item {wrong[item_id][0]!r} breaks the contract: {wrong['reason'][0]}")
        if known[item_id].n_unique() != known.height:
            twice = known.filter(pl.col(item_id).is_duplicated())[item_id][0]
            raise ContractError(f"{where}: item {twice!r} stands there twice; leave one")
        self._items, self._item_id = known, item_id
        self._place = {name: place for place, name in enumerate(known[item_id].to_list())}

    def __len__(self) -> int:
        return self._items.height

    def fill(self, candidates: pl.DataFrame) -> pl.DataFrame:
        """Candidates with what they leave out filled in; items that are not known stay as they came.

        Args:
            candidates: the columns of the contract's candidates, one row each.
        """
        if not any(candidates[name].null_count() for name in candidates.columns if name != self._item_id):
            return candidates
        place = np.array([self._place.get(name, -1) for name in candidates[self._item_id].to_list()], np.int64)
        known = pl.Series(place).replace(-1, None).cast(pl.UInt32)
        return candidates.with_columns(
            pl.coalesce(candidates[name], self._items[name].gather(known)).alias(name)
            for name in candidates.columns
            if name != self._item_id and candidates[name].null_count()
        )


def load_catalogue(app: App, path: Path) -> Catalogue:
    """The catalogue in a file: Parquet, or newline-delimited JSON.

    Raises:
        ContractError: no such file, another format, or as `Catalogue`.
    """
    read = _READ.get(path.suffix)
    if read is None:
        raise ContractError(f"{path}: a catalogue is a .parquet or .ndjson file")
    try:
        items = read(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"{path}: cannot be read as a catalogue ({error})") from error
    return Catalogue(app, items, str(path))
