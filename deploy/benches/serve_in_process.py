"""The scorer in one process: the net alone, whole requests from JSON to JSON, and a steady load with and without swaps.

500 candidates, 26 fields x 16, a 64-32 tower, one thread on every side. Results are compared before times are.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import torch

from contracts.app import App
from contracts.errors import RocketError
from deploy.benches.peers.serving import NaiveScorer, TorchLight, onnx_light, torch_booster
from deploy.benches.peers.serving_case import FIELDS, USER, WIDTH, EndlessVersions, items, messages, serving_app
from deploy.benches.serve_under_load import CANDIDATES, DEPTH, encode, requests_per_s, under_load
from deploy.benches.turns import in_turns
from nodes.catalogue import Catalogue
from nodes.item_vectors import ItemVectors
from nodes.light_numpy import LightNet, one_thread
from nodes.request_side import LightSides
from nodes.score import LightScorer

_TOLERANCE = 1e-5


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001
    """Ratios above 1 are in favour of the scorer; times are milliseconds.

    Args:
        quick: a 4 MB model instead of 50 MB, few repeats.
    """
    app = serving_app(60_000 if quick else 730_000)
    repeats = 30 if quick else 400
    store = EndlessVersions(app)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_thread(), torch.inference_mode():
            net = _net_alone(app, store, repeats)
            whole = _whole_requests(app, store, max(repeats // 2, 20))
            per_s = requests_per_s(app, store, 20 if quick else 120)
            load = under_load(app, store, 3.0 if quick else 20.0)
    finally:
        torch.set_num_threads(threads)
    p50 = {name: spread["p50"] for name, spread in (net | whole).items()}
    return {
        "precomputed_vs_torch": p50["torch"] / p50["precomputed"],
        "precomputed_vs_onnxruntime": p50["onnxruntime"] / p50["precomputed"],
        "split_vs_torch": p50["torch"] / p50["split"],
        "split_vs_onnxruntime": p50["onnxruntime"] / p50["split"],
        "full_json_p50_ms": p50["full_json"],
        "full_json_vs_naive": p50["naive_json"] / p50["full_json"],
        "full_json_not_remembered_p50_ms": p50["full_json_not_remembered"],
        "full_json_not_remembered_vs_naive": p50["naive_json"] / p50["full_json_not_remembered"],
        "ids_only_per_s": per_s,
        "candidates": CANDIDATES,
        "fields": FIELDS,
        "table_mb": round(4 * (WIDTH + 1) * app.layout.light_rows / 1e6, 1),
        "repeats": repeats,
        "net_ms": net,
        "json_ms": whole,
        "open_loop_ms": load,
    }


def _net_alone(app: App, store: EndlessVersions, repeats: int) -> dict[str, dict[str, float]]:
    """Looked-up rows to logits on every side; each repeat another user and other candidates."""
    draw = np.random.default_rng(2)
    arrays = store.fetch(1).arrays
    catalogue = Catalogue(app, items(app, draw))
    request = LightSides.of(app).request
    net = LightNet(app.layout, arrays, frozenset(feature.name for feature in request))
    vectors = ItemVectors.of(net, catalogue)
    torch_net, booster = TorchLight(arrays).eval(), torch_booster(arrays["embedding"], FIELDS)
    onnx_net = onnx_light(arrays, FIELDS)
    request_of, nothing = np.zeros(CANDIDATES, np.int64), np.empty((CANDIDATES, 0), np.float32)
    mine = [feature in request for feature in app.layout.light_ids]
    offsets = app.layout.offsets
    cases = []
    for _ in range(20):
        places = draw.integers(0, len(catalogue), CANDIDATES)
        asked = {f.name: draw.integers(0, f.rows, 1).astype(np.uint32) for f in request}
        ids_BF = np.empty((CANDIDATES, FIELDS), np.int64)
        ids_BF[:, mine] = [asked[f.name][0] + offsets[f.name] for f in request]
        ids_BF[:, np.invert(mine)] = vectors.ids_NF[places]
        cases.append((net.request.inputs(asked, 1), places, ids_BF, vectors.ids_NF[places]))
    case = itertools.cycle(cases)
    now = cases[0]

    def turn() -> None:
        nonlocal now
        now = next(case)

    def share() -> tuple[np.ndarray, np.ndarray]:
        return net.row_share(net.request, *now[0])

    sides: dict[str, Callable[[], Any]] = {
        "precomputed": lambda: net.joined(share(), request_of, vectors.first_NK, vectors.wide_N, now[1]),
        "split": lambda: net.joined(share(), request_of, *net.row_share(net.candidate, now[3], nothing)),
        "torch": lambda: torch_net(torch.from_numpy(now[2])),
        "onnxruntime": lambda: onnx_net(now[2]),
        "booster_torch": lambda: booster(torch.from_numpy(now[2])),
    }
    for _ in cases:
        turn()
        found = {name: np.asarray(call()) for name, call in sides.items() if name != "booster_torch"}
        _agree(found)
    return in_turns(sides, repeats, turn)


def _whole_requests(app: App, store: EndlessVersions, repeats: int) -> dict[str, dict[str, float]]:
    """JSON to JSON: full candidates, those not remembered, with values never seen, ids only, and the naive scorer."""
    draw = np.random.default_rng(3)
    weights, known = store.fetch(1), items(app, draw)
    scorer, by_id = LightScorer(app, weights), LightScorer(app, weights, Catalogue(app, known))
    forgetful, surprised = LightScorer(_remembering_none(app), weights), LightScorer(app, weights)
    naive = NaiveScorer(app, weights.arrays)
    rows = known.to_dicts()
    drawn = [[rows[at] for at in draw.integers(0, len(rows), CANDIDATES)] for _ in range(3 * DEPTH)]
    full = messages(app, len(drawn), drawn, np.random.default_rng(4))
    named = [[{"item_id": row["item_id"]} for row in candidates] for candidates in drawn]
    ids_only = messages(app, len(drawn), named, np.random.default_rng(4))
    fresh = [[{c: f"{v}-{n}" for c, v in row.items()} for row in drawn[n % len(drawn)]] for n in range(repeats + 3)]
    new = iter(messages(app, len(fresh), fresh, draw))
    for asked, short in zip(full[:8], ids_only[:8], strict=True):
        answers = [by.answer([asked], now_ms=0)[0] for by in (scorer, forgetful, scorer)]
        answers.append(by_id.answer([short], now_ms=0)[0])
        found = {str(n): np.array([score.pctr for score in made.scores]) for n, made in enumerate(answers)}
        told = msgspec.json.decode(naive.answer(asked))
        _agree(found | {"naive": np.array([score["pctr"] for score in told["scores"]])})
    for asked in full:
        for by in (scorer, forgetful):  # as after some time: devices, categories and items are known, users are not
            by.answer([asked], now_ms=0)
    turns = itertools.count()
    asked_full, asked_short, together = full[0], ids_only[0], ids_only[:DEPTH]

    def turn() -> None:
        nonlocal asked_full, asked_short, together
        at = next(turns)
        user = b"user-%d" % draw.integers(1 << 40)
        asked_full, asked_short = (each[at % len(each)].replace(USER, user) for each in (full, ids_only))
        start = at * DEPTH % len(ids_only)
        together = [each.replace(USER, b"user-%d" % draw.integers(1 << 40)) for each in ids_only[start : start + DEPTH]]

    def answer(by: LightScorer, asked: Sequence[bytes]) -> list[bytes]:
        return [encode(made) for made in by.answer(asked, now_ms=0)]

    sides: dict[str, Callable[[], Any]] = {
        "full_json": lambda: answer(scorer, [asked_full]),
        "full_json_not_remembered": lambda: answer(forgetful, [asked_full]),
        "full_json_all_values_new": lambda: answer(surprised, [next(new)]),
        "naive_json": lambda: naive.answer(asked_full),
        "ids_only": lambda: answer(by_id, [asked_short]),
        f"ids_only_x{DEPTH}": lambda: answer(by_id, together),
    }
    return in_turns(sides, repeats, turn)


def _remembering_none(app: App) -> App:
    serving = app.config.serving.model_copy(update={"remember_candidates": 0})
    return dataclasses.replace(app, config=app.config.model_copy(update={"serving": serving}))


def _agree(found: dict[str, np.ndarray]) -> None:
    first, *others = found.values()
    for name, other in zip(list(found)[1:], others, strict=True):
        apart = float(np.abs(first - other).max())
        if not apart <= _TOLERANCE:
            raise RocketError(
                f"{name} differs from {next(iter(found))} by {apart:g}; the bench compares equal nets only"
            )
