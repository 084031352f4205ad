"""The towers' parameters as one flat tensor: one kernel a step, however many layers and nets."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from contracts.training import Dense
from model.optimizers.flat_rules import Adam, FlatRule, Sgd
from model.optimizers.schedules import share_of_rate


class FlatOptimizer:
    """Adam, AdamW or SGD over all parameters of some modules.

    The parameters become views of `values`, their gradients views of `gradients`.

    Args:
        modules: each is clipped by itself.
        lr: the rate that the schedule scales.
        settings: rule, schedule and clipping; Adam at a constant rate by default.
    """

    def __init__(self, modules: Iterable[nn.Module], *, lr: float, settings: Dense | None = None) -> None:
        self._settings = settings = settings or Dense()
        groups = [[p for p in module.parameters() if p.requires_grad] for module in modules]
        parameters = [parameter for group in groups for parameter in group]
        self._sizes = [sum(parameter.numel() for parameter in group) for group in groups]
        self.values = torch.cat([parameter.detach().reshape(-1).float() for parameter in parameters])
        self.gradients = torch.zeros_like(self.values)
        start = 0
        for parameter in parameters:
            stop = start + parameter.numel()
            parameter.data = self.values[start:stop].view_as(parameter)
            parameter.grad = self.gradients[start:stop].view_as(parameter)
            start = stop
        self.values.grad = self.gradients
        self._lr = lr
        # weight decay is for what multiplies inputs: a bias or a scale that decays pulls predictions to one half
        self._decays = (
            torch.cat([torch.full((p.numel(),), float(p.dim() > 1)) for p in parameters]).to(self.values.device)
            if settings.weight_decay
            else None
        )
        self._rule: FlatRule = Sgd(settings.momentum, self.values) if settings.optimizer == "sgd" else Adam(self.values)

    def gradient_norms(self) -> list[float]:
        """Euclidean length of each module's gradient."""
        parts = torch.split(self.gradients, self._sizes)
        return torch.stack([torch.linalg.vector_norm(part) for part in parts]).tolist()

    def clip(self, norms: Iterable[float]) -> None:
        """Shorten each module's gradient to `clip_norm` where it is longer, each by itself: one cannot slow another.

        Pascanu, Mikolov, Bengio, ICML 2013, algorithm 1.

        Args:
            norms: as from `gradient_norms`.
        """
        longest = self._settings.clip_norm
        for part, norm in zip(torch.split(self.gradients, self._sizes), norms, strict=True):
            if longest is not None and norm > longest:
                part.mul_(longest / norm)

    def clear(self) -> None:
        """Forget the gradients, keeping the views."""
        self.gradients.zero_()

    def step(self, rows_learnt: int = 0) -> None:
        """Move every parameter once.

        Args:
            rows_learnt: this minibatch's included; places the step on the schedule.
        """
        lr = self._lr * share_of_rate(self._settings, rows_learnt)
        if self._decays is not None:  # decoupled: Loshchilov and Hutter, ICLR 2019, algorithm 2
            self.values.addcmul_(self.values, self._decays, value=-lr * self._settings.weight_decay)
        self._rule.step(self.values, self.gradients, lr)

    def state(self) -> dict[str, Tensor]:
        """A copy of what the rule keeps; the values are the modules' own state."""
        return {name: tensor.clone() for name, tensor in self._rule.state.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, tensor in self._rule.state.items():
            tensor.copy_(state[name])
