"""The items that a scorer knows by heart, so that a request may name candidates by their ids alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from contracts.app import App
from contracts.columns import DataContract
from contracts.errors import ContractError
from contracts.odcs import Column
from contracts.rowcheck import reasons
from nodes.mixed_side import MixedSide, Said
from nodes.request_side import Filled, LightSides, arrays_of

_READ: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".ndjson": pl.read_ndjson,
    ".jsonl": pl.read_ndjson,
}
_CHUNK = 16_384  # rows featurised at once


class CatalogueSource(Protocol):
    """Where items come from; a catalogue is its own source and never changes."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Code -> items that were not taken so far."""
        ...

    def latest(self) -> "Catalogue":
        """The items as they are known now; called from the background, may take its time."""
        ...


class Catalogue:
    """Item columns by item id; a candidate's own values win over them.

    A catalogue never changes; `changed` gives the next one. Rows are only added: an item that changes gets a new row,
    so whatever was computed for the rows before stays right. When half of the rows are dead, all are laid anew.

    Memory: the columns, about 100 bytes an item for its id, and 4 bytes an item and light feature; where features read
    request and item, 8 bytes an item and 200 for each distinct value that they read.

    Args:
        app: its requests contract says which columns an item has.
        items: one row an item: its id, and some or all of those columns.
        where: names them in an error.

    Raises:
        ContractError: a column that no candidate has, an id twice or missing, or a row that breaks the contract.
    """

    def __init__(self, app: App, items: pl.DataFrame, where: str = "catalogue") -> None:
        contract, item_id = item_contract(app), app.requests.role("item_id")
        known = _typed(contract, items, item_id, where)
        wrong = known.select(item_id, reason=reasons(contract)).filter(pl.col("reason").is_not_null())
        if wrong.height:
            raise ContractError(f"{where}: item {wrong[item_id][0]!r} breaks the contract: {wrong['reason'][0]}")
        if known[item_id].n_unique() != known.height:
            twice = known.filter(pl.col(item_id).is_duplicated())[item_id][0]
            raise ContractError(f"{where}: item {twice!r} stands there twice; leave one")
        self.item_id = item_id
        sides = LightSides.of(app)
        self._featurize = Filled(sides.item)
        self._mixed = MixedSide(app) if sides.mixed else None
        self._lay(known)

    def _lay(self, items: pl.DataFrame) -> None:
        self.items = items  #: one row a place
        self.places = {name: place for place, name in enumerate(items[self.item_id].to_list())}  #: of each item
        self.features = self._featurised(items)  #: light features of the items, one value a place
        self.said = self._said(items)  #: what the items say to features that read request and item, if there are any
        self.generation = object()  #: catalogues of one generation agree on the places that both have

    def __len__(self) -> int:
        return len(self.places)

    @property
    def refused(self) -> Mapping[str, int]:
        """None: a catalogue with an item that breaks the contract is not made at all."""
        return {}

    def latest(self) -> "Catalogue":
        """Itself."""
        return self

    def changed(self, items: pl.DataFrame, removed: Sequence[str] = ()) -> "Catalogue":
        """The catalogue with some items new or changed, and some gone.

        Args:
            items: as this catalogue's `items`; good by the contract, each id once.
            removed: ids; those that are unknown are passed over.
        """
        made = object.__new__(Catalogue)
        made.item_id, made._featurize, made._mixed = self.item_id, self._featurize, self._mixed
        places = self.places.copy()
        for name in removed:
            places.pop(name, None)
        places.update(zip(items[self.item_id].to_list(), range(self.items.height, 1 << 62), strict=False))
        whole = pl.concat([self.items, items]) if items.height else self.items
        if whole.height > 2 * len(places) + _CHUNK:
            made._lay(whole[np.fromiter(places.values(), np.int64, len(places))].rechunk())
            return made
        made.items, made.places, made.generation = whole, places, self.generation
        fresh = self._featurised(items) if items.height else {}
        made.features = {
            name: np.concatenate([values, fresh[name]]) if fresh else values for name, values in self.features.items()
        }
        made.said = self._said(items, self.said) if items.height else self.said
        return made

    def fill(self, candidates: pl.DataFrame) -> pl.DataFrame:
        """Candidates with what they leave out filled in; items that are not known stay as they came.

        Args:
            candidates: the columns of the contract's candidates, one row each.
        """
        if not any(candidates[name].null_count() for name in candidates.columns if name != self.item_id):
            return candidates
        place = np.array([self.places.get(name, -1) for name in candidates[self.item_id].to_list()], np.int64)
        known = pl.Series(place).replace(-1, None).cast(pl.UInt32)
        return candidates.with_columns(
            pl.coalesce(candidates[name], self.items[name].gather(known)).alias(name)
            for name in candidates.columns
            if name != self.item_id and candidates[name].null_count()
        )

    def _featurised(self, items: pl.DataFrame) -> dict[str, np.ndarray]:
        made = [arrays_of(self._featurize(items[at : at + _CHUNK])) for at in range(0, max(items.height, 1), _CHUNK)]
        return {name: np.concatenate([chunk[name] for chunk in made]) for name in made[0]}

    def _said(self, items: pl.DataFrame, before: Said | None = None) -> Said | None:
        return None if self._mixed is None else self._mixed.said_in(items, before)


def item_contract(app: App) -> DataContract:
    """The contract of requests cut to what an item has: its id and the columns of candidates."""
    item_id = app.requests.role("item_id")
    columns: list[Column] = [c for c in app.requests.columns if c.side == "item" or c.name == item_id]
    return app.requests.model_copy(update={"columns": tuple(columns)})


def load_catalogue(app: App, path: Path) -> Catalogue:
    """The catalogue in a file: Parquet, or newline-delimited JSON.

    Raises:
        ContractError: no such file, another format, or as `Catalogue`.
    """
    read = _READ.get(path.suffix)
    if read is None:
        raise ContractError(f"{path}: a catalogue is a .parquet or .ndjson file, or kafka://host:port/topic")
    try:
        items = read(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"{path}: cannot be read as a catalogue ({error})") from error
    return Catalogue(app, items, str(path))


def _typed(contract: DataContract, items: pl.DataFrame, item_id: str, where: str) -> pl.DataFrame:
    """The items with all columns of the contract, in its order and with its types."""
    schema: dict[str, Any] = contract.schema_
    for name in items.columns:
        if name not in schema:
            raise ContractError(f"{where}: no candidate has the column '{name}'; it may have {', '.join(schema)}")
    if item_id not in items.columns:
        raise ContractError(f"{where}: lacks the column '{item_id}', by which items are known; add it")
    try:
        return items.select(
            pl.col(name).cast(dtype) if name in items.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in schema.items()
        )
    except pl.exceptions.PolarsError as error:
        raise ContractError(f"{where}: a column has another type than its contract says ({error})") from error
