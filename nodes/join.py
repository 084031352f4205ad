"""Impressions and clicks become labelled examples: the incremental core, free of Beam.

Whatever order and cuts the events come in, the union of what `Joiner.settle` gives is the same: rivals are ordered by
event time, then by the hash of their bytes, never by arrival.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from contracts.app import App
from contracts.events import FATES, ORIGIN, Fate

_ROW = ("_hash", "_origin", "_line")  # breaks ties of event time
_ACCEPTED = {"_id": pl.String(), "_at": pl.Int64(), "_hash": pl.UInt64(), "_clicked": pl.Boolean()}
_NO_FATES = pl.DataFrame(schema=FATES)
_NEVER, _END = -(2**62), 2**62  # before and after all event times


@dataclass(frozen=True, slots=True)
class Settled:
    """What one `settle` decided."""

    examples: pl.DataFrame  #: contract columns of accepted impressions, `_origin`, `_line`, then `label` (u8)
    fates: pl.DataFrame  #: FATES rows of events decided now; an accepted impression's comes with its example


class Joiner:
    """Gives each impression the label of its click, in event time.

    * The first impression of an id is accepted, those up to `dedupe_ms` after it are duplicates, the first beyond is
      accepted anew.
    * A click belongs to the accepted impression of its id with the greatest event time at most `disorder_ms` after the
      click (clocks differ). None, or one more than `dedupe_ms` ago: an orphan. More than `wait_ms` ago: late. Of
      the others the first is accepted, the rest are repeats.
    * An impression is settled once `wait_ms` have passed. Where `dedupe_ms` is so short that a new impression of the
      id could still claim its last clicks, `disorder_ms` more.

    State: the impressions of one wait whole, and ids and times of those of the last `dedupe_ms` + `disorder_ms`.

    >>> from contracts.app import load_app
    >>> from contracts.events import ORIGIN
    >>> app = load_app("adsim")
    >>> def rows(contract, **columns):
    ...     schema = contract.schema_ | ORIGIN
    ...     return pl.DataFrame(
    ...         {"_late": False, "_line": 0, "_hash": 0, "_origin": "f", **columns}, strict=False
    ...     ).select(
    ...         pl.col(name).cast(kind) if name in {*columns, *ORIGIN} else pl.lit(None, kind).alias(name)
    ...         for name, kind in schema.items()
    ...     )
    >>> joiner = Joiner(app)
    >>> joiner.add(
    ...     rows(app.impressions, impression_id=["a", "b"], event_time_ms=[0, 5]),
    ...     rows(app.clicks, click_id=["c"], impression_id=["b"], event_time_ms=[900]),
    ... )
    >>> joiner.settle(None).examples.select("impression_id", "label").rows()
    [('a', 0), ('b', 1)]
    """

    def __init__(self, app: App) -> None:
        labels, ingest = app.config.labels, app.config.ingest
        self.wait_ms = round(labels.wait_s * 1000)
        self.disorder_ms = round(ingest.disorder_s * 1000)
        self.dedupe_ms = max(self.wait_ms, round(labels.dedupe_s * 1000))
        claimed = self.dedupe_ms < self.wait_ms + self.disorder_ms
        self.settle_after_ms = self.wait_ms + (self.disorder_ms if claimed else 0)
        self._id, self._at = app.impressions.role("impression_id"), app.impressions.role("event_time")
        self._click_id = app.clicks.role("click_id")
        self._of, self._clicked_at = app.clicks.role("impression_id"), app.clicks.role("event_time")
        impressions, clicks = app.impressions.schema_ | ORIGIN, app.clicks.schema_ | ORIGIN
        self._undecided = pl.DataFrame(schema=impressions).drop("_late")  # shown after the last settle
        self._waiting = self._undecided.clear()  # accepted, not yet settled
        self._accepted = pl.DataFrame(schema=_ACCEPTED)  # each accepted impression that an event to come may meet
        self._clicks = pl.DataFrame(schema=clicks).drop("_late")  # not yet decided
        self._dropped: list[pl.DataFrame] = []  # fates of what `add` refused
        self._due_ms = _NEVER

    def add(self, impressions: pl.DataFrame | None, clicks: pl.DataFrame | None) -> None:
        """Take events: contract columns, then the ORIGIN columns; any rows, in any order.

        What its origin calls late, and what comes at or before a time already settled, is given a fate and dropped.
        """
        if impressions is not None:
            rows = self._in_time(impressions, "impressions", self._id, self._at)
            self._undecided = pl.concat([self._undecided, rows.select(self._undecided.columns)])
        if clicks is not None:
            rows = self._in_time(clicks, "clicks", self._click_id, self._clicked_at)
            self._clicks = pl.concat([self._clicks, rows.select(self._clicks.columns)])

    def settle(self, due_ms: int | None) -> Settled:
        """Decide all that event time allows.

        Args:
            due_ms: no event at or before it is still to come (a watermark, less one millisecond); None: no event at
                all. A time before an earlier one decides nothing new.
        """
        due_ms = _END if due_ms is None else max(due_ms, self._due_ms)
        self._due_ms = due_ms
        fates, self._dropped = self._dropped, []
        fates.append(self._accept(due_ms))
        ripe = pl.col(self._at) + self.settle_after_ms <= due_ms
        settling, self._waiting = self._waiting.filter(ripe), self._waiting.filter(~ripe)
        fates.append(self._decide_clicks(due_ms))
        examples = settling.join(
            self._accepted.select("_id", "_at", label="_clicked"),
            left_on=[self._id, self._at],
            right_on=["_id", "_at"],
            how="left",
            maintain_order="left",
        ).with_columns(pl.col("label").cast(pl.UInt8))
        fates.append(self._fates(settling, "impressions", Fate.ACCEPTED, outcome=pl.lit("example")))
        self._accepted = self._accepted.filter(pl.col("_at") + self.dedupe_ms + self.disorder_ms > due_ms)
        return Settled(examples, pl.concat(fates))

    @property
    def idle(self) -> bool:
        """Nothing waits for a later `settle`."""
        return not (self._undecided.height or self._waiting.height or self._clicks.height or self._dropped)

    def state(self) -> dict[str, pl.DataFrame]:
        """Everything it remembers, to be given to `restore`."""
        due = pl.DataFrame({"due_ms": [self._due_ms]}, schema={"due_ms": pl.Int64()})
        frames = {"undecided": self._undecided, "waiting": self._waiting, "accepted": self._accepted}
        return frames | {"clicks": self._clicks, "dropped": pl.concat([_NO_FATES, *self._dropped]), "due": due}

    def restore(self, state: dict[str, pl.DataFrame]) -> None:
        """Go on from a `state`."""
        self._undecided, self._waiting = state["undecided"], state["waiting"]
        self._accepted, self._clicks = state["accepted"], state["clicks"]
        self._dropped, self._due_ms = [state["dropped"]], int(state["due"].item())

    def _in_time(self, rows: pl.DataFrame, stream: str, name: str, at: str) -> pl.DataFrame:
        """The rows that are not late; the others' fates are kept for the next settle."""
        behind = pl.col(at) <= self._due_ms
        late = rows.filter(pl.col("_late") | behind)
        if late.height:
            reason = pl.when("_late").then(pl.lit("behind_disorder")).otherwise(pl.lit("behind_watermark"))
            self._dropped.append(self._fates(late, stream, Fate.LATE, reason))
        return rows.filter(~(pl.col("_late") | behind)) if late.height else rows

    def _accept(self, due_ms: int) -> pl.DataFrame:
        """Accept the first impression of each id, and the first beyond `dedupe_ms` after it; the duplicates' fates."""
        due = pl.col(self._at) <= due_ms
        now, self._undecided = self._undecided.filter(due), self._undecided.filter(~due)
        keys = now.select(pl.col(self._id).alias("_id"), pl.col(self._at).alias("_at"), *_ROW).with_row_index("_row")
        before = self._accepted.join(keys, on="_id", how="semi").select("_id", "_at", "_hash")
        rivals = pl.concat([before, keys], how="diagonal").sort("_id", "_at", *_ROW)
        accepted = _spaced(rivals, self.dedupe_ms)
        judged = rivals.with_columns(accepted, _kept_hash=pl.when(accepted).then("_hash").forward_fill()).filter(
            pl.col("_row").is_not_null()
        )
        new = judged.filter("_accepted")
        self._accepted = pl.concat([self._accepted, new.select("_id", "_at", "_hash", _clicked=pl.lit(value=False))])
        self._waiting = pl.concat([self._waiting, now[new["_row"]]])
        repeats = judged.filter(~pl.col("_accepted"))
        same = pl.when(pl.col("_hash") == pl.col("_kept_hash")).then(pl.lit("same_payload"))
        rows = now[repeats["_row"]].with_columns(repeats.select(_reason=same.otherwise(pl.lit("other_payload"))))
        return self._fates(rows, "impressions", Fate.DUPLICATE, pl.col("_reason"))

    def _decide_clicks(self, due_ms: int) -> pl.DataFrame:
        """The fates of the clicks whose impression is known for sure; marks the impressions that they make positive."""
        met = (
            self._clicks.with_columns(_reach=pl.col(self._clicked_at) + self.disorder_ms)
            .sort("_reach")
            .join_asof(
                self._accepted.select("_id", "_at", "_clicked").sort("_at"),
                left_on="_reach",
                right_on="_at",
                by_left=self._of,
                by_right="_id",
                strategy="backward",
                coalesce=False,
                check_sortedness=False,
            )
        )
        after = pl.col(self._clicked_at) - pl.col("_at")
        settling = (pl.col("_at") + self.settle_after_ms <= due_ms) & (after <= self.wait_ms)
        sure = (pl.col("_reach") <= due_ms) | settling.fill_null(value=False)
        self._clicks = met.filter(~sure).select(self._clicks.columns)
        judged = (
            met.filter(sure)
            .sort(self._clicked_at, *_ROW)
            .with_columns(
                _why=pl.when(after.is_null() | (after > self.dedupe_ms))
                .then(pl.lit("no_impression"))
                .when(after > self.wait_ms)
                .then(pl.lit("after_wait"))
                .otherwise(pl.lit("repeated_click"))
            )
            .with_columns(_first=pl.int_range(pl.len()).over(self._of, "_at") == 0)
            .with_columns(_wins=(pl.col("_why") == "repeated_click") & pl.col("_first") & ~pl.col("_clicked"))
        )
        won = judged.filter("_wins").select(_id=self._of, _at="_at", _won=pl.lit(value=True))
        self._accepted = self._accepted.join(won, on=["_id", "_at"], how="left", maintain_order="left").select(
            "_id", "_at", "_hash", _clicked=pl.col("_clicked") | pl.col("_won").fill_null(value=False)
        )
        fate = pl.col("_why").replace_strict(
            {"no_impression": Fate.ORPHAN.value, "after_wait": Fate.LATE.value, "repeated_click": Fate.DUPLICATE.value},
            return_dtype=pl.String,
        )
        wins = pl.col("_wins")
        return self._fates(
            judged,
            "clicks",
            pl.when(wins).then(pl.lit(Fate.ACCEPTED.value)).otherwise(fate),
            pl.when(~wins).then("_why"),
        )

    def _fates(
        self,
        rows: pl.DataFrame,
        stream: str,
        fate: Fate | pl.Expr,
        reason: pl.Expr | None = None,
        outcome: pl.Expr | None = None,
    ) -> pl.DataFrame:
        name, at = (self._id, self._at) if stream == "impressions" else (self._click_id, self._clicked_at)
        nothing = pl.lit(None, pl.String)
        return rows.select(
            stream=pl.lit(stream),
            origin="_origin",
            line="_line",
            id=name,
            event_time_ms=at,
            fate=pl.lit(fate.value) if isinstance(fate, Fate) else fate,
            reason=nothing if reason is None else reason,
            outcome=nothing if outcome is None else outcome,
        )


