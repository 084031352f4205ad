"""What a scorer depends on breaks: requests are answered in time, the answer says how, and all is well again."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from contracts.app import App
from contracts.errors import StoreError
from deploy.local.daemon import free_port
from deploy.local.valkey_server import ValkeyServer
from nodes.redis_weights import RedisWeights
from tests.kafka_broker import KafkaBroker
from tests.live_scorer import Place, Scorer, publish, scorers, small_app

pytestmark = pytest.mark.e2e
TMAX_MS = 5_000  # in time, on a machine that others use too
BACK_S = 30.0
_PAUSE_S = 5.0
MAX_AGE_S = 2.0


class Served:
    """One scorer, its weight store, and who asks it."""

    def __init__(self, place: Place, valkey: ValkeyServer, scorer: Scorer) -> None:
        self.place, self.valkey, self.scorer = place, valkey, scorer
        self.asked = 0

    @contextlib.contextmanager
    def store(self) -> Iterator[RedisWeights]:
        with contextlib.closing(RedisWeights(self.valkey.url, self.place.app.name, timeout_s=0.5)) as opened:
            yield opened

    def publish(self) -> int:
        """A version more; its number."""
        with self.store() as store:
            number = (store.current_version() or 0) + 1
            publish(self.place.app, store, number)
            return number

    def command(self, *words: Any) -> None:
        with redis.Redis.from_url(self.valkey.url, socket_timeout=2) as raw:
            raw.execute_command(*words)

    def ask(self) -> tuple[str | None, int | None]:
        self.asked += 1
        return self.place.ask(f"f{self.asked}", tmax=TMAX_MS)

    def until(self, answer: tuple[str, int | None]) -> None:
        """Wait until that is what is answered; every answer on the way is in time."""
        until_s = time.monotonic() + BACK_S
        while (said := self.ask()) != answer:
            assert said[0] in {"model", "stale"}, said
            assert time.monotonic() < until_s, f"{said} instead of {answer} after {BACK_S:g} s"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def served(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    app: App = small_app()
    valkey = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    valkey.start()
    with contextlib.ExitStack() as stack:
        stack.callback(valkey.kill)
        running = stack.enter_context(scorers())
        place = Place(kafka, app, running)
        stack.enter_context(place.client)
        with contextlib.closing(RedisWeights(valkey.url, app.name)) as store:
            for number in (1, 2):
                publish(app, store, number)
        made = Served(place, valkey, place.scorer(valkey.url).started())
        made.until(("model", 2))
        yield made


def killed(served: Served) -> Callable[[], object]:
    served.valkey.kill()
    return served.valkey.start


def slow(served: Served) -> Callable[[], object]:
    served.command("CLIENT", "PAUSE", round(_PAUSE_S * 1000), "ALL")
    over_s = time.monotonic() + _PAUSE_S
    return lambda: time.sleep(max(0.0, over_s - time.monotonic()))


def out_of_memory(served: Served) -> Callable[[], object]:
    served.command("CONFIG", "SET", "maxmemory", "1")
    return lambda: served.command("CONFIG", "SET", "maxmemory", "0")


def read_only(served: Served) -> Callable[[], object]:
    served.command("REPLICAOF", "127.0.0.1", free_port())
    return lambda: served.command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize("fault", [killed, slow, out_of_memory, read_only], ids=lambda fault: fault.__name__)
def test_while_the_store_is_in_trouble_the_last_version_answers_and_the_next_one_comes_by_itself(
    served: Served, fault: Callable[[Served], Callable[[], object]]
) -> None:
    before = served.publish()
    served.until(("model", before))
    mend = fault(served)
    for _ in range(5):
        assert served.ask() == ("model", before)
    with pytest.raises(StoreError):  # it is the fault that it says it is
        served.publish()
    mend()
    number = served.publish()
    assert number > before
    served.until(("model", number))
    served.scorer.until("/healthz", 200, "ok")


def test_a_store_that_was_wiped_takes_no_version_away_and_the_next_one_is_served(served: Served) -> None:
    while served.publish() < 3:
        pass
    with served.store() as store:
        before = store.current_version()
    served.until(("model", before))
    served.command("FLUSHALL")
    for _ in range(5):
        assert served.ask() == ("model", before)
    number = served.publish()
    assert number != before
    served.until(("model", number))


def test_versions_of_a_trainer_that_is_dead_grow_old_and_the_answers_say_so_until_it_is_back(served: Served) -> None:
    place = Place(served.place.kafka, served.place.app, served.place.running)
    with place.client:
        scorer = place.scorer(served.valkey.url, "--set", f"serving.max_age_s={MAX_AGE_S}").started()
        old = Served(place, served.valkey, scorer)
        first = old.publish()
        old.until(("model", first))
        old.until(("stale", first))
        until_s = time.monotonic() + BACK_S
        while scorer.metric("ctr_serve_model_age_seconds") <= MAX_AGE_S:  # looked at once a second
            assert time.monotonic() < until_s
        old.until(("model", old.publish()))
        scorer.stop()
