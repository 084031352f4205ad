"""The scorer's desk: a micro-batch of records in, one safe answer a record out, whatever the brokers do meanwhile.

records ─▶ peek ─▶ shed what would be late ─▶ answered at once
                        └─▶ part by model ─▶ score ─▶ answer, again until it is safe
"""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

from contracts.app import App
from contracts.errors import ContractError, UnreachableError
from contracts.serving import AdResponse, Problem
from contracts.stores import EventLog, Record
from nodes.arms import Arms
from nodes.catalogue import Catalogue
from nodes.peek_requests import NEVER_MS, Peeked, RequestPeeker
from nodes.reply_headers import REPLY_TOPIC, asked_elsewhere, reply_headers
from nodes.score import LightScorer, expired
from nodes.serve_metrics import ServeMetrics
from nodes.shed_load import LoadShedder

_APPEND_S = 30.0  # that a healthy append may take
_AGAIN_S = 0.05  # after one that failed
_encode = msgspec.json.Encoder().encode


@dataclass
class Answered:
    """One micro-batch, answered: both lists in the order of its records."""

    responses: list[AdResponse]
    read_us: list[int]  #: parsing and checking of what was scored together with each
    catalogue: Catalogue | None = None  #: that the last of them was scored with


def answer(scorer: LightScorer, records: Sequence[Record], clock_ms: Callable[[], int]) -> Answered:
    """One response a record from one version; what is late when it is ready to leave says `expired`."""
    sent_ms = [record.timestamp_ms or NEVER_MS for record in records]
    scored = scorer.score([record.value for record in records], now_ms=clock_ms(), received_ms=sent_ms)
    leaving_ms = clock_ms()
    responses = [
        expired(response.id, response.took_us) if response.error is None and leaving_ms > sent + tmax else response
        for response, sent, tmax in zip(scored.responses, sent_ms, scored.asked.tmax_ms, strict=True)
    ]
    return Answered(responses, [scored.read_us] * len(responses), scorer.catalogue)


