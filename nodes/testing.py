"""One law for every Beam node: `check_node`."""

from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import apache_beam as beam
import polars as pl
from apache_beam.coders.typecoders import registry
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import PCollection
from apache_beam.testing.util import assert_that, is_empty

#: What a chunk is made of: such types must have a coder of their own, or Beam would pickle them.
_OURS = (pl.DataFrame,)


def check_node(node: "beam.PTransform[Any, Any]") -> None:
    """Raise `AssertionError` unless `node` keeps the house rules.

    It declares what it takes and gives (a PCollection, or a frozen dataclass of them), never `Any`; each chunk type has
    a coder that is no pickle; it says what it does; it survives the trip to a worker; and of nothing it makes nothing.
    """
    name = type(node).__name__
    assert vars(type(node)).get("__doc__"), f"{name} has no docstring"
    hints = get_type_hints(type(node).expand)
    given = next((hint for word, hint in hints.items() if word != "return"), None)
    taken, made = _elements(given), _elements(hints.get("return"))
    assert len(taken) == 1, f"{name} does not declare one PCollection that it takes"
    assert made, f"{name} does not declare what it gives"
    for element in (*taken, *made):
        assert element is not Any, f"{name} takes or gives Any"
        if is_dataclass(element) or element in _OURS:
            coder = registry.get_coder(element)
            assert type(coder).__module__.startswith("nodes."), f"{element} would be pickled between workers"
    pickler.loads(pickler.dumps(node))
    with beam.Pipeline(options=PipelineOptions(["--runner", "FnApiRunner"])) as pipeline:
        out = pipeline | beam.Create([], reshuffle=False).with_output_types(taken[0]) | name >> node
        ways = [out] if isinstance(out, PCollection) else [getattr(out, field.name) for field in fields(out)]
        for number, way in enumerate(way for way in ways if way is not None):
            assert_that(way, is_empty(), label=f"{number} is empty")


def _elements(hint: Any) -> list[Any]:
    """The element types of a PCollection hint, or of each field of a dataclass of them."""
    if get_origin(hint) is PCollection:
        return list(get_args(hint))
    if isinstance(hint, type) and is_dataclass(hint):
        parts = get_type_hints(hint)
        return [element for field in fields(hint) for element in _elements(parts[field.name])]
    return []
