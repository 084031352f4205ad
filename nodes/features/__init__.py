"""The kinds of stateless features: one decorated function each, one file a kind.

A kind of your own is one function, registered when its module is imported:

    @kind("weekend")
    def weekend(feature: Feature) -> pl.Expr:
        \"\"\"1 from Saturday on.\"\"\"
        day = pl.from_epoch(pl.col(feature.inputs[0]), time_unit="ms").dt.weekday()
        return (day >= 6).cast(pl.Float32)

Its rows in `app.toml` say what it gives: `output = "id"` (u32, below `buckets`), `"dense"` (f32) or `"ids"` (list
of u32, with `of`).
A kind looks at one row at a time, so that its values do not depend on how rows are cut into batches.
"""

from collections.abc import Callable
from importlib import import_module

import polars as pl

from contracts.errors import ContractError, did_you_mean
from contracts.features import STATEFUL, Feature

Kind = Callable[[Feature], pl.Expr]
#: Name of a kind -> its function.
KINDS: dict[str, Kind] = {}
_BUILT_IN = ("id", "cross", "clock", "dense", "sequence")


def kind(name: str) -> Callable[[Kind], Kind]:
    """Register a function as the kind `name` of features.

    The function makes one expression out of a row of the feature table, of the type that its output asks for.
    Registering the same function again (a reloaded module) replaces it.

    Raises:
        ContractError: another function has that name, or it is the name of a streaming kind.
    """

    def register(function: Kind) -> Kind:
        taken = KINDS.get(name)
        known = f"{taken.__module__}.{taken.__qualname__}" if taken else "nodes.streaming"
        if name in STATEFUL or (taken and known != f"{function.__module__}.{function.__qualname__}"):
            raise ContractError(f"feature kind '{name}' is taken by {known}; give yours another name")
        KINDS[name] = function
        return function

    return register


def expression(feature: Feature) -> pl.Expr:
    """The expression of one stateless feature.

    Raises:
        ContractError: the feature's kind is not registered, or is a streaming one.
    """
    if feature.kind in STATEFUL:
        raise ContractError(
            f"feature '{feature.name}': kind '{feature.kind}' needs the stream's past; nodes.streaming computes it"
        )
    if feature.kind not in KINDS:
        raise ContractError(
            f"feature '{feature.name}': no kind '{feature.kind}'; {did_you_mean(feature.kind, KINDS)}; "
            "import the module that registers it first"
        )
    return KINDS[feature.kind](feature).alias(feature.name)


for _name in _BUILT_IN:  # at the end: each of them imports `kind` from here
    import_module(f"nodes.features.{_name}")
