"""One candidate of one ad request: what each of its features adds to its score.

request ─▶ read, check, featurize ─▶ light net, with and without each feature ─▶ contributions
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from contracts.app import App
from contracts.errors import ContractError, did_you_mean
from nodes.asked import Asked
from nodes.explain import explain
from nodes.featurize import Featurizer, fill_serving_defaults
from nodes.light_numpy import chance, one_thread
from nodes.read_requests import RequestReader
from nodes.request_side import arrays_of


def run(
    app: App,
    request: bytes,
    arrays: Mapping[str, np.ndarray],
    *,
    candidate: str | None = None,
    link: str = "sigmoid",
) -> dict[str, Any]:
    """Take one score apart.

    Args:
        app: whose request it is.
        request: JSON, as the scorer reads it.
        arrays: of a light net (`contracts.weights`).
        candidate: item id; the first candidate by default.
        link: how the net's logits become probabilities.

    Returns:
        item_id, logit, pctr, reference and reference_pctr (every feature missing), contributions: feature, value,
        total, wide, pairs, mlp (in logits; they add up to logit - reference), the largest first.

    Raises:
        ContractError: the request or the candidate is refused, or there is no such candidate.
        CorruptError: the arrays do not fit the app's features.
    """
    reader = RequestReader(app)
    asked = reader.read([request])
    problem = asked.problems[0]
    if problem is not None:
        raise ContractError(f"the request is refused: {problem.code}: {problem.detail}")
    at = _place(asked, candidate)
    frame = pl.concat([asked.requests, asked.candidates[at]], how="horizontal")
    features = (*reader.sides.request, *reader.sides.item, *reader.sides.mixed)
    filled, featurize = fill_serving_defaults(frame, features), Featurizer(features)
    nothing = filled.select(pl.lit(None, dtype).alias(name) for name, dtype in filled.schema.items())
    with one_thread():
        told = explain(app.layout, arrays, arrays_of(featurize(filled)), arrays_of(featurize(nothing)))
    read = {feature.name: feature.inputs for feature in features}
    pctr, reference_pctr = chance(np.array([told.logit, told.reference]), link).tolist()
    return {
        "item_id": asked.item_ids[at],
        "logit": told.logit,
        "pctr": pctr,
        "reference": told.reference,
        "reference_pctr": reference_pctr,
        "contributions": [
            {
                "feature": one.feature,
                "value": ", ".join(str(filled[name][0]) for name in read[one.feature]),
                "total": one.total,
                "wide": one.wide,
                "pairs": one.pairs,
                "mlp": one.mlp,
            }
            for one in told.contributions
        ],
    }


def _place(asked: Asked, candidate: str | None) -> int:
    """The row of a candidate that was not refused."""
    known = [item for item in asked.item_ids if item is not None]
    if candidate is not None and candidate not in known:
        raise ContractError(f"the request has no candidate '{candidate}'; {did_you_mean(candidate, known)}")
    at = 0 if candidate is None else asked.item_ids.index(candidate)
    if at in asked.refused:
        raise ContractError(f"candidate {at + 1} of the request is refused: {asked.refused[at]}")
    return at
