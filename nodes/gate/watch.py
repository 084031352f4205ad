"""Rows are looked at before anything learns them: what was learnt from rows that cannot be believed goes nowhere."""

import numpy as np
import polars as pl

from contracts.app import App
from nodes.gate.features import REMEMBERED, FeatureWatch
from nodes.gate.judge import Fault
from nodes.gate.labels import LabelSums, prior_of, shift

#: Rows are judged a slice at a time, and for their label rate the newest slices together too.
SLICE_ROWS = 256
#: So many rows tell what is usual.
PAST_ROWS = REMEMBERED * SLICE_ROWS
#: Windows after which what was believed counts half as much in the reference.
_HALF_LIFE_WINDOWS = 16


class Watch:
    """The label rate and the features of the log, slice by slice, against what was believed before.

    A slice that is not believed does not enter the reference, and holds every candidate until
    `publish.gate.distrust_windows` windows of believed rows have followed it: those candidates have learnt it, or are
    judged on it. By then a net that it harmed has been taught better; the comparison with the live version judges
    whether that is so.

    Args:
        app: features, `publish.gate`, `serving.prior_ctr`, and the label mode: where labels are corrected later, the
            rate means nothing before a whole wait has passed.
    """

    def __init__(self, app: App) -> None:
        settings = app.config.publish.gate
        self._settings, self._labels = settings, app.config.labels
        self._columns = ["event_time_ms", *(feature.name for feature in app.features)]
        self._slice_rows = min(SLICE_ROWS, settings.window_rows)
        self._decay = 0.5 ** (self._slice_rows / (_HALF_LIFE_WINDOWS * settings.window_rows))
        self._prior = prior_of(app.config.serving.prior_ctr)
        self._features = FeatureWatch(app.features, settings)
        self.anew()

    def anew(self) -> None:
        """Forget the reference: whoever published by force says that traffic has changed."""
        self._reference = LabelSums()  # of believed slices
        self._waiting: list[pl.DataFrame] = []  # rows that do not fill a slice yet
        self._waiting_labels: list[tuple[np.ndarray, np.ndarray]] = []
        self._newest: pl.DataFrame | None = None  # the slice before those
        self._recent: list[LabelSums] = []  # of the newest slices: together they show that clicks no longer come
        self._rates_from_ms: int | None = None
        self._fault: Fault | None = None
        self._believed_rows = 0  # since the last slice that was not
        self._features.forget()

    @property
    def fault(self) -> Fault | None:
        """Why no candidate of now may go live; None when the rows that it rests on are believed."""
        return self._fault

    @property
    def reference_rate(self) -> float | None:
        """The label rate that is believed; None before there is one."""
        return self._reference.rate if self._reference.weight > 0 else None

    def observe(self, rows: pl.DataFrame, label: np.ndarray, weight: np.ndarray) -> pl.DataFrame | None:
        """Look at the next rows of the log.

        Args:
            rows: columns of `contracts.segments.example_schema`, [B].
            label: 0 or 1, of the rows as they are judged (`nodes.delayed.judged`), [J].
            weight: what each of those counts, [J].

        Returns:
            The slice that they complete (event time and features), where it is believed; None while it is not whole,
            or is not believed.
        """
        self._waiting.append(rows.select(self._columns))
        self._waiting_labels.append((label, weight))
        if sum(part.height for part in self._waiting) < self._slice_rows:
            return None
        whole = pl.concat(self._waiting)
        labels, weights = (np.concatenate(parts) for parts in zip(*self._waiting_labels, strict=True))
        self._waiting, self._waiting_labels, self._newest = [], [], whole
        return whole if self._believe(whole, LabelSums.of(labels, weights)) else None

    def look_again(self) -> Fault | None:
        """Look at the newest rows wherever a slice ends, then say why no candidate of now may go live; None: it may."""
        parts = self._waiting if self._newest is None else [self._newest, *self._waiting]
        newest = pl.concat(parts).tail(self._slice_rows) if parts else None
        if newest is not None and newest.height == self._slice_rows:
            fault = self._features.fault(self._features.figures(newest), newest.height)
            if fault is None and self._rates_count(newest):
                fault = self._fault_of(sum((LabelSums.of(*labels) for labels in self._waiting_labels), LabelSums()))
            if fault is not None:
                self._fault, self._believed_rows = fault, 0
        return self._fault

    def _believe(self, rows: pl.DataFrame, sums: LabelSums) -> bool:
        figures = self._features.figures(rows)
        fault = self._features.fault(figures, rows.height) or self._shifted(rows, sums)
        if fault is not None:
            self._fault, self._believed_rows, self._recent = fault, 0, []
            return False
        self._features.believe(figures)
        if self._rates_count(rows):
            self._reference = self._reference.decayed(self._decay) + sums
        self._believed_rows += rows.height
        if self._believed_rows >= self._settings.distrust_windows * self._settings.window_rows:
            self._fault = None
        return True

    def _shifted(self, rows: pl.DataFrame, sums: LabelSums) -> Fault | None:
        if not self._rates_count(rows):
            return None
        most = max(self._settings.distrust_windows * self._settings.window_rows // self._slice_rows, 1)
        self._recent = [*self._recent, sums][-most:]
        together = sum(self._recent, LabelSums())
        for part in (sums, together):
            fault = self._fault_of(part)
            if fault is not None:
                return fault
        return None

    def _fault_of(self, sums: LabelSums) -> Fault | None:
        if self._reference.size >= self._settings.window_rows:
            found, limit, usual = shift(sums, self._reference), self._settings.max_label_shift, "from the rows before"
            rate = self._reference.rate
        else:
            found, limit, usual = shift(sums, self._prior), self._settings.max_prior_shift, "serving.prior_ctr"
            rate = self._prior.rate
        if abs(found) <= limit:
            return None
        return Fault(
            "labels",
            f"the label rate is {sums.rate:.4f} in {sums.size:,.0f} rows, where {rate:.4f} is usual ({usual}): at "
            f"least {abs(found):.2f} logits off; mend the labels, or publish with --force if traffic really changed",
        )

    def _rates_count(self, rows: pl.DataFrame) -> bool:
        """Whether label rates mean something yet: corrected labels start low and rise for a whole wait."""
        if self._labels.mode == "wait":
            return True
        if self._rates_from_ms is None:
            self._rates_from_ms = int(rows["event_time_ms"][0]) + round(self._labels.wait_s * 1000)
        return int(rows["event_time_ms"][-1]) >= self._rates_from_ms