class AnswerDesk:
    """Makes answers and hands them out.

    Args:
        app: whose requests they are.
        responses: where answers go.
        arms: who scores.
        reply_topics: where a request may ask its answer to; None: anywhere.
        clock_ms: epoch milliseconds, on the same clock as the records' timestamps.
        told: where to count.
    """

    def __init__(
        self,
        app: App,
        responses: EventLog,
        arms: Arms,
        *,
        reply_topics: Collection[str] | None,
        clock_ms: Callable[[], int],
        told: ServeMetrics,
    ) -> None:
        self._app, self._responses, self._arms, self._reply_topics = app, responses, arms, reply_topics
        self._clock_ms, self._told = clock_ms, told
        self._peeker, self._shedder = RequestPeeker(app), LoadShedder()

    def answer_until_safe(self, records: Sequence[Record], stop: threading.Event) -> Answered | None:
        """One safe answer a record; None where there can be none before the end."""
        peeked = self._peeker.peek(records)
        given_up = self._hopeless(records, peeked) if self._app.config.serving.shed else []
        rest = sorted(set(range(len(records))) - set(given_up))
        made = Answered([], [])
        answers: dict[int, tuple[AdResponse, int]] = {}
        for places, make in ((given_up, self._given_up), (rest, self._scored)):
            if not places:
                continue
            found = self._until_safe([records[at] for at in places], [peeked[at] for at in places], make, stop)
            if found is None:
                return None
            made.catalogue = found.catalogue or made.catalogue
            answers |= dict(zip(places, zip(found.responses, found.read_us, strict=True), strict=True))
        for at in range(len(records)):
            response, read_us = answers[at]
            made.responses.append(response)
            made.read_us.append(read_us)
        return made

    def _hopeless(self, records: Sequence[Record], peeked: Sequence[Peeked]) -> list[int]:
        now_ms = self._clock_ms()
        return self._shedder.hopeless(
            [len(record.value) for record in records], [seen.deadline_ms - now_ms for seen in peeked]
        )

    def _given_up(self, records: Sequence[Record], peeked: Sequence[Peeked]) -> Answered:
        now_ms = self._clock_ms()
        too_many = Problem("overloaded", "the queue is too long for its deadline; ask less, or run more scorers")
        return Answered(
            [
                expired(seen.id, 0) if now_ms > seen.deadline_ms else AdResponse(id=seen.id, error=too_many)
                for seen in peeked
            ],
            [0] * len(records),
        )

    def _scored(self, records: Sequence[Record], peeked: Sequence[Peeked]) -> Answered:
        """From the model of each one's user, and each model from one version."""
        made = Answered([AdResponse(id=None)] * len(records), [0] * len(records))
        took_us = 0
        for model, places in self._arms.parted([seen.user_id for seen in peeked]).items():
            mine = [records[at] for at in places]
            with self._arms.answering[model].hold() as scorer:
                answered = answer(scorer, mine, self._clock_ms)
            made.catalogue = answered.catalogue
            took_us += max(response.took_us for response in answered.responses)
            for at, response, read_us in zip(places, answered.responses, answered.read_us, strict=True):
                made.responses[at] = msgspec.structs.replace(response, model=model) if response.scores else response
                made.read_us[at] = read_us
        self._shedder.measured(sum(len(record.value) for record in records), took_us / 1000)
        return made

    def _until_safe(
        self,
        records: Sequence[Record],
        peeked: Sequence[Peeked],
        make: Callable[[Sequence[Record], Sequence[Peeked]], Answered],
        stop: threading.Event,
    ) -> Answered | None:
        trouble = ""
        while True:
            made = make(records, peeked)
            made.responses = self._checked(records, made.responses)
            self._told.alive(trouble, may_take_s=_APPEND_S)
            try:
                self._append(records, peeked, made.responses)
            except UnreachableError as error:
                trouble = str(error)
                self._told.retried()
                self._told.alive(trouble, may_take_s=_APPEND_S)
                if stop.wait(_AGAIN_S):
                    return None
                continue
            self._told.alive()
            return made

    def _append(self, records: Sequence[Record], peeked: Sequence[Peeked], answers: list[AdResponse]) -> None:
        """Write the answers, each alone where together they cannot be: one that is too large does not stop the rest."""
        leaving = [self._leaving(*each) for each in zip(records, peeked, answers, strict=True)]
        answers[:] = [response for response, _ in leaving]
        try:
            self._responses.append([record for _, record in leaving])
            return
        except ContractError:
            pass
        for place, (response, record) in enumerate(leaving):
            try:
                self._responses.append([record])
            except ContractError as error:
                small = AdResponse(id=response.id, error=Problem("answer_refused", str(error)))
                answers[place], instead = self._leaving(records[place], peeked[place], small)
                self._responses.append([instead])

    def _leaving(self, request: Record, seen: Peeked, made: AdResponse) -> tuple[AdResponse, Record]:
        """The answer as it leaves, stamped with when: a deadline may pass while those before it are written."""
        at_ms = self._clock_ms()
        if at_ms > seen.deadline_ms and made.error is None:
            made = expired(made.id, made.took_us)
        headers = reply_headers(request, app=self._app.name, at_ms=at_ms)
        if made.error is not None and made.error.code == "reply_topic_refused":
            headers = tuple(header for header in headers if header[0] != REPLY_TOPIC)
        return made, Record(request.key, _encode(made), headers, at_ms)

    def _checked(self, records: Sequence[Record], answers: list[AdResponse]) -> list[AdResponse]:
        """No scores for who wants them on a topic that is not for answers."""
        if self._reply_topics is None:
            return answers
        wanted = [asked_elsewhere(record, self._reply_topics) for record in records]
        return [
            made
            if topic is None
            else AdResponse(
                id=made.id,
                error=Problem(
                    "reply_topic_refused", f"no answers go to '{topic[:80]}'; add it to serving.reply_topics"
                ),
            )
            for made, topic in zip(answers, wanted, strict=True)
        ]
