"""Fuzzes what reads bytes from outside, with coverage: `python tests/fuzz/decoders.py request -runs=1000 CORPUS`.

Runs in a process of its own: libFuzzer owns the process, and the modules under test are instrumented as they are
imported. Half of the mutations are libFuzzer's own, of bytes; half replace, drop or double a value inside the JSON. It
ends with 0 where every input gave a result or an error that the decoder documents, and held its promises; the files
`taken` and `refused` beside the corpus say that inputs went both ways.
"""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["nodes.read_requests", "nodes.request_types", "nodes.verify_weights",
                                         "nodes.ad_client", "nodes.peek_requests", "contracts.weights"]):  # fmt: skip
    from nodes.ad_client import read_answer
    from nodes.peek_requests import RequestPeeker
    from nodes.read_requests import RequestReader
    from nodes.verify_weights import manifest_bytes, read_manifest

import msgspec
import numpy as np

from contracts.app import load_app
from contracts.errors import ContractError, CorruptError, SchemaMismatchError
from contracts.serving import CODES, AdResponse, Problem, Score
from contracts.stores import Record
from contracts.weights import WeightManifest, digest_of, pack_array, plain
from nodes.fake_traffic import light_arrays, requests

MODEL, VERSION = "m", 3
ODD: list[Any] = [None, True, 0, -1, 2**63, -(2**70), 1e400, 0.5, "", "\ud800", "x" * 300, [], [[]], {}, {"id": 1}]


def request_target() -> tuple[Callable[[bytes], None], list[bytes]]:
    """A request beside a good one: it is read or refused with a code, and its neighbour never suffers."""
    app = load_app("adsim")
    reader, peeker = RequestReader(app), RequestPeeker(app)
    seeds = [*requests(app, 3, 2), *requests(app, 1, 1, seed=5)]

    def check(data: bytes) -> None:
        asked = reader.read([data, seeds[0]])
        assert asked.problems[1] is None
        assert asked.ids[1] == "request-0"
        problem = asked.problems[0]
        reach("refused" if problem else "taken")
        assert problem is None or problem.code in CODES, problem
        assert problem is not None or isinstance(asked.ids[0], str)
        assert {why.partition(":")[0] for why in asked.refused.values()} <= set(CODES)
        msgspec.json.encode([asked.ids, asked.item_ids, asked.problems])  # what is said of it can be sent
        (seen,) = peeker.peek([Record(None, data, timestamp_ms=1)])
        if problem is None:
            assert (seen.id, seen.deadline_ms) == (asked.ids[0], 1 + asked.tmax_ms[0])

    return check, seeds


def response_target() -> tuple[Callable[[bytes], None], list[bytes]]:
    """An answer is read, and is then the same written and read again, or it is a ContractError."""
    scored = AdResponse(id="r", model="m", model_version=1, schema_id="0" * 16, source="model", took_us=7,
                        scores=[Score("a", 0.25), Score(None, None, "missing: item_id")])  # fmt: skip
    seeds = [msgspec.json.encode(each) for each in (scored, AdResponse(id=None, error=Problem("not_json", "x")))]

    def check(data: bytes) -> None:
        try:
            made = read_answer(data)
        except ContractError:
            reach("refused")
            return
        reach("taken")
        assert read_answer(msgspec.json.encode(made)) == made

    return check, seeds


def manifest_target() -> tuple[Callable[[bytes], None], list[bytes]]:
    """A manifest is refused, or it is byte for byte what it says it is; also where its digest was made to fit."""
    arrays = light_arrays(load_app("adsim", {"model": {"embedding_dim": 1, "light": {"hidden": [2]}}}))
    blobs = tuple(pack_array(name, array, "float16", 65_536)[0] for name, array in arrays.items())
    made = WeightManifest(model=MODEL, version=VERSION, schema_id="0" * 16, app="a", trained_until_ms=1, position=2,
                          step=3, epoch=4, created_ms=5, gate={"why": "x", "logloss": 0.5}, blobs=blobs)  # fmt: skip
    rows = pack_array("wide_rows", np.arange(5), "uint32", 65_536)[0]
    thin = (rows, *(pack_array("wide", np.ones(5), "float16", 65_536)[0] if b.name == "wide" else b for b in blobs))
    seeds = [manifest_bytes(made), manifest_bytes(msgspec.structs.replace(made, blobs=blobs[:1], link="odds"))]
    seeds.append(manifest_bytes(msgspec.structs.replace(made, blobs=thin)))

    def read(data: bytes) -> None:
        try:
            manifest = read_manifest(data, MODEL, VERSION, "0" * 16)
        except (CorruptError, SchemaMismatchError):
            reach("refused")
            return
        reach("taken")
        assert manifest_bytes(manifest) == data
        assert (manifest.model, manifest.version, manifest.schema_id) == (MODEL, VERSION, "0" * 16)

    def check(data: bytes) -> None:
        read(data)
        try:
            changed = msgspec.json.decode(data, type=WeightManifest)
            signed = plain(msgspec.structs.replace(changed, digest=digest_of(changed)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            return
        read(json.dumps(signed, sort_keys=True, separators=(",", ":")).encode())

    return check, seeds


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """By bytes, or by a value somewhere in the JSON."""
    rng = random.Random(seed)
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        whole = None
    if rng.random() < 0.5 or not isinstance(whole, dict) or not whole:
        return atheris.Mutate(data, max_size)
    inner: Any = whole
    while True:
        key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        if not isinstance(inner[key], dict | list) or not inner[key] or rng.random() < 0.2:
            break
        inner = inner[key]
    how = rng.random()
    if how < 0.6:
        inner[key] = rng.choice(ODD)
    elif how < 0.8:
        del inner[key]
    elif isinstance(inner, list):
        inner += inner[key:]
    else:
        inner[str(key) + "x"] = inner[key]
    return json.dumps(whole).encode()[:max_size]


_reached: set[str] = set()


def reach(how: str) -> None:
    """Say once that an input went that way."""
    if how not in _reached:
        _reached.add(how)
        (Path(sys.argv[-1]).parent / how).touch()


TARGETS = {"request": request_target, "response": response_target, "manifest": manifest_target}


def main() -> None:
    """The first word names the target, the last one a folder for the corpus; what is between is libFuzzer's."""
    _, name, *options, corpus = sys.argv
    check, seeds = TARGETS[name]()
    for number, seed in enumerate(seeds):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, corpus], check, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
