"""An app: what `app.toml` may say, how its errors read, and what names it (law 7)."""

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.app import App, load_app
from contracts.errors import ContractError
from contracts.rowcheck import reasons
from deploy.commands.init import write_app

_COLUMN = """      - name: {name}
        logicalType: {logical}
        physicalType: {physical}
        customProperties:
          - {{property: side, value: {side}}}
"""
_MORE = """
[[features]]
name = "slot"
kind = "dense"
transform = "bucketise"
column = "position"
boundaries = [2, 4, 8]
side = "context"

[[features]]
name = "clicked_ads"
kind = "sequence"
column = "history"
of = "ad"
length = 20
side = "user"
only = "booster"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small app to break: the one of `rocket init` with a sequence and a bucketised feature more."""
    write_app(tmp_path, "shop")
    with (tmp_path / "app.toml").open("a") as file:
        file.write(_MORE)
    with (tmp_path / "impressions.odcs.yaml").open("a") as file:
        file.write(_COLUMN.format(name="position", logical="integer", physical="int64", side="context"))
        file.write(_COLUMN.format(name="history", logical="array", physical="list<string>", side="user"))
    device = "          - name: device\n"
    position = "          - {name: position, logicalType: integer, physicalType: int64}\n"
    _change(tmp_path, device, position + device, "requests.odcs.yaml")
    return tmp_path


def _change(folder: Path, old: str, new: str, name: str = "app.toml") -> None:
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


_AD = '[[features]]\nname = "ad"\n'
_END = "[evaluate]"
#: what is wrong -> (old text, new text, text of the line that the error names or None, parts of the message)
_WRONG = {
    "an unknown key": (
        "buckets = 32_768", "bukets = 32_768", "bukets", ["features['user'].bukets", "did you mean 'buckets'"],
    ),
    "an unknown key of a section": (
        "disorder_s = 60", "disorder = 60", "disorder = 60", ["ingest.disorder", "did you mean 'disorder_s'"],
    ),
    "an unknown section": ("[labels]", "[lables]", "[lables]", ["lables", "did you mean 'labels'"]),
    "an unknown key of a section in a section": (
        _END, f"[publish.gate]\nwindow_row = 3\n{_END}", "window_row = 3", ["publish.gate.window_row", "'window_rows'"],
    ),
    "a missing section": ("[ingest]", "[serving.x]", None, ["[ingest] is missing"]),
    "a missing key": ("event_time_max = 2039-12-31T00:00:00Z", "", "[ingest]", ["ingest.event_time_max", "is missing"]),
    "a wrong type": ("wait_s = 600", "wait_s = 'long'", "wait_s = 'long'", ["labels.wait_s", "number", "long"]),
    "a number in quotes": ("buckets = 32_768", "buckets = '32768'", "buckets = '32768'", ["valid integer"]),
    "a number that is not finite": ("wait_s = 600", "wait_s = nan", "wait_s = nan", ["labels.wait_s", "finite"]),
    "a value out of bounds": ("wait_s = 600", "wait_s = -1", "wait_s = -1", ["greater than 0"]),
    "a value that is none of those known": (
        'part = "hour_of_day"', 'part = "hour_of_dey"', "hour_of_dey", ["did you mean 'hour_of_day'"],
    ),
    "a width of zero": (
        _END, f"[model.light]\nhidden = [64, 0]\n{_END}", "hidden = [64, 0]", ["model.light.hidden[1]", "greater"],
    ),
    "a huge width": (_END, f"[model.booster]\nhidden = [1_000_000]\n{_END}", "1_000_000", ["hidden", "65536"]),
    "an unknown booster": (
        _END, f"[model.booster]\nkind = 'dcn_v3'\n{_END}", "[model.booster]", ["'dcn_v3'", "did you mean 'dcn_v2'"],
    ),
    "heads that do not divide": (
        _END, f"[model.booster]\nkind = 'finalmlp'\nhidden = [9]\n{_END}", "[model.booster]", ["9 columns", "divisor"],
    ),
    "times that descend": ("2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z", "[ingest]", ["event_time_min", "before"]),
    "a calibration that descends": (
        _END, f"[publish.gate]\ncalibration = [2, 1]\n{_END}", "[publish.gate]", ["low < high"],
    ),
    "a name that is no key": ('name = "shop"', 'name = "My shop"', "My shop", ["key name"]),
    "not TOML": ("[ingest]", "[ingest", None, ["not TOML", "line"]),
    "a feature on a missing column": (
        'column = "item_id"', 'column = "itemid"', 'name = "ad"', ["feature 'ad'", "did you mean 'item_id'"],
    ),
    "an unknown kind": (
        _AD + 'kind = "id"', _AD + 'kind = "ids"', None, ["'ids' is not built in", "did you mean 'id'"],
    ),
    "a kind that cannot read the column": (
        'column = "item_id"', 'column = "history"', 'name = "ad"', ["cannot read 'history'", "can: sequence"],
    ),
    "an id feature without buckets": ("buckets = 16\n", "", None, ["'on_device'", "needs buckets"]),
    "a name that stands twice": (_AD, _AD.replace('"ad"', '"user"'), 'name = "user"', ["stands twice"]),
    "a name that is kept": (_AD, _AD.replace('"ad"', '"label"'), 'name = "label"', ["is kept"]),
    "a name of another column": (_AD, _AD.replace('"ad"', '"price"'), 'name = "price"', ["does not read", "rename"]),
    "a sequence of no id feature": ('of = "ad"', 'of = "add"', 'name = "clicked_ads"', ["'add'", "did you mean 'ad'"]),
    "a sequence for the light net": (
        'length = 20\nside = "user"\nonly = "booster"', 'length = 20\nside = "user"', 'name = "clicked_ads"',
        ['add only = "booster"'],
    ),
    "a streaming feature for the light net": (
        'columns = ["user_id"]\nside = "user"\nonly = "booster"', 'columns = ["user_id"]\nside = "user"', None,
        ["'user_rate'", "streaming", 'only = "booster"'],
    ),
    "a side that the request does not have it on": (
        'column = "item_id"\nside = "item"', 'column = "item_id"\nside = "user"', 'name = "ad"',
        ["lies in its candidates"],
    ),
    "boundaries that do not ascend": ("[2, 4, 8]", "[2, 8, 4]", None, ["'slot'", "must ascend"]),
    "a segment of no column": ('segments = ["device"', 'segments = ["devise"', "devise", ["did you mean 'device'"]),
}  # fmt: skip


