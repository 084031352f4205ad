"""One run of the simulator: chunk by chunk from the seed to the files."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import ContractError
from nodes.simulate.effects import Drift, Floats, Ints
from nodes.simulate.faults import DAMAGES, Faults, Sent, send
from nodes.simulate.history import Histories
from nodes.simulate.ordered_file import OrderedFile
from nodes.simulate.world import ADS, CTR, HISTORY, POSITIONS, SITES, USERS, Rows, World

_VIEWS = 16_384  # page views a chunk
_VIEW_SIZES = (0.4, 0.3, 0.2, 0.1)  # of 1, 2, 3 and 4 ads
_FIRST_CLICKS = 12
_MOST_DAYS = 3650.0
#: Click delays in seconds: share, median and sigma of each log-normal part.
DELAYS = ((0.854, 8.0, 1.0), (0.14, 60.0, 0.7), (0.006, 1500.0, 0.7))
_TRUTH = pa.schema([("impression_id", pa.large_string()), ("p_truth", pa.float64()), ("event_time_ms", pa.int64())])


class _Run:
    """What moves from chunk to chunk."""

    def __init__(self, out: Path, impressions: int, seed: int, days: float, faults: Faults, drift: Drift) -> None:
        seeds = np.random.SeedSequence(seed).spawn(5)
        of_world, self._traffic, self._noise, of_impressions, of_clicks = (
            np.random.Generator(np.random.SFC64(each)) for each in seeds
        )
        self.world = World(of_world, days, drift)
        self.faults, self.total, self.done = faults, impressions, 0
        self._histories = Histories(*self.world.first_clicks(of_world, _FIRST_CLICKS))
        self._people, self._adverts = self.world.people_frame(), self.world.adverts_frame()
        self._advert_json, self._place_json = _inner(self._adverts), _inner(self.world.places_frame())
        self.end_ms = int(self.world.times(np.ones(1))[0])
        span_ms = days * 86_400_000
        # 30 events lie between in the quietest hour, so that a late one is certainly behind
        self._lag_ms = max(120_000.0, 30 * span_ms / impressions / 0.4)
        self._click_lag_ms = max(120_000.0, 30 * span_ms / (impressions * CTR) / 0.4)
        self.impressions = OrderedFile(out / "impressions.ndjson", of_impressions, faults.malformed)
        self.clicks = OrderedFile(out / "clicks.ndjson", of_clicks, faults.malformed)
        self.counts = dict.fromkeys(
            ("clicks", "impressions_duplicate", "impressions_late", "clicks_duplicate", "clicks_late", "clicks_orphan"),
            0,
        )

    def chunks(self) -> Iterator[pa.Table]:
        """Write chunk after chunk; gives the truth of each."""
        while self.done < self.total:
            sizes = self._traffic.choice(len(_VIEW_SIZES), _VIEWS, p=_VIEW_SIZES) + 1
            first = np.cumsum(sizes) - sizes
            keep = self.done + first < self.total
            sizes, first = sizes[keep], first[keep]
            sizes[-1] = min(int(sizes[-1]), self.total - self.done - int(first[-1]))
            quantile = (self.done + first + self._traffic.random(len(first)) * sizes) / self.total
            rows = self.world.sample(self._traffic, quantile, sizes)
            number = self.done + np.arange(len(rows.user))
            self.done += len(number)
            last = self.done >= self.total
            next_ms = None if last else int(self.world.times(np.array([self.done / self.total]))[0])
            yield self._chunk(rows, number, next_ms)

    def _chunk(self, rows: Rows, number: Ints, next_ms: int | None) -> pa.Table:
        truth = 1 / (1 + np.exp(-self.world.logit(rows)))
        names = _numbered("i", number)
        sent = send(self._noise, self.faults, rows.time_ms, lag_ms=self._lag_ms, end_ms=self.end_ms)
        self.impressions.add(self._lines(rows, names, sent), sent.arrival_ms, until_ms=next_ms)
        self.counts["impressions_duplicate"] += int(sent.repeated.sum())
        self.counts["impressions_late"] += int(sent.late.sum())
        self._click(rows, number, truth, sent.late, next_ms)
        frame = pl.DataFrame({"impression_id": names, "p_truth": truth, "event_time_ms": rows.time_ms})
        # by way of Polars: given NumPy arrays, pyarrow would import pandas, a second of CPU
        return frame.to_arrow(compat_level=pl.CompatLevel.oldest())

    def _lines(self, rows: Rows, names: pl.Series, sent: Sent) -> pl.Series:
        history = self._histories.column(int(rows.time_ms.min()), self._adverts["item_id"])
        people_json = _inner(self._people.with_columns(history=history))
        event = sent.event
        place = (rows.device * SITES + rows.site) * POSITIONS + rows.position
        frame = pl.DataFrame(
            {
                "name": names.gather(event),
                "time": rows.time_ms[event] + sent.shift_ms,
                "person": people_json.gather(rows.user[event]),
                "place": self._place_json.gather(place[event]),
                "advert": self._advert_json.gather(rows.ad[event]),
            }
        )
        return frame.select(
            pl.concat_str(
                pl.lit('{"impression_id":"'), "name", pl.lit('","event_time_ms":'), "time", pl.lit(","), "person",
                pl.lit(","), "place", pl.lit(","), "advert", pl.lit("}\n"),
            )
        ).to_series()  # fmt: skip

    def _click(self, rows: Rows, number: Ints, truth: Floats, unseen: Any, next_ms: int | None) -> None:
        """Draw the clicks of a chunk and send them."""
        rng, faults = self._noise, self.faults
        hit = np.flatnonzero(rng.random(len(truth)) < truth)
        delay_ms = _delays(rng, len(hit))
        time_ms = rows.time_ms[hit] + delay_ms
        self._histories.clicked(rows.user[hit], rows.ad[hit], time_ms)
        # of a click that does not count anyway, the faults would not be seen
        lost = unseen[hit] | (delay_ms > faults.dedupe_s * 1000)
        too_late = ~lost & (delay_ms > faults.wait_s * 1000)
        spared = lost | (delay_ms > faults.wait_s * 1000 - 5000)
        sent = send(rng, faults, time_ms, lag_ms=self._click_lag_ms, end_ms=self.end_ms, spared=spared)
        stray = np.flatnonzero(rng.random(len(hit)) < faults.orphans)
        known = _clicks("k", "i", number[hit][sent.event], time_ms[sent.event] + sent.shift_ms, sent.shift_ms > 0)
        strays = _clicks("s", "x", number[hit][stray], time_ms[stray], np.zeros(len(stray), np.bool_))
        arrival = np.concatenate([sent.arrival_ms, time_ms[stray]])
        self.clicks.add(pl.concat([known, strays]), arrival, until_ms=next_ms)
        self.counts["clicks"] += len(hit)
        self.counts["clicks_duplicate"] += int(sent.repeated.sum())
        self.counts["clicks_late"] += int(sent.late.sum()) + int(too_late.sum())
        self.counts["clicks_orphan"] += len(stray) + int(lost.sum())

    def expected(self) -> dict[str, dict[str, int]]:
        """What ingest must find in each stream."""
        found: dict[str, dict[str, int]] = {}
        proper = {"impressions": self.total, "clicks": self.counts["clicks"]}
        for stream, file in (("impressions", self.impressions), ("clicks", self.clicks)):
            fates = {
                name: self.counts[f"{stream}_{name}"]
                for name in ("duplicate", "late", "orphan")
                if f"{stream}_{name}" in self.counts
            }
            found[stream] = {"read": file.lines, **fates, "dead_lettered": file.damaged}
            found[stream]["accepted"] = file.lines - file.damaged - sum(fates.values())
            found[stream]["proper"] = proper[stream]
        return found


def simulate(
    out: Path,
    *,
    impressions: int = 300_000,
    seed: int = 1,
    days: float = 5.0,
    rates: Faults = Faults(),  # noqa: B008 (frozen)
    drift: Drift = Drift(),  # noqa: B008 (frozen)
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write simulated traffic: impressions.ndjson, clicks.ndjson, truth.parquet and simulation.json.

    The same arguments give the same bytes. Memory is bounded, whatever the number of impressions.

    Args:
        out: the folder to write into; made if it is missing.
        impressions: how many ads are shown (faults come on top).
        seed: of everything random.
        days: event time that the log spans.
        rates: how much goes wrong.
        drift: how fast and how far what is liked changes.
        on_progress: told how many impressions are written, and of how many.

    Returns:
        What simulation.json holds: the parameters, and what ingest must find in each stream.

    Raises:
        ContractError: a parameter makes no sense, or the folder cannot be written.
    """
    if impressions < 1 or not 0 < days <= _MOST_DAYS or seed < 0:
        raise ContractError(
            f"simulate: impressions = {impressions}, days = {days}, seed = {seed}: "
            f"give at least 1 impression, 0 < days <= {_MOST_DAYS:.0f} and a seed of 0 or more"
        )
    faults = rates.checked()
    try:
        out.mkdir(parents=True, exist_ok=True)
        run = _Run(out, impressions, seed, days, faults, drift.checked())
        with run.impressions, run.clicks, pq.ParquetWriter(out / "truth.parquet", _TRUTH) as truth:
            for part in run.chunks():
                truth.write_table(part)
                if on_progress is not None:
                    on_progress(run.done, impressions)
        summary: dict[str, Any] = {
            "parameters": {
                "impressions": impressions,
                "seed": seed,
                "days": days,
                **asdict(faults),
                "drift": asdict(drift),
            },
            "world": {"users": USERS, "ads": ADS, "sites": SITES, "history": HISTORY, "target_ctr": CTR},
            "damages": list(DAMAGES),
            "impressions": run.impressions.lines,
            "clicks": run.clicks.lines,
            "ctr": run.counts["clicks"] / impressions,
            "expected": run.expected(),
        }
        (out / "simulation.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ContractError(f"{out}: cannot be written ({error}); choose another folder") from error
    return summary


def _inner(frame: pl.DataFrame) -> pl.Series:
    """Each row as a JSON object without its braces."""
    return pl.Series(frame.write_ndjson().splitlines()).str.slice(1).str.head(-1)


def _numbered(prefix: str, number: Ints) -> pl.Series:
    return pl.select(pl.lit(prefix) + pl.Series(number).cast(pl.String).str.zfill(10)).to_series()


def _clicks(prefix: str, of: str, number: Ints, time_ms: Ints, again: Any) -> pl.Series:
    frame = pl.DataFrame({"number": number, "time": time_ms, "again": again}).select(
        number=pl.col("number").cast(pl.String).str.zfill(10),
        time="time",
        again=pl.when("again").then(pl.lit("r")).otherwise(pl.lit("")),
    )
    return frame.select(
        pl.concat_str(
            pl.lit(f'{{"click_id":"{prefix}'), "number", "again",
            pl.lit(f'","impression_id":"{of}'), "number",
            pl.lit('","event_time_ms":'), "time", pl.lit("}\n"),
        )
    ).to_series()  # fmt: skip


def _delays(rng: np.random.Generator, count: int) -> Ints:
    """Milliseconds from impression to click."""
    share, median, sigma = (np.array(column) for column in zip(*DELAYS, strict=True))
    part = rng.choice(len(DELAYS), count, p=share)
    return 1 + (np.exp(np.log(median[part]) + sigma[part] * rng.standard_normal(count)) * 1000).astype(np.int64)
