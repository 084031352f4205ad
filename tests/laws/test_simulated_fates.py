"""Law 1 on known input: ingest finds each planted fault, and nothing else."""

from pathlib import Path

from contracts.app import App
from flows import ingest
from nodes.simulate import Faults, simulate


def test_ingest_finds_exactly_what_the_simulator_planted(adsim: App, tmp_path: Path) -> None:
    rates = Faults(duplicates=0.05, late=0.02, orphans=0.05, malformed=0.02)
    expected = simulate(tmp_path / "events", impressions=20_000, seed=5, rates=rates)["expected"]
    files = [[tmp_path / "events" / f"{stream}.ndjson"] for stream in ("impressions", "clicks")]
    found = ingest.run(adsim, *files, tmp_path / "ingested")
    for stream, fates in expected.items():
        proper = fates.pop("proper")
        assert {name: found["streams"][stream][name] for name in fates} == fates
        assert proper <= fates["read"]
    assert found["examples"] == expected["impressions"]["accepted"]
