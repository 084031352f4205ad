"""Negative down-sampling that repeats itself: the hash of the impression id decides, never chance."""

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import polars as pl
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection

from contracts.app import App
from contracts.buckets import SEED, hash_expr
from contracts.events import FATES
from contracts.segments import Role
from nodes.delayed import counts_once
from nodes.join import Settled

_SEED = SEED ^ 0x5A3  # its own: the same hash would tie the sample to buckets and shards
_CORRECTION = pl.col("role") == Role.CORRECTION.value


@dataclass(frozen=True, slots=True)
class Sampled:
    """What stays, and what does not."""

    kept: pl.DataFrame  #: the examples' columns, then `weight` and `kept_rate` (f32)
    dropped: pl.DataFrame  #: the examples' columns


def sample(examples: pl.DataFrame, app: App) -> Sampled:
    """Keep every positive and `sampling.negative_keep_rate` of the negatives.

    With `correction = "weight"` a kept negative weighs 1 / rate; with "logit" all weigh 1 and training shifts the
    logit instead. `kept_rate` is the rate of the row's own class either way.

    A row's weight is one over its chance of being kept, so the expected sum of any loss over rows stays what it was:
    also in the delayed `labels.mode`s, where a kept correction may follow a dropped negative, and all negatives of one
    impression stay or go together.

    Args:
        examples: with `label` and the app's impression id.
        app: its `sampling` section.

    >>> from contracts.app import load_app
    >>> app = load_app("adsim", {"sampling": {"negative_keep_rate": 0.25}})
    >>> rows = pl.DataFrame({"impression_id": [f"i{n}" for n in range(8)], "label": [1] + [0] * 7})
    >>> sample(rows, app).kept.select("impression_id", "weight").rows()
    [('i0', 1.0), ('i4', 4.0), ('i7', 4.0)]
    """
    sampling = app.config.sampling
    rate = sampling.negative_keep_rate
    negative = pl.col("label") == 0
    weight = 1 / rate if sampling.correction == "weight" else 1.0
    kept = examples
    if rate < 1:
        # The hash as a fraction of 2^64, compared as integers: exact, the same everywhere.
        chosen = hash_expr(pl.col(app.impressions.role("impression_id")), _SEED) < pl.lit(
            min(round(rate * 2**64), 2**64 - 1), pl.UInt64
        )
        kept = examples.filter(~negative | chosen)
    dropped = examples.filter(negative & ~chosen) if rate < 1 else examples.clear()
    return Sampled(
        kept.with_columns(
            weight=pl.when(negative).then(weight).otherwise(1.0).cast(pl.Float32),
            kept_rate=pl.when(negative).then(rate).otherwise(1.0).cast(pl.Float32),
        ),
        dropped,
    )


class _Sample(beam.DoFn):
    def __init__(self, app: App) -> None:
        self._app = app

    def process(self, settled: Settled) -> Iterator[Settled]:
        sampled = sample(settled.examples, self._app)
        fates = settled.fates
        if sampled.dropped.height:
            gone = sampled.dropped.select(origin="_origin", line="_line", stream=pl.lit("impressions"), _gone=True)
            gone = gone.unique()  # one impression may have several rows
            fates = fates.join(gone, on=["stream", "origin", "line"], how="left", maintain_order="left").select(
                *(name for name in FATES if name != "outcome"),
                outcome=pl.when("_gone").then(pl.lit("sampled_out")).otherwise("outcome"),
            )
        once = counts_once(self._app.config.labels.mode)
        examples, corrections = (sampled.kept.filter(rows).height for rows in (once, _CORRECTION))
        Metrics.counter("rocket", "ctr_sample_examples_total").inc(examples)
        Metrics.counter("rocket", "ctr_sample_corrections_total").inc(corrections)
        Metrics.counter("rocket", "ctr_sample_ended_total").inc(sampled.kept.height - examples - corrections)
        Metrics.counter("rocket", "ctr_sample_sampled_out_total").inc(sampled.dropped.filter(once).height)
        yield Settled(sampled.kept, fates)


class SampleNegatives(beam.PTransform[PCollection[Settled], PCollection[Settled]]):
    """Drop negatives by the hash of their impression id; their fates say so."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app

    def expand(self, settled: PCollection[Settled]) -> PCollection[Settled]:
        return settled | "Sample negatives" >> beam.ParDo(_Sample(self._app))
