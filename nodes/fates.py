"""The ledger's rows for events that never reach the join."""

import polars as pl

from contracts.events import FATES, Fate


def dead_fates(dead: pl.DataFrame) -> pl.DataFrame:
    """One FATES row a dead letter; its id and time are unknown.

    Args:
        dead: DEAD_LETTERS columns.

    >>> from contracts.events import DEAD_LETTERS
    >>> letter = {"stream": "clicks", "origin": "f", "line": 3, "reason": "not_json"}
    >>> row = pl.DataFrame([letter | {"detail": "", "raw": b"{", "raw_bytes": 1}], schema=DEAD_LETTERS)
    >>> dead_fates(row).select("line", "fate", "reason").rows()
    [(3, 'dead_lettered', 'not_json')]
    """
    told = dead.select("stream", "origin", "line", "reason", fate=pl.lit(Fate.DEAD_LETTERED.value))
    return pl.concat([pl.DataFrame(schema=FATES), told], how="diagonal")