@pytest.mark.parametrize("what", _WRONG)
def test_a_wrong_app_is_told_with_file_line_and_mend(what: str, folder: Path) -> None:
    old, new, marker, parts = _WRONG[what]
    _change(folder, old, new)
    with pytest.raises(ContractError) as caught:
        load_app(folder)
    said = str(caught.value)
    assert said.startswith(str(folder / "app.toml"))
    assert "\n" not in said
    if marker is not None:
        lines = (folder / "app.toml").read_text().splitlines()
        assert f", line {next(n for n, line in enumerate(lines, 1) if marker in line)}, " in said
    for part in parts:
        assert part in said


#: what is wrong -> (file, old text, new text, parts of the message)
_MISFIT = {
    "a role without column": (
        "clicks", "{property: role, value: click_id}", "{property: x, value: y}", ["role 'click_id'"],
    ),
    "a time that is a double": (
        "clicks",
        "logicalType: integer\n        physicalType: int64",
        "logicalType: number\n        physicalType: double",
        ["event_time", "must be int64"],
    ),
    "a role that may be null": (
        "clicks", "physicalType: string\n        required: true\n        unique: true", "physicalType: string",
        ["role click_id", "required: true"],
    ),
    "a request without id": ("requests", "name: id", "name: tmax_", ["needs the column 'id'"]),
    "a request that lacks a column": (
        "requests", "- name: price", "- name: prise", ["does not carry the column 'price'"],
    ),
    "a request with another type": (
        "requests", "- name: price\n              logicalType: number\n              physicalType: double",
        "- name: price\n              logicalType: integer\n              physicalType: int64",
        ["'price' is int64, but double"],
    ),
    "a column on top of a request": ("requests", "name: tmax", "name: tmin", ["'tmin' stands on top"]),
    "an event that is nested": (
        "impressions", "      - name: price ", "      - {name: user, logicalType: object, properties: "
        "[{name: z, logicalType: string, physicalType: string}]}\n      - name: price ", ["'z' lies in an object"],
    ),
    "a column whose name is kept": ("impressions", "name: price", "name: label", ["'label' is kept"]),
}  # fmt: skip


