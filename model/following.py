"""What the feature hint compares of a minibatch: hidden layers, or how both nets' losses move with what they read."""

from torch import Tensor

from contracts.app import App
from contracts.errors import ContractError
from contracts.hint_names import hint_names
from contracts.model_checks import pairs_trouble
from model.hints import feature_hints_of
from model.losses import Features, Inputs
from model.rocket import Judged, RocketNets
from model.tensors import Batch


class Following:
    """`rocket.feature_hint` as a term of the loss.

    Args:
        app: its settings.
        nets: what is compared, and what the hint learns of its own.

    Raises:
        ContractError: there is no hint of that name, or it has no meaning for the nets of an app.
    """

    def __init__(self, app: App, nets: RocketNets) -> None:
        self._rocket, self._nets = app.config.rocket, nets
        self._own = ":" in app.config.model.booster.kind
        self._hints = feature_hints_of(self._rocket, nets.coach) if nets.taught else None
        row = hint_names().get(self._rocket.feature_hint)
        self._gradients, self._span = row is not None and row.takes == "gradients", row.span if row is not None else 1

    @property
    def asks_hidden(self) -> bool:
        """Whether both nets must give their hidden layers."""
        return self._hints is not None and not self._gradients

    def features(self, batch: Batch, judged: Judged, strength: float) -> Features | None:
        """What is compared, and its lambda; None: nothing.

        Args:
            batch: the minibatch.
            judged: what the nets said of it, with gradients.
            strength: of the schedule, now.

        Raises:
            ContractError: a booster of one's own gives other layers than the hint compares.
        """
        if self._hints is None:
            return None
        weight = self._rocket.feature_weight * strength
        if self._gradients:

            def share(booster_MD: Tensor) -> Tensor:
                return self._nets.light_share(batch, booster_MD)

            return Features(
                self._hints, ((0, 0),), (), (), weight, inputs=Inputs(judged.read[0], judged.read[1], share)
            )
        layers = (judged.light_layers, judged.booster_layers)
        if self._own:  # what the check of the app cannot know
            lights, boosters = ([layer.shape[1] for layer in each] for each in layers)
            told = pairs_trouble(lights, boosters, self._rocket)
            if told is not None:
                raise ContractError(f"[rocket] feature_layers: {told}")
        return Features(self._hints, self._rocket.feature_layers, *layers, weight, self._span)
