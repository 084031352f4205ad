"""Streaming features in log order, point in time: a row sees only labels settled before its own event time."""

import io
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import ipc

from contracts.app import App
from contracts.buckets import hash_expr
from contracts.errors import ContractError, CorruptError, SchemaMismatchError
from contracts.features import STATEFUL, Feature
from contracts.segments import column_type
from nodes.features.cross import SEPARATOR
from nodes.featurize import featurize
from nodes.streaming.batch import NO_KEY
from nodes.streaming.decayed import DecayedEvidence
from nodes.streaming.evidence import Evidence
from nodes.streaming.recent import RecentItems

_PENDING_TIME, _PENDING_LABEL = "event_time_ms", "label"


class StreamingFeatures:
    """The `count`, `rate` and `recent` features of an app, computed over its log.

    Impression j counts for impression i only if `event_time_j + wait + delay <= event_time_i`: its label had settled by
    then, so neither a row's own label nor a later one can leak (the feature's `delay_s` is 0 unless it says otherwise).
    Whatever the cuts, the values are the same, because the state is integers, or sums in the log's order. A null in a
    key column means no evidence: count and rate 0, recent empty.

    * count: log1p of the settled impressions with the same key.
    * rate: log of the smoothed click rate, (clicks + prior x strength) / (impressions + strength), less log(prior);
      0 without evidence. Rows lost to negative sampling are not counted, so choose `prior` as in the sampled log.
    * With a `half_life_s`, impressions and clicks fade by half in every such time since they began to count: impression
      j is worth 2^(-(event_time_i - wait - delay - event_time_j) / half-life) to impression i.
    * recent: the last `length` clicked (`clicked = false`: shown) items of the key, oldest first.

    The state holds the rows of one wait and delay (about 40 bytes a row) and, for each different key ever settled, 32
    bytes a set of key columns and 24 + 4 x length bytes a `recent` feature (8 x length where the items own their rows):
    it grows with the keys, not with the rows.
    With a half-life there are 56 bytes a set of key columns, for the keys of the last 32 to 64 half-lives alone.
    """

    def __init__(self, app: App, *, corrected: bool = False) -> None:
        """The features of `app`; `corrected` where labels may change within the wait, its last millisecond included."""
        self._schema_id, self._wait_ms = app.schema_id, round(app.config.labels.wait_s * 1000) + corrected
        self._counts_ms = self._wait_ms - corrected  # the age from which a row fades: the same in every mode of labels
        self._of_impression = ["_of"] if corrected else []
        self._time = app.impressions.role("event_time")
        self._features = tuple(feature for feature in app.features if feature.kind in STATEFUL)
        self._keys = tuple(dict.fromkeys(feature.columns for feature in self._features))
        self._delays = tuple(dict.fromkeys(_delay_ms(feature) for feature in self._features))
        recent = [feature for feature in self._features if feature.kind == "recent"]
        named = {feature.name: feature for feature in app.features}
        self._of = tuple(named[name] for name in dict.fromkeys(str(feature.of) for feature in recent))
        self._wide = {feature.name for feature in self._of if feature.dynamic is not None}
        self._reset()

    def _reset(self) -> None:
        counters = [feature for feature in self._features if feature.kind != "recent"]
        self._evidence = {(f.columns, _delay_ms(f)): Evidence() for f in counters if not _half_life_ms(f)}
        fading = dict.fromkeys((f.columns, _delay_ms(f), _half_life_ms(f)) for f in counters if _half_life_ms(f))
        self._decayed = {key: DecayedEvidence(key[2]) for key in fading}
        recent = [feature for feature in self._features if feature.kind == "recent"]
        self._recent = {f.name: RecentItems(f.length, wide=f.of in self._wide) for f in recent}
        # by delay: rows that do not count yet, in log order
        self._pending: dict[int, list[pl.DataFrame]] = {delay_ms: [] for delay_ms in self._delays}
        self._last_ms: int | None = None

    @property
    def names(self) -> list[str]:
        """The features that `push` gives, in table order."""
        return [feature.name for feature in self._features]

    def push(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The streaming features of the next rows of the log.

        Args:
            frame: the impressions' columns and `label` (0 or 1), in order of event time, after all rows pushed so far.

        Returns:
            One column a streaming feature, in table order; rows as they came.

        Raises:
            ContractError: the rows are not in order, or a column that a feature needs is absent.
        """
        if not frame.height or not self._features:
            types = {f.name: column_type(f.output, dynamic=f.of in self._wide) for f in self._features}
            return pl.DataFrame(schema=types)
        self._check(frame)
        new = frame.select(
            pl.col(self._time).alias(_PENDING_TIME),
            pl.col("label").cast(pl.Int64).alias(_PENDING_LABEL),
            *(_key(columns).alias(_key_name(columns)) for columns in self._keys),
            *self._of_impression,
        ).with_columns(featurize(frame, self._of).rename(_item_name))
        times = new[_PENDING_TIME].to_numpy()
        made: dict[str, pl.Series] = {}
        for delay_ms in self._delays:
            settling = self._settled_by(new, int(times[-1]), delay_ms)
            seen_ms = times - self._wait_ms - delay_ms
            num_settled = np.searchsorted(settling[_PENDING_TIME].to_numpy(), seen_ms, side="right")
            made |= self._computed(settling, num_settled, new, delay_ms)
        return pl.DataFrame([made[name] for name in self.names])

    def correct(self, impressions: pl.Series) -> None:
        """Make rows positive that have not settled: those whose `_of` (u64, beside the columns pushed) is given."""
        if impressions.len():
            clicked = pl.col("_of").is_in(impressions.implode())
            label = pl.when(clicked).then(1).otherwise(pl.col(_PENDING_LABEL)).cast(pl.Int64)
            for delay_ms, frames in self._pending.items():
                self._pending[delay_ms] = [frame.with_columns(label.alias(_PENDING_LABEL)) for frame in frames]

    def _check(self, frame: pl.DataFrame) -> None:
        for column in dict.fromkeys([self._time, "label", *(name for columns in self._keys for name in columns)]):
            if column not in frame.columns:
                raise ContractError(f"streaming features need the column '{column}'; push the joined impressions")
        times = frame[self._time]
        first = times[0]
        if not times.is_sorted() or (self._last_ms is not None and first < self._last_ms):
            raise ContractError(
                "streaming features need rows in order of event time, and after those pushed before "
                f"({first} came after {self._last_ms}); order the rows first"
            )
        self._last_ms = int(times[-1])

    def _settled_by(self, new: pl.DataFrame, now_ms: int, delay_ms: int) -> pl.DataFrame:
        """Take from the pending rows (the new ones too) those that count at `now_ms` where `delay_ms` is waited."""
        pending = self._pending[delay_ms]
        pending.append(new)
        settled: list[pl.DataFrame] = [new.clear()]
        due_ms = now_ms - self._wait_ms - delay_ms
        while pending and pending[0][_PENDING_TIME][0] <= due_ms:
            chunk = pending.pop(0)
            rows = int(chunk[_PENDING_TIME].search_sorted(due_ms, side="right"))
            settled.append(chunk.head(rows))
            if rows < chunk.height:
                pending.insert(0, chunk.slice(rows))
        return pl.concat(settled)

    def _computed(
        self, settling: pl.DataFrame, num_settled: np.ndarray, new: pl.DataFrame, delay_ms: int
    ) -> dict[str, pl.Series]:
        """The features of one delay, by name."""
        at_ms, label = settling[_PENDING_TIME].to_numpy(), settling[_PENDING_LABEL].to_numpy()
        keys = {
            columns: (settling[_key_name(columns)].to_numpy(), new[_key_name(columns)].to_numpy())
            for columns in self._keys
        }
        seen: dict[tuple[tuple[str, ...], int], tuple[np.ndarray, np.ndarray]] = {}
        for (columns, waited_ms), evidence in self._evidence.items():
            if waited_ms == delay_ms:
                settled, asking = keys[columns]
                seen[columns, 0] = evidence.push(settled, label, num_settled, asking)
        now_ms = new[_PENDING_TIME].to_numpy() - self._counts_ms - delay_ms
        for (columns, waited_ms, half_life_ms), decayed in self._decayed.items():
            if waited_ms == delay_ms:
                settled, asking = keys[columns]
                seen[columns, half_life_ms] = decayed.push(settled, at_ms, label, num_settled, asking, now_ms)
        made = {}
        for feature in (f for f in self._features if _delay_ms(f) == delay_ms):
            if feature.kind == "recent":
                settled, asking = keys[feature.columns]
                items = settling[_item_name(str(feature.of))].to_numpy()
                counts = label > 0 if feature.clicked else np.ones(len(label), np.bool_)
                lists = self._recent[feature.name].push(settled, items, counts, num_settled, asking)
                made[feature.name] = lists.alias(feature.name)
            else:
                made[feature.name] = _dense(feature, *seen[feature.columns, _half_life_ms(feature)])
        return made

    def state(self) -> bytes:
        """Everything that later rows depend on, as an Arrow IPC file; the same rows give the same bytes."""
        tables = {_evidence_name(*key): evidence.table() for key, evidence in self._evidence.items()}
        now_ms = (self._last_ms or 0) - self._counts_ms
        tables |= {_decayed_name(*key): decayed.table(now_ms - key[1]) for key, decayed in self._decayed.items()}
        tables |= {f"recent {name}": recent.table() for name, recent in self._recent.items()}
        tables["last"] = pl.DataFrame({"event_time_ms": [self._last_ms]}, schema={"event_time_ms": pl.Int64})
        tables |= {_pending_name(delay): pl.concat(frames) for delay, frames in self._pending.items() if frames}
        return _bytes(
            pl.DataFrame(
                {"name": [f"schema_id {self._schema_id}", *tables], "table": [b"", *map(_bytes, tables.values())]}
            )
        )

    def restore(self, state: bytes) -> None:
        """Go on from a `state()`.

        Raises:
            SchemaMismatchError: it was written for another feature table.
            CorruptError: it is not a whole state.
        """
        try:
            rows: dict[str, bytes] = dict(_table(state).select("name", "table").iter_rows())
            found = next(name for name in rows if name.startswith("schema_id ")).split(" ")[1]
            tables = {name: _table(data) for name, data in rows.items() if data}
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError, StopIteration) as error:
            raise CorruptError(f"state of the streaming features: not whole ({error}); use an earlier one") from error
        if found != self._schema_id:
            raise SchemaMismatchError(
                f"state of the streaming features: written for schema_id {found}, but the app has {self._schema_id}; "
                "ingest the events again, or use the app that wrote it"
            )
        self._reset()
        try:
            for key, evidence in self._evidence.items():
                evidence.restore(tables[_evidence_name(*key)])
            for counted, decayed in self._decayed.items():
                decayed.restore(tables[_decayed_name(*counted)])
            for name, recent in self._recent.items():
                recent.restore(tables[f"recent {name}"])
            self._last_ms = tables["last"].item()
        except (KeyError, pl.exceptions.PolarsError) as error:
            raise CorruptError(f"state of the streaming features: lacks {error}; use an earlier one") from error
        for delay_ms, frames in self._pending.items():
            frames += [tables[name] for name in (_pending_name(delay_ms),) if name in tables]


def _dense(feature: Feature, impressions: np.ndarray, clicks: np.ndarray) -> pl.Series:
    # Polars takes logarithms one value at a time: the same bits wherever a row stands in its batch.
    shown = pl.Series(feature.name, impressions).cast(pl.Float64)
    if feature.kind == "count":
        return shown.log1p().cast(pl.Float32)
    rate = (pl.Series(clicks).cast(pl.Float64) + feature.prior * feature.strength) / (shown + feature.strength)
    return (rate / feature.prior).log().cast(pl.Float32).alias(feature.name)


def _key(columns: Sequence[str]) -> pl.Expr:
    """64-bit hash of the columns together; `NO_KEY` where one is null."""
    joined = pl.concat_str([pl.col(name).cast(pl.String) for name in columns], separator=SEPARATOR, ignore_nulls=False)
    return hash_expr(joined).fill_null(pl.lit(NO_KEY, pl.UInt64))


def _key_name(columns: Sequence[str]) -> str:
    return "key " + ",".join(columns)


def _delay_ms(feature: Feature) -> int:
    return round(feature.delay_s * 1000)


def _half_life_ms(feature: Feature) -> int:
    """0 where evidence never fades."""
    return round((feature.half_life_s or 0) * 1000)


def _evidence_name(columns: Sequence[str], delay_ms: int) -> str:
    return f"evidence {_key_name(columns)}" + (f" after {delay_ms}" if delay_ms else "")


def _decayed_name(columns: Sequence[str], delay_ms: int, half_life_ms: int) -> str:
    return f"{_evidence_name(columns, delay_ms)} half-life {half_life_ms}"


def _pending_name(delay_ms: int) -> str:
    return f"pending after {delay_ms}" if delay_ms else "pending"


def _item_name(of: str) -> str:
    return "item " + of


def _bytes(frame: pl.DataFrame) -> bytes:
    # Arrow's writer leaves out empty validity bitmaps and slack, so equal frames give equal bytes.
    table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    sink = io.BytesIO()
    with ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _table(data: bytes) -> pl.DataFrame:
    table = ipc.open_file(pa.py_buffer(data)).read_all()
    table.validate(full=True)
    return pl.DataFrame(table)
