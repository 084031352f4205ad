"""The models that one scorer serves, each with its own newest version, and which of them answers whom."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType

from contracts.app import App
from contracts.errors import ContractError
from nodes.catalogue import CatalogueSource
from nodes.refresh import Refresher
from nodes.traffic_split import arm_of
from nodes.weight_buffers import ServedStore


def models_of(app: App) -> tuple[str, ...]:
    """Names of the models that the app's settings serve, in order: those with traffic, then the shadows."""
    serving = app.config.serving
    return (*serving.traffic, *serving.shadows) or (app.name,)


class Arms:
    """One `Refresher` a model, running while the `with` block runs.

    Args:
        app: its `serving` section says who answers whom.
        stores: model -> its versions; each of `models_of(app)`.
        every_s: seconds between looks at each store.
        catalogue: the items whose candidates may come by id alone.

    Raises:
        ContractError: a model has no store, or users are to be told apart and requests do not say who they are.
    """

    def __init__(
        self,
        app: App,
        stores: Mapping[str, ServedStore],
        *,
        every_s: float = 1.0,
        catalogue: CatalogueSource | None = None,
    ) -> None:
        if missing := [name for name in models_of(app) if name not in stores]:
            raise ContractError(f"model '{missing[0]}' is to be served, but has no store of versions; open one for it")
        serving = app.config.serving
        self._shares, self._salt = dict(serving.traffic) or {app.name: 100.0}, serving.salt
        if len(self._shares) > 1 and not any(column.role == "user_id" for column in app.requests.columns):
            raise ContractError(
                f"{app.requests.path}: serving.traffic is split by user, but no column has the role user_id; "
                "give it to one, or serve one model"
            )
        made = {name: Refresher(app, stores[name], every_s=every_s, catalogue=catalogue) for name in models_of(app)}
        self.answering = {name: made[name] for name in self._shares}  #: with traffic
        self.shadows = {name: made[name] for name in serving.shadows}
        self._running = ExitStack()

    def __enter__(self) -> "Arms":
        with ExitStack() as stack:
            for refresher in [*self.answering.values(), *self.shadows.values()]:
                stack.enter_context(refresher)
            self._running = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def sample(self, request: bytes) -> None:
        """A request as they come here: new versions warm up with it."""
        for refresher in [*self.answering.values(), *self.shadows.values()]:
            refresher.sample = request

    def parted(self, user_ids: Sequence[str | None]) -> dict[str, list[int]]:
        """Model -> the places of the users that it answers; who is not named gets the first model.

        >>> from contracts.app import load_app
        >>> from nodes.fakes import MemoryWeights
        >>> Arms(load_app("adsim"), {"adsim": MemoryWeights("adsim")}).parted(["u1", None])
        {'adsim': [0, 1]}
        """
        if len(self._shares) == 1:
            return {next(iter(self._shares)): list(range(len(user_ids)))}
        first = next(iter(self._shares))
        parts: dict[str, list[int]] = {}
        for place, user_id in enumerate(user_ids):
            name = first if user_id is None else arm_of(user_id, self._shares, self._salt)
            parts.setdefault(name, []).append(place)
        return parts
