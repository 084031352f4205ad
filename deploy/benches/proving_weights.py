"""Weights of which every version says its number in every score, published by touched rows as live trainers do.

Version 1 sets all rows of the tables. Each later one sets those that its second of training touched, the rows which
some impressions read, and moves the dense weights. A row holds the level of the version that touched it last, so a
score tells of the dense weights and of each row that it reads, which version they are of. What a score must be is
worked out by a replay of what was touched, from feature ids that the code of training makes.

Shapes: R requests, C candidates of each, F id features of the light net, N rows of its tables.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from contracts.app import App
from contracts.features import STATEFUL
from contracts.stores import Record
from nodes.ad_client import read_answer
from nodes.fake_traffic import light_arrays
from nodes.featurize import featurize, fill_serving_defaults

#: Impressions that a version has learnt more than the one before: they touch about 1 % of adsim's rows.
LEARNT = 1500
_PERIOD = 64  # of levels
_STRIDE = 37  # so far a level is from that of the version before: no step of it is small
_AT_ONCE = 100  # requests made into features together
_TOLERANCE = 1e-4  # of a probability; one row of the version before is further off


def rows_read(app: App, lines: Sequence[bytes], items: pl.DataFrame) -> np.ndarray:
    """The table rows that each candidate of each request reads: int32 [R, C, F].

    Args:
        app: whose requests.
        lines: requests whose candidates are ids alone, as many in each.
        items: one row an item, as in a catalogue.
    """
    light = [f for f in app.features if f.only is None and f.kind not in STATEFUL]
    ids, item = app.layout.light_ids, app.requests.role("item_id")
    place = {name: at for at, name in enumerate(items[item].to_list())}
    asked = [msgspec.json.decode(line) for line in lines]
    said = [{**each["user"], **each["context"], "event_time_ms": each["event_time_ms"]} for each in asked]
    schema: dict[str, Any] = {name: kind for name, kind in app.requests.schema_.items() if name not in items.columns}
    requests = pl.DataFrame(said, schema=schema)
    shown = np.array([[place[each[item]] for each in one["candidates"]] for one in asked], np.uint32)
    starts = np.array([app.layout.offsets[feature.name] for feature in ids])
    rows = np.empty((*shown.shape, len(ids)), np.int32)
    for start in range(0, len(lines), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        number = np.arange(len(lines), dtype=np.uint32)[some].repeat(shown.shape[1])
        pairs = pl.concat([requests[number], items[shown[some].ravel()]], how="horizontal")
        made = featurize(fill_serving_defaults(pairs, light), ids)
        rows[some] = (made.to_numpy() + starts).reshape(-1, *rows.shape[1:])
    return rows


def level_of(version: int) -> float:
    """What the rows hold that a version touched: 1/64 to 1, exact in fp16, 27/64 or more from the next one's."""
    return (1 + version * _STRIDE % _PERIOD) / _PERIOD


def touched(rows_RCF: np.ndarray, version: int) -> np.ndarray:
    """The rows that a version sets: those that its impressions read, ascending; of version 1 all are."""
    shown = rows_RCF.reshape(-1, rows_RCF.shape[2])
    some = np.random.default_rng(version).integers(0, len(shown), LEARNT)
    return np.unique(shown[some]).astype(np.int64)


class ProvingArrays:
    """The light net as a trainer holds it, moved from version to version in place.

    Args:
        app: its layout and `model` section give the shapes.
        rows_RCF: as `rows_read` gives them.
    """

    def __init__(self, app: App, rows_RCF: np.ndarray) -> None:
        self.arrays = {name: np.zeros_like(array) for name, array in light_arrays(app).items()}
        self._rows_RCF, self._width = rows_RCF, len(app.layout.light_ids) * app.config.model.embedding_dim
        self.arrays["mlp.1.weight"][:] = 1 / 64
        self.arrays["mlp.2.weight"][:] = -1 / 32

    def move_to(self, version: int) -> np.ndarray:
        """Set what a version sets; gives the rows that it touched."""
        rows = np.arange(len(self.arrays["wide"])) if version == 1 else touched(self._rows_RCF, version)
        self.arrays["embedding"][rows] = level_of(version)
        self.arrays["wide"][rows] = level_of(version) / 64
        self.arrays["bias"][:] = _bias(version)
        self.arrays["mlp.0.weight"][:, : self._width] = _slope(version)
        return rows


class Replay:
    """What every candidate of every request must get from a version.

    Args:
        app: as of `ProvingArrays`.
        rows_RCF: likewise.
    """

    def __init__(self, app: App, rows_RCF: np.ndarray) -> None:
        first, second = app.config.model.light.hidden
        self._gain = app.config.model.embedding_dim * (first / 64) * (second / 32)
        self._rows_RCF, self._version = rows_RCF, 0
        self._level_N = np.zeros(app.layout.light_rows)

    def pctr(self, version: int, request: int) -> np.ndarray:
        """By hand: the sigmoid of the bias, the wide part and two layers of equal units, float64 [C]."""
        if version < self._version:
            self._version = 0
        for number in range(self._version + 1, version + 1):
            self._level_N[slice(None) if number == 1 else touched(self._rows_RCF, number)] = level_of(number)
        self._version = version
        sum_C = self._level_N[self._rows_RCF[request]].sum(axis=1)
        logit_C = _bias(version) + sum_C / 64 - self._gain * _slope(version) * sum_C
        made: np.ndarray = 1 / (1 + np.exp(-logit_C))
        return made


def checked(
    replay: Replay, answers: Sequence[tuple[Record, int]], *, candidates: int, tmax_ms: int
) -> tuple[Counter[str], set[int]]:
    """What answers of the scorer say, how many of them mix versions, and how many left late without a mark.

    Args:
        replay: of the requests that were asked, whose ids are "r" and their number.
        answers: each with the time that its request left, epoch milliseconds.
        candidates: of each request.
        tmax_ms: that each allowed.
    """
    said, versions = Counter[str](), set[int]()
    for made, record, left_ms in sorted(
        ((read_answer(record.value), record, left_ms) for record, left_ms in answers),
        key=lambda each: each[0].model_version or 0,
    ):
        said[made.error.code if made.error else str(made.source)] += 1
        if not made.scores:
            continue
        version = made.model_version or 0
        versions.add(version)
        right = replay.pctr(version, int(str(made.id)[1:]))
        got = np.array([score.pctr for score in made.scores], np.float64)  # a refused one is NaN
        said["mixed"] += len(got) != candidates or not np.allclose(got, right, atol=_TOLERANCE, rtol=0)
        said["late_unmarked"] += record.timestamp_ms > left_ms + tmax_ms
    return said, versions


def _bias(version: int) -> float:
    return level_of(version) - 0.5


def _slope(version: int) -> float:
    """Of the first layer."""
    return (2 + version % 2) / 128
