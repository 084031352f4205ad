"""Serving: percentiles in process against torch, ONNX Runtime, the booster and a scorer written by hand."""

from typing import Any

from deploy.benches import serve_in_process


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """All peers in the same run, taking turns.

    Args:
        quick: a small model and few repeats.
    """
    return {"in_process": serve_in_process.run(quick)}
