"""What holds for the whole repository: layout, import rules, names, sizes, and nothing that runs foreign code."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cli import VERBS

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("contracts", "model", "nodes", "flows", "deploy")
_LAYOUT = {*_PACKAGES, "tests", "pyproject.toml", "README.md", "DESIGN.md", "CHANGELOG.md", "LICENSE", "Makefile",
           "requirements.lock"}  # fmt: skip
_MADE = {"runs", "dist"}  # by running the product; ignored by git
_GOD_MODULES = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "base",
    "manager",
    "managers",
    "handler",
    "handlers",
    "misc",
}
_CLIENTS = {"kafka", "redis"}  # a module named like a library hides it
_UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
_UNSAFE_CALLS = {
    "eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "os.system",
    "os.popen",
}  # fmt: skip


def _files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (_ROOT / folder).rglob("*.py"))


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _unsafe(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [name for name in _imports(tree) if name.split(".")[0] in _UNSAFE_MODULES or name in _UNSAFE_CALLS]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            found += [name] if name in _UNSAFE_CALLS else []
            switches = {key.arg for key in node.keywords if getattr(key.value, "value", None) is True}
            found += [f"{name}({switch}=True)" for switch in switches & {"allow_pickle", "shell"}]
    return found


def test_the_top_level_is_exactly_the_layout() -> None:
    found = {
        path.name for path in _ROOT.iterdir() if not path.name.startswith(".") and not path.name.endswith(".egg-info")
    }
    assert found - _MADE == _LAYOUT


def test_every_folder_of_code_says_what_it_is_for() -> None:
    for package in _PACKAGES:
        assert ast.get_docstring(ast.parse((_ROOT / package / "__init__.py").read_text())), package


def test_no_module_has_a_name_that_gathers_everything() -> None:
    assert [path for path in _files(*_PACKAGES, "tests") if path.stem in _GOD_MODULES | _CLIENTS] == []


@pytest.mark.parametrize(("folders", "most"), [(_PACKAGES, 300), (("tests",), 400)])
def test_every_file_has_one_purpose_and_few_lines(folders: tuple[str, ...], most: int) -> None:
    sizes = {str(path.relative_to(_ROOT)): len(path.read_text().splitlines()) for path in _files(*folders)}
    assert {name: lines for name, lines in sizes.items() if lines > most} == {}


def test_every_module_begins_with_what_it_is() -> None:
    bare = [path for path in _files(*_PACKAGES) if not ast.get_docstring(ast.parse(path.read_text()))]
    assert bare == []


def test_no_annotations_are_hidden_from_beam() -> None:
    for path in _files(*_PACKAGES, "tests"):
        assert "__future__.annotations" not in _imports(ast.parse(path.read_text())), path


def test_nothing_runs_code_that_comes_with_data() -> None:
    found = {str(path.relative_to(_ROOT)): _unsafe(path.read_text()) for path in _files(*_PACKAGES)}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "import torch\ntorch.load('x')", "eval('1')", "yaml.load(f)",
     "from torch import load", "np.load(f, allow_pickle=True)", "subprocess.run(c, shell=True)"],
)  # fmt: skip
def test_the_search_for_unsafe_calls_finds_them(source: str) -> None:
    assert _unsafe(source)


@pytest.mark.parametrize(
    "source", ["model.eval()", "yaml.safe_load(t)", "safetensors.torch.load_file(p)", "np.load(f)"]
)
def test_the_search_for_unsafe_calls_leaves_others_alone(source: str) -> None:
    assert not _unsafe(source)


def test_the_environment_is_read_in_one_module_only() -> None:
    readers = {
        str(path.relative_to(_ROOT))
        for path in _files(*_PACKAGES)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and _dotted(node) in {"os.environ", "os.getenv"}
    }
    assert readers <= {"flows/settings.py"}


def test_every_verb_has_its_module_and_every_module_its_verb() -> None:
    modules = {path.stem for path in _files("deploy/commands")} - {"__init__"}
    assert modules == {module for module, _ in VERBS.values()}


def test_imports_go_one_way() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(command)], cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_the_scorer_starts_without_heavy_packages() -> None:
    """Import rules see our modules only; this sees what the packages that we use drag in."""
    heavy = ("torch", "apache_beam", "pandas", "great_expectations", "matplotlib")
    code = (
        "import sys, flows.serve, flows.score, nodes.weight_stores\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
