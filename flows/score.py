"""A file of ad requests is answered with one published version.

requests.ndjson ─▶ read, check, featurize, light net ─▶ answers.ndjson + one row a candidate (.parquet)
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from contracts.app import App
from contracts.errors import ContractError
from contracts.stores import WeightStore
from nodes.clock import now_ms
from nodes.files import write_whole, write_whole_frame
from nodes.light_numpy import one_thread
from nodes.score import LightScorer
from nodes.scored import SCORES, Scored

#: Requests answered together where nobody waits for them.
MICRO_BATCH = 128
#: Requests answered one by one, each timed, spread evenly over the file.
TIMED = 300


def score_rows(scorer: LightScorer, requests: Sequence[bytes], *, at_ms: int) -> pl.DataFrame:
    """One row a candidate: request_id, candidate, item_id, pctr, logit, model_version.

    Args:
        scorer: of one version.
        requests: JSON, one each.
        at_ms: tells a stale version.
    """
    return scorer.score(requests, now_ms=at_ms).frame()


def run(
    app: App,
    requests: Path,
    store: WeightStore,
    out: Path,
    *,
    version: int | None = None,
    clock_ms: Callable[[], int] = now_ms,
) -> dict[str, Any]:
    """Answer every request of a file; write the answers whole, and the scores beside them as Parquet.

    Evenly spread over the file, up to 300 requests are answered one by one and timed: `p50_us` and `p99_us` are what
    a single request takes from its bytes to its response, `p50_us_per_candidate` the same divided by its candidates.
    The others are answered 128 at a time.

    Args:
        app: whose requests they are.
        requests: newline-delimited JSON.
        store: where the version lies.
        out: answers as newline-delimited JSON; `out.with_suffix(".parquet")` has one row a candidate.
        version: which one; the current one by default.
        clock_ms: tells a stale version.

    Raises:
        ContractError: the file cannot be read.
        StoreError: no such version. CorruptError, SchemaMismatchError: it cannot be believed.
    """
    messages = _lines(requests)
    scorer = LightScorer(app, store.fetch(version))
    encode = msgspec.json.Encoder().encode
    answers: list[bytes] = []
    frames = [pl.DataFrame(schema=SCORES)]
    took_us: list[float] = []
    per_candidate_us: list[float] = []
    refused = {"requests": 0, "candidates": 0}
    codes: dict[str, int] = {}
    started = time.perf_counter()
    with one_thread():
        if messages:
            scorer.score(messages[:1], now_ms=clock_ms())  # warm-up
        for first, last in _cuts(len(messages)):
            before = time.perf_counter()
            scored = scorer.score(messages[first:last], now_ms=clock_ms())
            after = time.perf_counter()
            if last - first == 1:
                took_us.append((after - before) * 1e6)
                per_candidate_us.append(took_us[-1] / max(1, scored.pctr.size))
            answers += map(encode, scored.responses)
            frames.append(scored.frame())
            _count(scored, refused, codes)
    rows = pl.concat(frames)
    write_whole(out, b"".join(answer + b"\n" for answer in answers))
    write_whole_frame(out.with_suffix(".parquet"), rows)
    return {
        "requests": len(messages),
        "candidates": rows.height,
        "refused": refused,
        "refusal_codes": dict(sorted(codes.items())),
        "model_version": scorer.version,
        "schema_id": app.schema_id,
        "timed_requests": len(took_us),
        "p50_us": _quantile(took_us, 0.50),
        "p99_us": _quantile(took_us, 0.99),
        "p50_us_per_candidate": _quantile(per_candidate_us, 0.50),
        "wall_seconds": time.perf_counter() - started,
    }


def _lines(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error}); give a file with one JSON request a line") from error
    lines = data.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def _cuts(count: int) -> Iterator[tuple[int, int]]:
    """Where the file is cut: one by one now and then, the rest in micro-batches.

    >>> list(_cuts(2))
    [(0, 1), (1, 2)]
    >>> list(_cuts(60_000))[:3]
    [(0, 1), (1, 129), (129, 200)]
    """
    stride = max(1, -(-count // TIMED))
    for start in range(0, count, stride):
        end = min(start + stride, count)
        yield start, start + 1
        for first in range(start + 1, end, MICRO_BATCH):
            yield first, min(first + MICRO_BATCH, end)


def _count(scored: Scored, refused: dict[str, int], codes: dict[str, int]) -> None:
    found = [response.error.code for response in scored.responses if response.error]
    refused["requests"] += len(found)
    for response in scored.responses if scored.asked.refused else ():
        reasons = [score.refused.partition(":")[0] for score in response.scores if score.refused]
        refused["candidates"] += len(reasons)
        found += reasons
    for code in found:
        codes[code] = codes.get(code, 0) + 1


def _quantile(values: list[float], at: float) -> float | None:
    return round(float(np.quantile(values, at)), 1) if values else None
