"""A booster of another run teaches and stands still: alone ("offline"), or beside one that learns ("rocket_kd")."""

from typing import TYPE_CHECKING

from torch import Tensor

from contracts.app import App
from model.hints.logits import bernoulli_kd
from model.schemes.frozen import FrozenBooster
from model.schemes.scheme import Costs, Said, Scheme, Seen

if TYPE_CHECKING:
    from model.trainer import Trainer


class Offline(Scheme):
    """Knowledge distillation as it began: loss = label(light) + lambda * hint(light, teacher).

    Bucila et al., KDD 2006; Hinton et al., 2015 (arXiv 1503.02531), section 2. The teacher is kept in the checkpoints:
    to go on, its folder is not needed. Until the first minibatch it is a new net.
    """

    teaches = follows = True

    def __init__(self, app: App) -> None:
        super().__init__()
        self.teacher = FrozenBooster(app)

    def judge(self, seen: Seen) -> Said:
        """The teacher's logits, and its hidden layers where they are asked for."""
        layers: list[Tensor] | None = [] if seen.hidden else None
        return Said(self.teacher(seen.batch, layers), tuple(layers or ()))

    def begin(self, trainer: "Trainer") -> None:
        """Fetch the teacher."""
        self.teacher.take(trainer.app)


class RocketKd(Scheme):
    """Rocket, and T^2 * KL(teacher_T || light_T) times `rocket.teacher_weight` (Zhou et al., AAAI 2018, section 4).

    The paper's code has T = 4 and alpha = 0.9 of KD against 0.1 of the label; here the label keeps its weight. Neither
    gate nor schedule holds this term: the teacher has learnt already.
    """

    def __init__(self, app: App) -> None:
        super().__init__()
        self.teacher = FrozenBooster(app)
        self._weight, self._temperature = app.config.rocket.teacher_weight, app.config.rocket.hint_temperature

    def judge(self, seen: Seen) -> Said:
        """The teacher's logits, beside those of the booster."""
        return Said(others=(self.teacher(seen.batch),))

    def terms(self, light_B: Tensor, layers: tuple[Tensor, ...], said: Said, costs: Costs) -> Tensor | None:
        """The KD term."""
        del layers
        if not self._weight:
            return None
        return self._weight * costs.weigh(bernoulli_kd(light_B, said.others[0], temperature=self._temperature))

    def begin(self, trainer: "Trainer") -> None:
        """Fetch the teacher."""
        self.teacher.take(trainer.app)
