"""What a publisher must know of a training that never ends."""

from collections.abc import Callable
from dataclasses import dataclass

from contracts.weights import WeightManifest


@dataclass(frozen=True, slots=True)
class LiveTerms:
    """What a publisher that never ends needs beside: it outlives its store, and must know when it is fenced out."""

    still_ours: Callable[[], None]  #: raises FencedError once another trainer owns the checkpoints
    on_published: Callable[[WeightManifest], object]  #: told each version that went live
    settle_ms: int  #: an example can be learnt that long after its event time, at the earliest
    after_version: int = 0  #: versions get larger numbers, though the store was emptied and counts from 1 again
    after_epoch: int = 0  #: so do fence epochs
