"""Columns of an event or a request become what the nets see: the same code for training and for serving (law 5)."""

from collections.abc import Sequence

import polars as pl

from contracts.errors import ContractError, did_you_mean
from contracts.features import STATEFUL, Feature
from contracts.segments import column_type
from nodes.features import expression

#: The type of a column that is absent and has no `serve_default`.
_ABSENT = {"time": pl.Int64(), "dense": pl.Float64(), "sequence": pl.List(pl.String())}


class Featurizer:
    """The stateless features of a table as one `select`, built once and applied to any number of frames.

    >>> table = [Feature(name="hour", kind="time", column="at_ms", side="context")]
    >>> Featurizer(table)(pl.DataFrame({"at_ms": [0, 7_200_000]}))["hour"].to_list()
    [1, 3]
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        ids = {feature.name: feature for feature in features if feature.output == "id"}
        self.features = tuple(feature for feature in features if feature.kind not in STATEFUL)
        resolved = [_resolved(feature, ids) for feature in self.features]
        self._expressions = [expression(feature) for feature in resolved]
        self._types = [column_type(feature.output, dynamic=feature.dynamic is not None) for feature in resolved]

    def __call__(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Only the feature columns, in table order, rows in the same order.

        Raises:
            ContractError: a column is absent or of a type that the kind cannot read, or a kind breaks its promise;
                the message names the feature.
        """
        try:
            made = frame.select(self._expressions)
        except pl.exceptions.PolarsError:
            raise self._blamed(frame) from None
        for feature, asked in zip(self.features, self._types, strict=True):
            given = made.schema[feature.name]
            if given != asked:
                raise ContractError(
                    f"feature '{feature.name}': kind '{feature.kind}' gives {given}, but its output "
                    f"'{feature.output}' is {asked}; end it with .cast(pl.{asked})"
                )
            if feature.output_ is not None:
                _check_own(feature, made[feature.name], frame.height)
        return made

    def _blamed(self, frame: pl.DataFrame) -> ContractError:
        """The first feature that fails alone; slow, on the way to an error only."""
        for feature, expr in zip(self.features, self._expressions, strict=True):
            for column in feature.inputs:
                if column not in frame.columns:
                    return ContractError(
                        f"feature '{feature.name}': the rows have no column '{column}'; "
                        f"{did_you_mean(column, frame.columns)}"
                    )
            try:
                frame.select(expr)
            except pl.exceptions.PolarsError as error:
                types = ", ".join(f"{column} is {frame.schema[column]}" for column in feature.inputs)
                return ContractError(
                    f"feature '{feature.name}': kind '{feature.kind}' cannot be computed ({types}): "
                    f"{' '.join(str(error).split())[:300]}; choose another kind or column"
                )
        return ContractError("the features cannot be computed together; give each its own name")


def featurize(frame: pl.DataFrame, features: Sequence[Feature]) -> pl.DataFrame:
    """Only the columns of the stateless features (`contracts.segments.column_type`), rows in the same order.

    The values of a row depend on that row alone, so any cut into batches gives the same bits. A sequence needs the
    feature that it names in `of` among `features`. Streaming features are left out.

    Raises:
        ContractError: naming the feature, what is wrong with it and the mend.

    >>> table = [Feature(name="user", kind="id", column="user_id", side="user", buckets=1000)]
    >>> featurize(pl.DataFrame({"user_id": ["u1", None]}), table)["user"].to_list()
    [123, 0]
    """
    return Featurizer(features)(frame)


def fill_serving_defaults(frame: pl.DataFrame, features: Sequence[Feature]) -> pl.DataFrame:
    """The frame with every column that the stateless features read: `serve_default` for absent ones and nulls.

    A column without a `serve_default` that is absent comes as nulls.

    Raises:
        ContractError: two features want different defaults for one column, or a default does not fit its type.

    >>> slot = Feature(name="slot", kind="id", column="position", side="context", buckets=9, serve_default=1)
    >>> fill_serving_defaults(pl.DataFrame({"position": [None, 3]}), [slot])["position"].to_list()
    [1, 3]
    """
    filled: dict[str, pl.Expr] = {}
    wanted: dict[str, Feature] = {}
    for feature in (f for f in features if f.kind not in STATEFUL):
        for column in feature.inputs:
            default = feature.serve_default
            if default is None:
                if column not in frame.columns and column not in filled:
                    filled[column] = pl.lit(None, _ABSENT.get(feature.kind, pl.String())).alias(column)
                continue
            earlier = wanted.setdefault(column, feature)
            if earlier.serve_default != default:
                raise ContractError(
                    f"features '{earlier.name}' and '{feature.name}' give the column '{column}' different "
                    "serve_default values; keep one"
                )
            filled[column] = _default_of(feature, column, default, frame)
    return frame.with_columns(**filled) if filled else frame


def _default_of(feature: Feature, column: str, default: str | float, frame: pl.DataFrame) -> pl.Expr:
    value = int(default) if isinstance(default, float) and default.is_integer() else default
    if column not in frame.columns:
        return pl.lit(value, pl.Int64() if isinstance(value, int) else None)
    try:
        return pl.col(column).fill_null(pl.lit(pl.Series([value]).cast(frame.schema[column]).item()))
    except pl.exceptions.PolarsError:
        raise ContractError(
            f"feature '{feature.name}': serve_default = {default!r} is no {frame.schema[column]}, which the column "
            f"'{column}' is; give one that is"
        ) from None


def _resolved(feature: Feature, ids: dict[str, Feature]) -> Feature:
    """A sequence with the table of the id feature that it refers to."""
    if feature.output != "ids" or feature.buckets is not None:
        return feature
    of = ids.get(str(feature.of))
    if of is None or not (of.buckets or of.dynamic):
        raise ContractError(
            f"feature '{feature.name}': of = '{feature.of}' is no feature with buckets among those given; "
            f"{did_you_mean(str(feature.of), [name for name, f in ids.items() if f.buckets or f.dynamic] or ['none'])}"
        )
    return feature.model_copy(update={"buckets": of.buckets, "dynamic": of.dynamic})


def _check_own(feature: Feature, values: pl.Series, rows: int) -> None:
    """What a kind of the user's own promises: a value in each row, no null, no infinity, no id beyond its table."""
    wrong = None
    if values.len() != rows:
        wrong = f"gives {values.len()} rows for {rows}; make it look at one row at a time"
    elif values.null_count():
        wrong = "gives nulls; end it with .fill_null(...)"
    elif feature.output == "dense" and not values.is_finite().all():
        wrong = "gives NaN or infinity; end it with .fill_nan(...) or clip it"
    elif feature.output == "id" and values.ge(feature.rows).any():  # a kind of the user's own has buckets
        wrong = f"gives the bucket {values.max()!r}, but the feature has {feature.rows}; take it modulo feature.rows"
    if wrong:
        raise ContractError(f"feature '{feature.name}': kind '{feature.kind}' {wrong}")
