"""A scorer in one process under load by ids alone: as much as it takes, and at a fixed rate with and without swaps."""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from contracts.app import App
from deploy.benches.peers.serving_case import USER, EndlessVersions, items, messages
from deploy.benches.turns import in_turns, spread
from nodes.catalogue import Catalogue
from nodes.refresh import Refresher
from nodes.score import LightScorer

CANDIDATES = 500
DEPTH = 16  #: requests that wait together
_LOAD = 0.5  # of what the scorer could do, in the open loop
_NEVER_S = 1e6
_ROUNDS = 5
encode = msgspec.json.Encoder().encode


def requests_per_s(app: App, store: EndlessVersions, batches: int) -> float:
    """How many a second are answered, JSON to JSON, where 16 always wait; the median of five rounds.

    Args:
        app: the scorer's.
        store: where its weights come from.
        batches: of 16 in a round, each request of a user never seen before.
    """
    draw = np.random.default_rng(7)
    catalogue, asked = _asked(app, draw)
    scorer, numbers, rates = LightScorer(app, store.fetch(1), catalogue), itertools.count(), list[float]()
    for _ in range(_ROUNDS):
        waiting = [[_new_user(asked, number) for number in itertools.islice(numbers, DEPTH)] for _ in range(batches)]
        began_s = time.perf_counter()
        for batch in waiting:
            for made in scorer.answer(batch, now_ms=0):
                encode(made)
        rates.append(batches * DEPTH / (time.perf_counter() - began_s))
    return float(np.median(rates))


def under_load(app: App, store: EndlessVersions, seconds: float) -> dict[str, Any]:
    """Requests by id at a fixed rate, whatever the answers take: in a steady state, and with a swap every second."""
    catalogue, asked = _asked(app, np.random.default_rng(5))
    found, rate = dict[str, Any](), 0.0
    for name, every_s in (("steady", _NEVER_S), ("during_swaps", 1.0)):
        with Refresher(app, store, every_s=every_s, catalogue=catalogue) as refresher:
            refresher.sample = asked[0]
            if not rate:
                closed = in_turns({"one": lambda: refresher.scorer.answer(asked[:1], now_ms=0)}, 40, lambda: None)
                rate = _LOAD * 1000 / closed["one"]["p50"]
            before = refresher.swaps
            found[name] = _open_loop(refresher, asked, rate, seconds) | {"swaps": refresher.swaps - before}
    return {"requests_per_s": round(rate), **found}


def _open_loop(refresher: Refresher, asked: Sequence[bytes], rate: float, seconds: float) -> dict[str, float]:
    """Latency from when each request was due; those that are due together are answered together."""
    count = int(rate * seconds)
    due_s = time.perf_counter() + 0.05 + np.arange(count) / rate
    took_s = np.empty(count)
    done = 0
    while done < count:
        now = time.perf_counter()
        if now < due_s[done]:
            time.sleep(due_s[done] - now)
            continue
        stop = min(int(np.searchsorted(due_s, now, "right")), done + DEPTH)
        batch = [asked[number % len(asked)] for number in range(done, stop)]
        with refresher.hold() as scorer:
            for made in scorer.answer(batch, now_ms=0):
                encode(made)
        took_s[done:stop] = time.perf_counter() - due_s[done:stop]
        done = stop
    return spread(took_s * 1e3)


def _asked(app: App, draw: np.random.Generator) -> tuple[Catalogue, list[bytes]]:
    """A catalogue, and requests that name its items by id alone."""
    known = items(app, draw)
    names = known["item_id"].to_list()
    drawn = [[{"item_id": names[at]} for at in draw.integers(0, len(names), CANDIDATES)] for _ in range(4 * DEPTH)]
    return Catalogue(app, known), messages(app, len(drawn), drawn, draw)


def _new_user(asked: Sequence[bytes], number: int) -> bytes:
    return asked[number % len(asked)].replace(USER, b"user-%d" % (1 << 40 | number))
