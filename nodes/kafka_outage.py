"""What kafka-python's producer does not see to itself after an outage (3.0.12)."""
# ruff: noqa: SLF001  # nothing public of it says what a batch or a producer id is about

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.producer.transaction_manager import TransactionState


def ask_for_new_ids(writer: KafkaProducer) -> None:
    """Let an idempotent producer that gives up its id get another.

    It does so where a batch that was on its way when the broker died expires: the broker may or may not have it. Its
    state still says that it has an id, so it asks for none, and waits for one for ever; nothing is written any more.
    Kafka's own client had the same fault once, and the same mend (KAFKA-7737).
    """
    state = writer._transaction_manager
    give_up_id = state.reset_producer_id

    def give_up_id_and_ask() -> None:
        with state._lock:
            give_up_id()
            if state._current_state == TransactionState.READY:
                state._current_state = TransactionState.UNINITIALIZED

    state.reset_producer_id = give_up_id_and_ask


def forget_waiting(writer: KafkaProducer, error: KafkaError) -> None:
    """Fail every batch that is not on its way, so that none is written later.

    While a producer waits for an id nothing expires in it, and what its `send` was given up for would go out after all.
    """
    kept = writer._accumulator
    for batch in kept._incomplete.all():
        with kept._tp_lock(batch.topic_partition):
            waiting = kept._batches[batch.topic_partition]
            if batch not in waiting:
                continue
            waiting.remove(batch)
            batch.records.close()
        batch.abort(error)
        kept.deallocate(batch)
