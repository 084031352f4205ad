"""What only the whole app shows: features, contracts and sections fit each other."""

from collections.abc import Mapping
from pathlib import Path

from contracts.app_errors import line_of
from contracts.columns import Column, DataContract, Role
from contracts.errors import ContractError, did_you_mean
from contracts.features import STATEFUL, Feature
from contracts.sections import Labels, Sampling
from contracts.segments import EXAMPLE

_IMPRESSION_ROLES: tuple[Role, ...] = ("impression_id", "user_id", "item_id", "event_time")
_CLICK_ROLES: tuple[Role, ...] = ("impression_id", "click_id", "event_time")
_REQUEST_ROLES: tuple[Role, ...] = ("item_id", "event_time")
#: What stands on top of a request, beside user, context and candidates.
ENVELOPE = {"id": "string", "event_time_ms": "int64", "tmax": "int64"}
#: kind -> the physicalTypes that it can read; a kind that is not here can read any.
_READS = {
    "id": {"string", "int64", "boolean"},
    "cross": {"string", "int64", "boolean"},
    "dense": {"int64", "double", "boolean"},
    "time": {"int64"},
    "sequence": {"list<string>"},
}
_KEPT = EXAMPLE.keys() - {"impression_id", "user_id", "item_id", "event_time_ms"}


def check_contracts(impressions: DataContract, clicks: DataContract, requests: DataContract) -> None:
    """The three contracts have their roles, and only requests are nested.

    Raises:
        ContractError: naming the contract, the column or role, and the mend.
    """
    for contract, roles in ((impressions, _IMPRESSION_ROLES), (clicks, _CLICK_ROLES), (requests, _REQUEST_ROLES)):
        for role in roles:
            _check_role(contract, role)
    for contract in (impressions, clicks):
        for column in contract.columns:
            if column.within is not None:
                raise ContractError(f"{contract.path}: column '{column.name}' lies in an object; an event is flat")
            if column.name in _KEPT:
                raise ContractError(f"{contract.path}: the name '{column.name}' is kept for examples; rename it")
    _check_request(requests)


def _check_request(requests: DataContract) -> None:
    top = {column.name: column for column in requests.columns if column.within is None}
    for name, physical in ENVELOPE.items():
        if name not in top and name != "tmax":
            raise ContractError(f"{requests.path}: a request needs the column '{name}' ({physical}) on top; add it")
        if name in top and top[name].physical != physical:
            raise ContractError(f"{requests.path}: column '{name}' is {top[name].physical}; make it {physical}")
    for name in top:
        if name not in ENVELOPE:
            raise ContractError(f"{requests.path}: '{name}' stands on top; move it into user, context or candidates")
    for column in requests.columns:
        if column.role == "item_id" and column.within != "candidates":
            raise ContractError(f"{requests.path}: the item_id '{column.name}' must lie in candidates; move it there")


def check_features(
    path: Path, features: tuple[Feature, ...], impressions: DataContract, requests: DataContract
) -> None:
    """Every feature's column exists and suits it, and a request carries what the light net sees.

    Raises:
        ContractError: naming the line, the feature, the column and a suggestion.
    """
    columns = {column.name: column for column in impressions.columns}
    ids = {feature.name for feature in features if feature.output == "id"}
    names = [feature.name for feature in features]
    for index, feature in enumerate(features):
        at = f"{path}, line {line_of(path, ('features', index, 'name'))}, feature '{feature.name}'"
        if names.count(feature.name) > 1:
            raise ContractError(f"{at}: the name stands twice; rename one")
        if feature.name in EXAMPLE:
            raise ContractError(f"{at}: the name is kept for a column of every example; rename the feature")
        if feature.name in columns and feature.inputs != (feature.name,):
            raise ContractError(f"{at}: a contract column that it does not read has that name; rename the feature")
        _check_inputs(at, feature, columns, impressions.path)
        if feature.output == "ids" and feature.of not in ids:
            raise ContractError(f"{at}: of = '{feature.of}' is no id feature; {did_you_mean(str(feature.of), ids)}")
        if feature.output == "ids" and feature.only != "booster":
            raise ContractError(f'{at}: a sequence is pooled by the booster only; add only = "booster"')
        if feature.only is None:
            _check_requested(at, feature, columns, requests)
    if all(feature.only is not None for feature in features):
        raise ContractError(f"{path}: every feature is only for the booster; the light net needs at least one")


