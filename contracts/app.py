"""An app: a folder with `app.toml` and three data contracts. What differs between two users of Rocket."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from contracts.app_checks import check_contracts, check_delayed, check_features, check_segments
from contracts.app_errors import explain, read_toml
from contracts.buckets import SEED
from contracts.errors import ContractError, did_you_mean
from contracts.features import Feature, Layout, layout_of
from contracts.model_checks import check_light, check_model, check_rocket, check_train
from contracts.nets import Model, Rocket
from contracts.odcs import DataContract, load_contract
from contracts.schemes import check_scheme
from contracts.sections import (
    Evaluate,
    Flink,
    Ingest,
    Kafka,
    Labels,
    Live,
    Publish,
    Sampling,
    Section,
    Serving,
)
from contracts.training import Train


class AppConfig(Section):
    """The whole of `app.toml`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")  #: stands in Redis keys and file names
    description: str = ""
    ingest: Ingest
    live: Live = Live()
    kafka: Kafka = Kafka()
    flink: Flink = Flink()
    labels: Labels = Labels()
    sampling: Sampling = Sampling()
    features: tuple[Feature, ...] = Field(min_length=1)
    model: Model = Model()
    rocket: Rocket = Rocket()
    train: Train = Train()
    publish: Publish = Publish()
    serving: Serving = Serving()
    evaluate: Evaluate = Evaluate()


@dataclass(frozen=True)
class App:
    """A loaded and checked app."""

    folder: Path
    config: AppConfig
    impressions: DataContract
    clicks: DataContract
    requests: DataContract

    @property
    def name(self) -> str:
        """The app's name, as in `app.toml`."""
        return self.config.name

    @property
    def features(self) -> tuple[Feature, ...]:
        """The one table of features."""
        return self.config.features

    @cached_property
    def layout(self) -> Layout:
        """Where each feature lies in the tensors."""
        return layout_of(self.config.features)

    @cached_property
    def schema_id(self) -> str:
        """16 hex digits that name what the nets see: feature table, columns used, their types, hash seed (law 7)."""
        used = {name for feature in self.features for name in feature.inputs}
        seen = {
            "features": [_seen(feature) for feature in self.features],
            "columns": {c.name: c.physical for c in self.impressions.columns if c.name in used},
            "event_time": self.impressions.role("event_time"),
            "hash_seed": SEED,
        }
        canonical = json.dumps(seen, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _seen(feature: Feature) -> dict[str, Any]:
    """What the nets see of a feature: of a dynamic table its size, not how ids come and go."""
    seen: dict[str, Any] = feature.model_dump(mode="json", by_alias=True, exclude={"description", "dynamic"})
    return seen if feature.dynamic is None else seen | {"dynamic": {"capacity": feature.dynamic.capacity}}


def shipped_apps() -> dict[str, Path]:
    """Name -> folder of the apps that come with Rocket."""
    root = Path(str(files("contracts"))) / "apps"
    return {entry.name: entry for entry in sorted(root.iterdir()) if (entry / "app.toml").is_file()}


def load_app(name_or_dir: str | Path, overrides: Mapping[str, Any] | None = None) -> App:
    """Load an app by the name of a shipped one or by its folder.

    Args:
        name_or_dir: "adsim", "kuairand", or a folder that holds an `app.toml`.
        overrides: settings laid over the file, nested as in it: `{"train": {"seed": 2}}`.

    Raises:
        ContractError: naming the file, the key or line, and the mend.
    """
    folder = _folder(name_or_dir)
    path = folder / "app.toml"
    raw = laid_over(read_toml(path), overrides or {})
    try:
        # As JSON, so that strict mode takes a list for a tuple, but neither "2" nor true for an integer.
        config = AppConfig.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        raise ContractError(explain(path, raw, AppConfig, error)) from error
    app = App(
        folder=folder,
        config=config,
        impressions=load_contract(folder / "impressions.odcs.yaml"),
        clicks=load_contract(folder / "clicks.odcs.yaml"),
        requests=load_contract(folder / "requests.odcs.yaml"),
    )
    check_contracts(app.impressions, app.clicks, app.requests)
    check_features(path, app.features, app.impressions, app.requests)
    check_segments(path, config.evaluate.segments, app.impressions)
    check_delayed(path, config.labels, config.sampling, config.features)
    check_model(path, config.model, config.features)
    check_light(path, config.model)
    check_rocket(path, config.model, config.rocket)
    check_scheme(path, config.model, config.rocket, config.features)
    check_train(path, config.train, config.model)
    return app


def _folder(name_or_dir: str | Path) -> Path:
    shipped = shipped_apps()
    if str(name_or_dir) in shipped:
        return shipped[str(name_or_dir)]
    folder = Path(name_or_dir)
    if (folder / "app.toml").is_file():
        return folder
    if folder.is_dir():
        raise ContractError(f"{folder}: holds no app.toml; `rocket init {folder}` writes one to start from")
    raise ContractError(f"no app '{name_or_dir}': not a folder, and {did_you_mean(str(name_or_dir), shipped)}")


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with others laid over them; neither is changed.

    >>> laid_over({"train": {"seed": 1, "threads": 1}}, {"train": {"seed": 2}})
    {'train': {'seed': 2, 'threads': 1}}
    """
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = laid_over(merged[key], value)
        else:
            merged[key] = value
    return merged
