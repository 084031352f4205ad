"""Every error that a user can cause, each a sentence that says what, where and how to mend it."""

import difflib
from collections.abc import Iterable


class RocketError(Exception):
    """A failure that the command reports as one sentence, without a traceback."""


class ContractError(RocketError):
    """A contract or an app is wrong, or data breaks it."""


class SchemaMismatchError(RocketError):
    """A part met a `schema_id` other than its own (law 7)."""


class CorruptError(RocketError):
    """Stored bytes do not have the digest, the shape or the format that they declare."""


class SignatureError(CorruptError):
    """What must be signed with a key is not, or with another one."""


class StoreError(RocketError):
    """A store (directory, Redis, Kafka) cannot be reached or refuses."""


class UnreachableError(StoreError):
    """A store does not answer for now; the same again, later, may go well."""


class RunnerCrashedError(StoreError):
    """A runner fell over by a fault of its own: the same run, started again, goes on."""


class NoVersionError(StoreError):
    """No version of that number is held."""


class NotWholeError(StoreError):
    """Something that a version needs is not held (any more): one of its chunks, or a base of it."""


class FencedError(RocketError):
    """Another owner with a newer epoch has taken over."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to end an error message with, or the list of what is known.

    >>> did_you_mean("buckts", ["buckets", "column"])
    "did you mean 'buckets'?"
    >>> did_you_mean("zzz", ["buckets", "column"])
    'known: buckets, column'
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
