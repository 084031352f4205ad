"""Label losses for clicks that come late (`labels.mode`), one file a mode."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from contracts.sections import Labels
from model.delayed import dfm, es_dfm, fnc, fnw
from model.delayed.heads import DelayHeads
from model.delayed.seen import Seen

__all__ = ["MODES", "DelayHeads", "Mode", "Seen", "mode_of"]


class Mode(NamedTuple):
    """How one mode learns."""

    loss: Callable[[Tensor, Seen, int], Tensor]  #: logits [B], rows, net (0 light, 1 booster) -> nats [B]
    start: tuple[float, ...] = ()  #: where the outputs of the delay heads begin; none: there are no heads
    head_loss: Callable[[Seen], Tensor] | None = None  #: what the heads alone learn, nats [B]


#: `labels.mode` -> how it learns; `wait` is not here: its labels are final, `model.losses.label_loss` learns them.
MODES = {
    "fake_negative": Mode(fnw.loss),
    "fnc": Mode(fnc.loss),
    "es_dfm": Mode(es_dfm.loss, es_dfm.START, es_dfm.head_loss),
    "dfm": Mode(dfm.loss, dfm.START),
}


def mode_of(labels: Labels) -> Mode | None:
    """The app's mode; None where labels are final (`wait`).

    >>> mode_of(Labels()) is None, mode_of(Labels(mode="dfm")) is MODES["dfm"]
    (True, True)
    """
    return MODES.get(labels.mode)