def _spaced(rows: pl.DataFrame, gap_ms: int) -> pl.Series:
    """`_accepted`: the first row of each `_id`, and each first row more than `gap_ms` after an accepted one.

    Rows come sorted by `_id`, `_at`.
    """
    ids = rows["_id"]
    accepted = (ids != ids.shift(1)).fill_null(value=True).alias("_accepted")
    repeated = rows.select("_id", "_at", _place=pl.int_range(pl.len())).filter(~ids.is_unique())
    if not repeated.height:
        return accepted
    # Each row points at the first row of its id beyond the gap; then every chain is followed from its head at once.
    firsts = repeated.unique(["_id", "_at"], keep="first", maintain_order=True).sort("_at")
    beyond = repeated.select("_id", "_place", _after=pl.col("_at") + gap_ms + 1).sort("_after").join_asof(
        firsts.select("_id", "_at", _next="_place"),
        left_on="_after", right_on="_at", by="_id", strategy="forward", check_sortedness=False,
    )  # fmt: skip
    follows = np.full(rows.height, -1, np.int64)
    follows[beyond["_place"].to_numpy()] = beyond["_next"].fill_null(-1).to_numpy()
    taken = accepted.to_numpy().copy()
    heads = np.flatnonzero(taken)
    while (heads := follows[heads])[heads >= 0].size:
        heads = heads[heads >= 0]
        taken[heads] = True
    return pl.Series("_accepted", taken)
