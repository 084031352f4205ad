"""Impressions and clicks become labelled examples: the incremental core, free of Beam.

Whatever order and cuts the events come in, the union of what `Joiner.settle` gives is the same: rivals are ordered by
event time, then by the hash of their bytes, never by arrival.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl

from contracts.app import App
from contracts.events import FATES, ORIGIN, Fate
from nodes.accepted import Accepted, spaced
from nodes.delayed import LogRows
from nodes.time_rows import TimeRows

_ROW = ("_hash", "_origin", "_line")  # breaks ties of event time
_NO_FATES = pl.DataFrame(schema=FATES)
_NEVER, _END = -(2**62), 2**62  # before and after all event times


@dataclass(frozen=True, slots=True)
class Settled:
    """What one `settle` decided."""

    examples: (
        pl.DataFrame
    )  #: contract columns of accepted impressions, `_hash`, `_origin`, `_line`, `nodes.delayed.ROW`
    fates: pl.DataFrame  #: FATES rows of events decided now; an accepted impression's comes with its first example


class Joiner:
    """Gives each impression the label of its click, in event time.

    * The first impression of an id is accepted, those up to `dedupe_ms` after it are duplicates, the first beyond is
      accepted anew.
    * A click belongs to the accepted impression of its id with the greatest event time at most `disorder_ms` after the
      click (clocks differ). None, or one more than `dedupe_ms` ago: an orphan. More than `wait_ms` ago: late. Of
      the others the first is accepted, the rest are repeats.
    * An impression is settled once `wait_ms` have passed. Where `dedupe_ms` is so short that a new impression of the
      id could still claim its last clicks, `disorder_ms` more. With another `labels.mode` than `wait` the log is told
      sooner, and again (`nodes.delayed`).
    * A row comes out at most `settle_after_ms` of event time after its place in the log (`_log_ms`); whoever begins
      anew reads again what is `remember_ms` older than the next row's place, and no older.

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
        self._hold_ms = self.disorder_ms if claimed else 0  # until nothing can claim the click of an earlier moment
        self._id, self._at = app.impressions.role("impression_id"), app.impressions.role("event_time")
        self._click_id = app.clicks.role("click_id")
        self._of, self._clicked_at = app.clicks.role("impression_id"), app.clicks.role("event_time")
        self._log = LogRows(labels, self._at)
        self.settle_after_ms = self._log.lag_ms + self._hold_ms
        self.remember_ms = self.wait_ms + self._hold_ms
        impressions, clicks = app.impressions.schema_ | ORIGIN, app.clicks.schema_ | ORIGIN
        shown = pl.DataFrame(schema=impressions).drop("_late")
        self._undecided = TimeRows(shown, self._at, self.disorder_ms // 8)  # shown after the last settle
        self._waiting = TimeRows(shown, self._at, self.wait_ms // 8)  # accepted, the log not yet told
        self._told = shown  # as negatives, and their click may still come
        # Each accepted impression that an event to come may meet, and the click of those that may get no other.
        self._accepted = Accepted(self.dedupe_ms + self.disorder_ms, self.wait_ms + self.disorder_ms)
        self._clicks = pl.DataFrame(schema=clicks).drop("_late")  # not yet decided
        self._dropped: list[pl.DataFrame] = []  # fates of what `add` refused
        self._due_ms = _NEVER

    def add(self, impressions: pl.DataFrame | None, clicks: pl.DataFrame | None) -> None:
        """Take events: contract columns, then the ORIGIN columns; any rows, in any order.

        What its origin calls late, and what comes at or before a time already settled, is given a fate and dropped.
        """
        if impressions is not None:
            rows = self._in_time(impressions, "impressions", self._id, self._at)
            self._undecided.add(rows)
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
        sure_ms = due_ms - self._hold_ms
        fates.append(self._decide_clicks(due_ms, sure_ms))
        settling = self._waiting.take(sure_ms - self._log.first_ms)
        examples = self._log.first(self._with_clicks(settling))
        fates.append(self._fates(settling, "impressions", Fate.ACCEPTED, outcome=pl.lit("example")))
        if self._log.follows:
            examples = pl.concat([examples, *self._follow(settling, examples["label"] == 0, sure_ms)])
        self._accepted.forget(due_ms)
        return Settled(examples, pl.concat(fates))

    def _with_clicks(self, shown: pl.DataFrame) -> pl.DataFrame:
        """Impressions with the `_clicked_at` that is known of them."""
        of, keys = [self._id, self._at], ["_id", "_at"]
        clicked = self._accepted.find(shown[self._id]).select(*keys, "_clicked_at")
        return shown.join(clicked, left_on=of, right_on=keys, how="left", maintain_order="left")

    def _follow(self, settling: pl.DataFrame, negative: pl.Series, sure_ms: int) -> list[pl.DataFrame]:
        """What the log is told of impressions that it knows as negatives; these join them."""
        told = self._with_clicks(pl.concat([self._told, settling.filter(negative)]))
        clicked, over = pl.col("_clicked_at").is_not_null(), pl.col(self._at) + self.wait_ms <= sure_ms
        self._told = told.filter(~clicked & ~over).drop("_clicked_at")
        ended = told.filter(~clicked & over)
        return [self._log.corrected(told.filter(clicked)), self._log.ended(ended if self._log.ends else ended.clear())]

    def prime(self, ids: pl.Series, times: pl.Series) -> None:
        """Remember impressions as accepted at these event times, and settled: what repeats them is a duplicate.

        Before the first `settle`. Their bytes are not known: a duplicate's reason is `payload_unknown`.
        """
        self._accepted.add(pl.DataFrame({"_id": ids, "_at": times}).with_columns(_hash=pl.lit(None, pl.UInt64)))

    @property
    def next_ms(self) -> int | None:
        """The first time at which `settle` may decide something more; None: not before another event comes."""
        if self._dropped:
            return self._due_ms
        clicked = self._clicks[self._clicked_at]
        found: list[tuple[Any, int]] = [
            (self._undecided.least_ms, 0),
            (self._waiting.least_ms, self._log.first_ms + self._hold_ms),
            (self._told[self._at].min(), self.wait_ms + self._hold_ms),
            (clicked.filter(clicked + self._hold_ms > self._due_ms).min(), self._hold_ms),
            (clicked.min(), self.disorder_ms),
        ]
        return min((at + later for at, later in found if at is not None), default=None)

    @property
    def forgets_ms(self) -> int | None:
        """The first time at which `settle` remembers no accepted impression any more; None: it remembers none."""
        newest = self._accepted.newest_ms
        return None if newest is None else newest + self.dedupe_ms + self.disorder_ms

    @property
    def idle(self) -> bool:
        """Nothing waits for a later `settle`."""
        held = (self._undecided.height, self._waiting.height, self._told.height, self._clicks.height)
        return not any(held) and not self._dropped

    def state(self) -> dict[str, pl.DataFrame]:
        """Everything it remembers, to be given to `restore`."""
        due = pl.DataFrame({"due_ms": [self._due_ms]}, schema={"due_ms": pl.Int64()})
        frames = {"undecided": self._undecided.all(), "waiting": self._waiting.all(), "told": self._told}
        frames |= {"accepted": self._accepted.table()}
        return frames | {"clicks": self._clicks, "dropped": pl.concat([_NO_FATES, *self._dropped]), "due": due}

    def restore(self, state: dict[str, pl.DataFrame]) -> None:
        """Go on from a `state`."""
        self._dropped, self._due_ms = [state["dropped"]] if state["dropped"].height else [], int(state["due"].item())
        self._undecided.restore(state["undecided"])
        self._waiting.restore(state["waiting"])
        self._accepted.restore(state["accepted"], self._due_ms)
        self._told, self._clicks = state["told"], state["clicks"]

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
        now = self._undecided.take(due_ms)
        if not now.height:
            return _NO_FATES
        keys = now.select(pl.col(self._id).alias("_id"), pl.col(self._at).alias("_at"), *_ROW).with_row_index("_row")
        before = self._accepted.find(keys["_id"]).select("_id", "_at", "_hash")
        rivals = pl.concat([before, keys], how="diagonal").sort("_id", "_at", *_ROW)
        accepted = spaced(rivals, self.dedupe_ms)
        kept = pl.when(accepted).then(pl.int_range(pl.len())).forward_fill()  # the place of each row's accepted rival
        judged = rivals.with_columns(accepted, _kept_hash=pl.col("_hash").gather(kept)).filter(
            pl.col("_row").is_not_null()
        )
        new = judged.filter("_accepted")
        self._accepted.add(new)
        self._waiting.add(now[new["_row"]])
        if new.height == now.height:
            return _NO_FATES
        repeats = judged.filter(~pl.col("_accepted"))
        same = pl.when(pl.col("_hash") == pl.col("_kept_hash")).then(pl.lit("same_payload"))
        other = (
            pl.when(pl.col("_kept_hash").is_null()).then(pl.lit("payload_unknown")).otherwise(pl.lit("other_payload"))
        )
        rows = now[repeats["_row"]].with_columns(repeats.select(_reason=same.otherwise(other)))
        return self._fates(rows, "impressions", Fate.DUPLICATE, pl.col("_reason"))

    def _decide_clicks(self, due_ms: int, sure_ms: int) -> pl.DataFrame:
        """The fates of the clicks whose impression is known for sure; marks the impressions that they make positive.

        A click no later than `sure_ms` within the wait of its impression can be claimed by no other one.
        """
        soon_ms = max(due_ms - self.disorder_ms, sure_ms)
        if not (self._clicks[self._clicked_at] <= soon_ms).any():
            return _NO_FATES
        met = (
            self._clicks.with_columns(_reach=pl.col(self._clicked_at) + self.disorder_ms)
            .sort("_reach")
            .join_asof(
                self._accepted.find(self._clicks[self._of]).select("_id", "_at", "_clicked_at").sort("_at"),
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
        unclaimed = (pl.col(self._clicked_at) <= sure_ms) & (after <= self.wait_ms)
        sure = (pl.col("_reach") <= due_ms) | unclaimed.fill_null(value=False)
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
            .with_columns(
                _wins=(pl.col("_why") == "repeated_click") & pl.col("_first") & pl.col("_clicked_at").is_null()
            )
        )
        self._accepted.click(judged.filter("_wins").select(_id=self._of, _at="_at", _won=self._clicked_at))
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
        if not rows.height:
            return _NO_FATES
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
