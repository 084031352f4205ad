"""What is read of hints from their sources, and what is said where a declaration cannot be read."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.declared_hints import HintName, declared_hints
from contracts.errors import ContractError

TOLD = 'paper="mine", scaling="sum a row"'


def folder(tmp_path: Path, **sources: str) -> Path:
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


def function(declaration: str, name: str = "mine") -> str:
    return f"{declaration}\ndef {name}(fs, ft):\n    return fs\n"


def test_functions_are_found_in_any_file_with_what_is_above_them_and_nothing_is_run(tmp_path: Path) -> None:
    found = declared_hints(
        folder(
            tmp_path,
            last=function(f'@hint("hidden", pairs=True, {TOLD})', "rows"),
            first='raise SystemExit("run")\n'
            + function("", "no_hint")
            + function(f'@cache\n@hint("equal", {TOLD}, variants={{"one": {{"p": 1}}, "two": {{"p": 2}}}})', "norm"),
            none="",
        )
    )
    assert [(name, at.module, at.function, dict(at.options)) for name, at in found.items()] == [
        ("one", "first", "norm", {"p": 1}),
        ("two", "first", "norm", {"p": 2}),
        ("rows", "last", "rows", {}),
    ]
    assert found["rows"].row == HintName("hidden", pairs=True, paper="mine", scaling="sum a row")
    assert found["two"].place == f"{tmp_path / 'first.py'}, line 6"


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        HintName,
        st.sampled_from(["logit", "hidden", "layers"]),
        paper=st.text(),
        scaling=st.text(),
        learns=st.sampled_from(["", "regressor"]),
        pairs=st.booleans(),
        agrees=st.booleans(),
        teacher_only_tells=st.booleans(),
        variants=st.dictionaries(
            st.text(), st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False))
        ),
    )
)
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, row: HintName) -> None:
    told = ", ".join(f"{field}={getattr(row, field)!r}" for field in HintName.__slots__)
    found = declared_hints(folder(tmp_path_factory.mktemp("hints"), one=function(f"@hint({told})")))
    assert [*found] == [*(row.variants or ["mine"])]
    assert all(at.row == row for at in found.values())


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        (f'@hint("equal", learns=MAP, {TOLD})', "line 1: @hint is read, not run; write its values out as literals"),
        (f'@hint(*["equal"], {TOLD})', "line 1: @hint is read, not run; write its values out as literals"),
        (
            f'@hint("equal", scale="sum", {TOLD})',
            "line 1: @hint got an unexpected keyword argument 'scale'; ",
        ),
        ('@hint("equal", paper="mine")', "line 1: @hint missing 1 required keyword-only argument: 'scaling'; "),
        (f'@hint("hiden", {TOLD})', "line 1: @hint: takes = 'hiden': no such tensors; did you mean 'hidden'?"),
        (f'@hint("equal", learns="regresor", {TOLD})', "learns = 'regresor': .*; did you mean 'regressor'?"),
        (f'@hint("maps", {TOLD})', "line 1: @hint: nets that judge clicks have no maps; name .* instead = '...'"),
        (f'@hint("equal", instead="other", {TOLD})', "instead = .other. refuses what a click has; say because = "),
        (f'@hint("maps", instead="othr", {TOLD})', "'mine' has instead = 'othr', which .*; did you mean 'other'?"),
        (
            f'@hint("maps", instead="mine", {TOLD})',
            "'mine' has instead = 'mine', which .*; known: other",
        ),
    ],
)
def test_a_declaration_that_cannot_be_read_is_refused_in_one_sentence(
    tmp_path: Path, declaration: str, said: str
) -> None:
    other = function(f'@hint("equal", {TOLD})', "other")
    with pytest.raises(ContractError) as error:
        declared_hints(folder(tmp_path, family=function(declaration), other=other))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "family.py"))
    assert re.search(said, str(error.value)), error.value


def test_two_hints_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    one = function(f'@hint("equal", {TOLD})')
    two = function(f'@hint("equal", {TOLD}, variants={{"other": {{}}, "mine": {{}}}})', "theirs")
    with pytest.raises(ContractError, match="give one of them another name") as error:
        declared_hints(folder(tmp_path, one=one, two=two))
    assert f"{tmp_path / 'two.py'}, line 1: hint 'mine'" in str(error.value)
    assert f"declared in {tmp_path / 'one.py'}, line 1 too" in str(error.value)


def test_a_folder_without_hints_is_not_taken_for_an_empty_shelf(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no hint is declared there; install Rocket with its sources"):
        declared_hints(folder(tmp_path, none="x = 1\n"))
