"""An app: a folder with `app.toml` and three data contracts. What differs between two users of Rocket."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contracts.buckets import SEED
from contracts.errors import ContractError, did_you_mean
from contracts.features import Feature, Layout, layout_of
from contracts.odcs import DataContract, Role, load_contract
from contracts.sections import (
    Evaluate,
    Ingest,
    Labels,
    Model,
    Publish,
    Rocket,
    Sampling,
    Section,
    Serving,
    Train,
)


class AppConfig(Section):
    """The whole of `app.toml`."""

    name: str
    description: str = ""
    ingest: Ingest
    labels: Labels = Labels()
    sampling: Sampling = Sampling()
    features: tuple[Feature, ...]
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
            "features": [
                feature.model_dump(mode="json", by_alias=True, exclude={"description"}) for feature in self.features
            ],
            "columns": {c.name: c.physical for c in self.impressions.columns if c.name in used},
            "event_time": self.impressions.role("event_time"),
            "hash_seed": SEED,
        }
        canonical = json.dumps(seen, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


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
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{path}: not TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: cannot be read ({error})") from error
    try:
        config = AppConfig.model_validate(_merged(raw, overrides or {}))
    except ValidationError as error:
        raise ContractError(_explain(path, error)) from error
    app = App(
        folder=folder,
        config=config,
        impressions=load_contract(folder / "impressions.odcs.yaml"),
        clicks=load_contract(folder / "clicks.odcs.yaml"),
        requests=load_contract(folder / "requests.odcs.yaml"),
    )
    _check(app, path)
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


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = value
    return merged


def _explain(path: Path, error: ValidationError) -> str:
    """The first complaint of pydantic as one sentence with the line and a suggestion."""
    first = error.errors()[0]
    where = [str(step) for step in first["loc"]]
    key = ".".join(where)
    line = _line_of(path, where)
    at = f"{path}, line {line}, key {key}" if line else f"{path}, key {key}"
    if first["type"] == "extra_forbidden":
        return f"{at}: unknown key; {did_you_mean(where[-1], _keys_at(where[:-1]))}"
    if first["type"] == "missing":
        return f"{at}: is missing; add it"
    return f"{at}: {first['msg'].removeprefix('Value error, ')} (it says {first['input']!r})"[:600]


def _keys_at(where: list[str]) -> list[str]:
    """The keys that the settings know at a dotted place."""
    model: Any = AppConfig
    for step in where:
        if step.isdigit():
            continue
        annotation = model.model_fields[step].annotation if step in model.model_fields else None
        model = Feature if step == "features" else annotation
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _line_of(path: Path, where: list[str]) -> int | None:
    """The line of a key in a TOML file: the last line that sets it inside its own table."""
    table = [step for step in where[:-1] if not step.isdigit()]
    position = next((int(step) for step in where if step.isdigit()), None)
    current: list[str] = []
    seen = -1
    header = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if text.startswith("["):
            current = text.strip("[] \t").split("#")[0].strip().strip("]").split(".")
            if text.startswith("[["):
                seen += 1
            if current == table and (position is None or seen == position):
                header = number
        elif current == table and (position is None or seen == position):
            if text.split("=")[0].strip().strip('"') == where[-1]:
                return number
    return header


def _check(app: App, path: Path) -> None:
    """What only the whole app shows: every feature's column exists, on its side, and sequences refer to ids.

    Raises:
        ContractError: naming the feature, the column and a suggestion.
    """
    columns = {column.name: column for column in app.impressions.columns}
    names = [feature.name for feature in app.features]
    ids = {feature.name: feature for feature in app.features if feature.output == "id"}
    for index, feature in enumerate(app.features):
        at = f"{path}, line {_line_of(path, ['features', str(index), 'name'])}, feature '{feature.name}'"
        if names.count(feature.name) > 1:
            raise ContractError(f"{at}: the name stands twice; rename one")
        if feature.name in columns and feature.inputs != (feature.name,):
            raise ContractError(f"{at}: a contract column that it does not read has that name; rename the feature")
        for name in feature.inputs:
            if name not in columns:
                raise ContractError(
                    f"{at}: {app.impressions.path} has no column '{name}'; {did_you_mean(name, columns)}"
                )
        if feature.output == "ids" and feature.of not in ids:
            raise ContractError(f"{at}: of = '{feature.of}' is no id feature; {did_you_mean(str(feature.of), ids)}")
        if feature.output == "ids" and feature.only != "booster":
            raise ContractError(f'{at}: a sequence is pooled by the booster only; add only = "booster"')
    if not app.layout.light_ids and not app.layout.light_dense:
        raise ContractError(f"{path}: every feature is only for the booster; the light net needs at least one")
    requested = {column.name: column for column in app.requests.columns}
    for feature in (f for f in app.features if f.only is None):
        for name in feature.inputs:
            if name not in requested:
                raise ContractError(
                    f"{path}, feature '{feature.name}': {app.requests.path} does not carry the column '{name}', "
                    'so no request could be scored; add it there or make the feature only = "booster"'
                )
            if requested[name].physical != columns[name].physical:
                raise ContractError(
                    f"{app.requests.path}: column '{name}' is {requested[name].physical}, but "
                    f"{columns[name].physical} in {app.impressions.path}; give both the same type"
                )
    impression_roles: tuple[Role, ...] = ("impression_id", "user_id", "item_id", "event_time")
    click_roles: tuple[Role, ...] = ("impression_id", "click_id", "event_time")
    for role in impression_roles:
        app.impressions.role(role)
    for role in click_roles:
        app.clicks.role(role)
