"""What a scheme is: nets beside the light one and the booster, a teacher, and terms of the loss.

A scheme is a module: its parameters move, are averaged, saved and restored with the other nets, and never published.
Shapes: B rows, X columns of all embeddings, N dense features, H hidden width.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from model.light import LightNet
from model.tensors import Batch

if TYPE_CHECKING:
    from model.trainer import Trainer


class Seen(NamedTuple):
    """What a scheme sees of a minibatch."""

    batch: Batch
    embedding_BX: Tensor  #: that the light net read
    dense_BN: Tensor  #: likewise
    light: LightNet
    light_B: Tensor  #: its logits
    layers: tuple[Tensor, ...]  #: what its hidden layers gave, [B, H] each, where the scheme `asks_hidden`
    hidden: bool  #: whether the hidden layers of both nets are asked for


class Said(NamedTuple):
    """What a scheme's nets say of it."""

    booster_B: Tensor | None = None  #: logits of what stands in the booster's place
    booster_layers: tuple[Tensor, ...] = ()
    others: tuple[Tensor, ...] = ()  #: logits of whatever else is trained; none without gradients


class Costs(NamedTuple):
    """How the loss judges logits: as it judges the light net's."""

    label: Callable[[Tensor], Tensor]  #: the label loss of logits [B], one number
    follow: Callable[[Tensor, Tensor], Tensor]  #: `rocket.hint` from logits to logits that stand still, one number
    weigh: Callable[[Tensor], Tensor]  #: costs [B] to their weighted mean
    weight: float  #: lambda now


class Scheme(nn.Module):
    """Nothing beside both nets: the scheme "rocket", and what the others begin with."""

    asks_hidden = False  #: the light net's hidden layers
    draws = False  #: whether a forward pass draws from torch's global generator
    teaches = False  #: whether something stands in the booster's place
    follows = False  #: whether lambda counts without a booster

    def judge(self, seen: Seen) -> Said:
        """Logits of the scheme's nets; autograd follows those that learn."""
        del seen
        return Said()

    def terms(self, light_B: Tensor, layers: tuple[Tensor, ...], said: Said, costs: Costs) -> Tensor | None:
        """What the scheme adds to the loss, lambdas in, one number; None: nothing.

        Args:
            light_B: logits of the light net.
            layers: its hidden layers, where they were asked for.
            said: by `judge`.
            costs: of the loss.
        """
        del light_B, layers, said, costs
        return None

    def strength(self) -> float:
        """What lambda is multiplied by, beside the schedule."""
        return 1.0

    def begin(self, trainer: "Trainer") -> None:
        """Before the first minibatch of a lineage: whoever teaches from elsewhere is fetched."""
        del trainer

    def learnt(self, trainer: "Trainer") -> None:
        """After each minibatch that was learnt."""
        del trainer