@pytest.mark.parametrize("what", _MISFIT)
def test_contracts_that_do_not_fit_each_other_are_told(what: str, folder: Path) -> None:
    stream, old, new, parts = _MISFIT[what]
    _change(folder, old, new, f"{stream}.odcs.yaml")
    with pytest.raises(ContractError) as caught:
        load_app(folder)
    for part in [f"{stream}.odcs.yaml", *parts]:
        assert part in str(caught.value)


def test_an_app_that_is_not_there_gives_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no app 'adsin'.*did you mean 'adsim'"):
        load_app("adsin")
    with pytest.raises(ContractError, match="rocket init"):
        load_app(tmp_path)


def test_a_file_that_is_huge_or_not_text_is_refused(folder: Path) -> None:
    with (folder / "app.toml").open("a") as file:
        file.write("# " + "x" * 1_100_000)
    with pytest.raises(ContractError, match="more than 1,048,576 bytes"):
        load_app(folder)
    (folder / "app.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ContractError, match="not UTF-8"):
        load_app(folder)
    (folder / "app.toml").write_text("a = " + "[" * 100_000 + "]" * 100_000)
    with pytest.raises(ContractError, match="nested too deeply"):
        load_app(folder)


def test_overrides_are_laid_over_the_file_and_checked_alike() -> None:
    assert load_app("adsim", {"train": {"seed": 7}}).config.train.seed == 7
    with pytest.raises(ContractError, match=r"train\.sed: unknown key; did you mean 'seed'"):
        load_app("adsim", {"train": {"sed": 7}})


def test_every_shipped_contract_compiles_to_a_row_check(adsim: App, kuairand: App) -> None:
    for app in (adsim, kuairand):
        for contract in (app.impressions, app.clicks, app.requests):
            assert reasons(contract) is not None


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("app.toml", "buckets = 32_768", "buckets = 32_769"),
        ("app.toml", "boundaries = [2,", "boundaries = [1.5,"),
        ("app.toml", 'name = "price_log"', 'name = "price_logarithm"'),
        ("app.toml", 'transform = "log1p"', 'transform = "raw"'),
        ("app.toml", "length = 20", "length = 21"),
        ("app.toml", "buckets = 16", 'buckets = 16\nonly = "booster"'),
        ("app.toml", 'column = "device"\nside = "context"', 'column = "user_id"\nside = "user"'),
    ],
)
def test_schema_id_changes_with_what_the_nets_see(file: str, old: str, new: str, folder: Path) -> None:
    before = load_app(folder).schema_id
    _change(folder, old, new, file)
    assert load_app(folder).schema_id != before


def test_schema_id_changes_with_the_type_of_a_column_in_use(folder: Path) -> None:
    before = load_app(folder).schema_id
    _change(
        folder,
        "integer\n        physicalType: int64\n        customP",
        "number\n        physicalType: double\n        customP",
        "impressions.odcs.yaml",
    )
    _change(folder, "{name: position, logicalType: integer, physicalType: int64}",
            "{name: position, logicalType: number, physicalType: double}", "requests.odcs.yaml")  # fmt: skip
    assert load_app(folder).schema_id != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("impressions.odcs.yaml", "purpose: One row", "purpose: A row"),
        ("impressions.odcs.yaml", "{minimum: 0, maximum: 10000}", "{minimum: 0, maximum: 200}"),
        ("impressions.odcs.yaml", "validValues: [mobile, desktop", "validValues: [watch, mobile, desktop"),
        ("impressions.odcs.yaml", "version: 1.0.0", "version: 1.0.1"),
        ("app.toml", 'description = "What', 'description = "That'),
        ("app.toml", _AD, _AD + 'description = "what is shown"\n'),
        ("app.toml", _END, f"[model]\nembedding_dim = 16\nlight.hidden = [8]\nbooster.hidden = [9]\n{_END}"),
        ("app.toml", _END, f"[train]\nseed = 5\n{_END}"),
    ],
)
def test_schema_id_ignores_descriptions_ranges_and_sizes(file: str, old: str, new: str, folder: Path) -> None:
    before = load_app(folder).schema_id
    _change(folder, old, new, file)
    assert load_app(folder).schema_id == before


def test_schema_id_is_the_same_in_every_process(adsim: App, kuairand: App) -> None:
    code = "from contracts.app import load_app; print(load_app('adsim').schema_id, load_app('kuairand').schema_id)"
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        assert done.stdout.split() == [adsim.schema_id, kuairand.schema_id]
    assert adsim.schema_id != kuairand.schema_id
