"""One candidate at a time is examined; what is known of the log and of the live version stays between them."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from contracts.app import App
from nodes.delayed import judged
from nodes.gate.canary import Canary, NewestExamples, RequestFile, Scores, Shift, judge_scores, shift_of
from nodes.gate.judge import Fault, judge
from nodes.gate.norms import norms, outgrown
from nodes.gate.watch import Watch
from nodes.gate.window import Window
from nodes.light_numpy import LightNet, chance, one_thread

Figures = dict[str, float | str | None]
Arrays = Mapping[str, np.ndarray]


class _Net:
    """A version as the gate scores it."""

    def __init__(self, app: App, arrays: Arrays, link: str) -> None:
        self.net, self.arrays, self.link = LightNet(app.layout, arrays), arrays, link

    def chances(self, rows: pl.DataFrame) -> np.ndarray:
        return chance(self.net.logits(rows), self.link)


class Examiner:
    """All that stands between a candidate and the store.

    Args:
        app: its `publish.gate` section holds the limits.

    Raises:
        ContractError: the canary file cannot be used.
    """

    def __init__(self, app: App) -> None:
        self._app, self._settings = app, app.config.publish.gate
        self._watch = Watch(app)
        self._newest = NewestExamples(app, self._settings.canary_rows)
        file = self._settings.canary
        self._canary: Canary = self._newest if file is None else RequestFile(app, file, self._settings.canary_rows)
        self._candidate: _Net | None = None
        self._live: _Net | None = None
        self._live_norms: dict[str, float] = {}
        self._on_candidate, self._on_live = Window(), Window()
        self._shift: Shift | None = None

    def live_is(self, arrays: Arrays | None, link: str = "sigmoid") -> None:
        """What answers requests from now on: a version's dequantised arrays; None: the app's prior CTR."""
        self._live = None if arrays is None else _Net(self._app, arrays, link)
        self._live_norms = {} if arrays is None else norms(arrays)

    def believe_anew(self) -> None:
        """Somebody published by force: what the log looked like before is no reference any more."""
        self._watch.anew()

    def begin(self, arrays: Arrays) -> Fault | None:
        """A candidate's dequantised arrays: judged from now on, or refused at once.

        Raises:
            CorruptError: they do not fit the app's features.
        """
        self._on_candidate, self._on_live, self._shift = Window(), Window(), None
        self._candidate = _Net(self._app, arrays, self._app.config.labels.link)
        return outgrown(arrays, self._live_norms, self._settings)

    def end(self) -> None:
        """No candidate is judged any more."""
        self._candidate = None

    def observe(self, frame: pl.DataFrame) -> bool:
        """Rows about to be learnt: the log is watched, and a candidate scored; True when its window is full.

        Args:
            frame: columns of `contracts.segments.example_schema`.
        """
        at, label, sign = judged(frame, self._app.config.labels.mode)
        believed = self._watch.observe(frame, label, self._weight(frame)[at] * sign)
        if believed is not None:
            self._newest.add(believed)
        if self._candidate is None:
            return False
        rows = frame.head(self._settings.window_rows - self._on_candidate.rows)
        if rows.height < frame.height:
            at, label, sign = judged(rows, self._app.config.labels.mode)
        weight = self._weight(rows)[at] * sign
        with one_thread():
            self._on_candidate.add(label, self._candidate.chances(rows)[at], weight)
            prior = np.full(label.size, self._app.config.serving.prior_ctr)
            self._on_live.add(label, prior if self._live is None else self._live.chances(rows)[at], weight)
        return self._on_candidate.rows >= self._settings.window_rows

    def verdict(self) -> Fault | None:
        """Why the candidate must be held, as far as its window goes; None when it may go live."""
        return self._watch.look_again() or self._compared()

    def _compared(self) -> Fault | None:
        live_is_version = self._live is not None
        fault = judge(self._on_candidate, self._on_live, self._settings, live_is_version=live_is_version)
        if fault is not None or self._candidate is None:
            return fault
        with one_thread():
            mine = self._canary.scores(self._candidate.arrays, self._candidate.link)
            same_link = self._live is not None and self._live.link == self._candidate.link
            before: Scores | None = None
            if self._live is not None and same_link:
                before = self._canary.scores(self._live.arrays, self._live.link)
        self._shift = shift_of(mine, before, self._candidate.link)
        better = self._on_candidate.logloss < self._on_live.logloss
        return judge_scores(self._shift, self._settings, better=better)

    def figures(self) -> Figures:
        """All that was found out about the candidate; None where it could not be."""
        on, live, shift = self._on_candidate, self._on_live, self._shift
        found: Figures = {
            "window_rows": float(on.rows),
            "logloss": on.logloss if on.rows else None,
            "calibration": on.calibration,
            "max_abs_logit": on.max_abs_logit,
            "label_rate": on.clicks / on.weight if on.weight else None,
            "label_reference": self._watch.reference_rate,
            "ne": on.ne if on.rows else None,
            "live_ne": live.ne if live.rows else None,
            "live_logloss": live.logloss if live.rows else None,
            "live_calibration": live.calibration,
            "score_spread": None if shift is None else shift.spread,
            "score_shift": None if shift is None else shift.mean_abs,
            "score_psi": None if shift is None else shift.psi,
            "rank_correlation": None if shift is None else shift.rank_correlation,
            "saturated": None if shift is None else shift.saturated,
        }
        for name, value in found.items():  # JSON has no NaN
            found[name] = value if value is None or np.isfinite(float(value)) else None
        return found

    def _weight(self, rows: pl.DataFrame) -> np.ndarray:
        """What each row counts for, so that the window looks like unsampled traffic."""
        logit = self._app.config.sampling.correction == "logit"
        weight = pl.col("weight") / pl.col("kept_rate") if logit else pl.col("weight")
        return rows.select(weight.cast(pl.Float64)).to_series().to_numpy()
