"""Everything that can die dies under load: no event and no example is lost or doubled, and no weight is another one."""

import logging
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.live_loop import KILLS, OTHERS, LiveLoop, wait
from tests.faults.oracles import answered, checkpoints_whole, events_once, in_topics, weights_of_the_log
from tests.kafka_broker import KafkaBroker

pytestmark = pytest.mark.e2e
_LOG = logging.getLogger(__name__)
#: Generous: what is asked for is measured and told, on a machine that may be busy.
_BACK_S = {"trainer": 60, "ingest": 90, "scorer": 60, "broker": 90, "valkey": 60}


def faults(rng: random.Random, count: int) -> list[str]:
    """Rounds of every kill and, in the first and then now and then, of everything else."""
    found: list[str] = []
    while len(found) < count:
        some = [*KILLS, *(OTHERS if not found or rng.random() < 0.15 else ())]
        rng.shuffle(some)
        found += some
    return found[:count]


def survive(folder: Path, broker: KafkaBroker, *, seed: int, log: str, count: int, per_s: float) -> None:
    """Live through so many faults; whatever is wrong at the end is told with the seed that repeats it."""
    rng = random.Random(seed)
    plan = faults(rng, count)
    _LOG.info("seed %d, log in a %s: %s", seed, log, ", ".join(plan))
    loop = LiveLoop(folder, broker, rng, log=log, seconds=120 + 40 * count, per_s=per_s)
    with loop.running():
        for fault in plan:
            loop.befall(fault)
        loop.quiet()
        found: tuple[list[str], dict[str, object]] = (["not counted yet"], {})

        def settled() -> bool:
            nonlocal found
            loop.alive()
            more = {"checkpoints": loop.checkpoints}
            found = events_once(loop.app, sources, loop.out, loop.log.read(0, loop.app.schema_id), **more)
            return not found[0] and found[1]["pending"] < loop.app.config.train.batch_rows

        sources = loop.urls["impressions"], loop.urls["clicks"]
        wait_for = 60 + count
        try:
            wait("an exact log", settled, wait_for, poll_s=1.0)
        except AssertionError:
            loop.told += found[0]
        loop.stop()
        complaints = loop.told + loop.versions.complaints
        complaints += events_once(loop.app, sources, loop.out, loop.log.read(0, loop.app.schema_id))[0]
        complaints += answered(*in_topics(loop.app, loop.urls["requests"], loop.urls["responses"]))
        complaints += checkpoints_whole(loop.checkpoints, loop.broken)
        complaints += weights_of_the_log(loop.app, loop.examples, loop.checkpoints, folder / "undisturbed")
        loop.watched.again()
        complaints += loop.watched.complaints
        report(loop, found[1])
    assert not complaints, f"seed {seed}, log in a {log}: {complaints}"
    assert loop.versions.looks
    assert {name: seconds for name, seconds in loop.recovered if seconds > _BACK_S.get(name, 60)} == {}


def report(loop: LiveLoop, found: dict[str, object]) -> None:
    """The figures, for who runs it with `--log-cli-level=INFO`."""
    _LOG.info(
        "%s", {name: found.get(name) for name in ("examples", "lost", "doubled", "mislabelled", "trained", "pending")}
    )
    for name in sorted({name for name, _ in loop.recovered}):
        took = [seconds for of, seconds in loop.recovered if of == name]
        middle, most = statistics.median(took), max(took)
        _LOG.info("%s: %d times, median %.1f s, at most %.1f s", name, len(took), middle, most)


@pytest.mark.timeout(900)
def test_one_fault_of_each_kind(own_kafka: Callable[[], KafkaBroker], tmp_path: Path) -> None:
    survive(tmp_path, own_kafka(), seed=1, log="folder", count=len(KILLS) + len(OTHERS), per_s=300)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("log", "seed"), [("folder", 2), ("topic", 3), ("folder", 4), ("topic", 5)])
def test_fifty_faults(own_kafka: Callable[[], KafkaBroker], tmp_path: Path, log: str, seed: int) -> None:
    survive(tmp_path, own_kafka(), seed=seed, log=log, count=50, per_s=300)