def check_delayed(path: Path, labels: Labels, sampling: Sampling, features: tuple[Feature, ...]) -> None:
    """Labels that come late can be corrected for what sampling takes away.

    Raises:
        ContractError: naming the mode and the mend.
    """
    if labels.mode == "wait" or sampling.negative_keep_rate == 1:
        return
    at = f'{path}, line {line_of(path, ("sampling",))}, labels.mode = "{labels.mode}"'
    if sampling.correction == "logit":
        raise ContractError(
            f"{at}: a shift of the logit does not undo sampling where negatives are corrected later; "
            'set sampling.correction = "weight"'
        )
    stateful = next((feature.name for feature in features if feature.kind in STATEFUL), None)
    if stateful is not None:
        raise ContractError(
            f"{at}: a correction whose negative was sampled out would lack the streaming feature '{stateful}'; "
            "set sampling.negative_keep_rate = 1, or leave the feature out"
        )


def check_segments(path: Path, segments: tuple[str, ...], impressions: DataContract) -> None:
    """The report breaks figures down by columns that exist.

    Raises:
        ContractError: naming the column and a suggestion.
    """
    known = [column.name for column in impressions.columns]
    for name in segments:
        if name not in known:
            at = f"{path}, line {line_of(path, ('evaluate', 'segments'))}, key evaluate.segments"
            raise ContractError(f"{at}: {impressions.path} has no column '{name}'; {did_you_mean(name, known)}")


def _check_role(contract: DataContract, role: Role) -> None:
    name = contract.role(role)
    column = next(column for column in contract.columns if column.name == name)
    physical = "int64" if role == "event_time" else "string"
    if column.physical != physical:
        raise ContractError(
            f"{contract.path}: column '{name}' has the role {role}, so it must be {physical}, not {column.physical}"
        )
    if not column.required:
        raise ContractError(f"{contract.path}: column '{name}' has the role {role}, so it needs required: true")


def _check_inputs(at: str, feature: Feature, columns: Mapping[str, Column], path: str) -> None:
    for name in feature.inputs:
        if name not in columns:
            raise ContractError(f"{at}: {path} has no column '{name}'; {did_you_mean(name, columns)}")
        physical = columns[name].physical
        fitting = _READS.get(feature.kind)
        if fitting and physical not in fitting:
            could = sorted(kind for kind, types in _READS.items() if physical in types)
            raise ContractError(
                f"{at}: kind '{feature.kind}' cannot read '{name}', which is {physical}; "
                f"kinds that can: {', '.join(could) or 'one of your own'}"
            )


def _check_requested(at: str, feature: Feature, columns: Mapping[str, Column], requests: DataContract) -> None:
    requested = {column.name: column for column in requests.columns}
    for name in feature.inputs:
        if name not in requested:
            raise ContractError(
                f"{at}: {requests.path} does not carry the column '{name}', so no request could be scored; "
                'add it there or make the feature only = "booster"'
            )
        if requested[name].physical != columns[name].physical:
            raise ContractError(
                f"{requests.path}: column '{name}' is {requested[name].physical}, but {columns[name].physical} "
                "in the impressions; give both the same type"
            )
        if feature.side != "item" and requested[name].within == "candidates":
            raise ContractError(
                f"{at}: side '{feature.side}' is computed once a request, but '{name}' lies in its candidates; "
                'make it side = "item"'
            )
