"""What each hint says of itself above its function in `model/hints`, read without torch: `rocket check` has none.

A hint is one function with its declaration, in whichever file of `model/hints` it belongs:

    @hint("equal", learns="regressor", paper="Romero et al., ICLR 2015", scaling="half the squared norm a row")
    def fitnet(fs: Tensor, ft: Tensor, *, scaling: str = "half") -> Tensor:

Nothing else names it: `rocket check`, the shelf and the benchmark find it here. The sources are read, not run, so a
declaration is written in literals alone.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from contracts.errors import ContractError, did_you_mean

#: What a hint compares, of both nets. B rows.
Takes = Literal[
    "logit",  # one logit a row, [B]
    "logit, label",  # and the label, [B]
    "classes",  # logits of two classes or more, [B, C]
    "classes, label",  # and the true class, [B]
    "hidden",  # a hidden layer of each, [B, D] and [B, E]
    "equal",  # a hidden layer of each, of equal width (or made so by a learned map), [B, D]
    "layers",  # two hidden layers of each, pairwise of equal width (or made so by learned maps)
    "maps",  # spatial maps, [B, C, H, W] and [B, E, H, W]
    "pixels",  # class logits of each pixel, [B, C, H, W]
    "tokens",  # a layer over a sequence, [B, T, N]
    "attention",  # attention scores over a sequence, [B, A, T, T]
    "gradients",  # gradients of each net's label loss by the same inputs, [B, X]
    "boxes",  # numbers of a box and the truth, [B, R]
    "bins",  # distributions over bins, [B, E, N]
    "picture",  # a generated one, or a layer of its generator, [B, C, H, W]
    "pictures",  # generated pictures, and a layer of each net
    "score",  # a discriminator's of the student, [B]
    "scores",  # and of the teacher, [B]
]
#: Parameters of its own: maps to the teacher's widths; a paraphraser and a translator; such a map and a judge.
Learns = Literal["", "regressor", "factors", "discriminator"]
OF_LOGITS = ("logit", "logit, label")
OF_LAYERS = ("hidden", "equal", "layers", "gradients", "score")
#: From a declaration to the name of its function: to parse no more than that is ten times as fast.
_HEAD = re.compile(r"^@hint\(.*?^def (?P<name>\w+)", re.MULTILINE | re.DOTALL)
_Loss = TypeVar("_Loss", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class HintName:
    """The declaration of a hint; as `@hint(...)` it stands above the function, which it leaves as it is.

    Raises:
        ContractError: it takes or learns what there is not, or does not say what a click takes in its place.

    >>> HintName("hiden", paper="mine", scaling="sum a row")
    Traceback (most recent call last):
    contracts.errors.ContractError: takes = 'hiden': no such tensors; did you mean 'hidden'?
    """

    takes: Takes
    _: KW_ONLY
    paper: str
    scaling: str  #: of the default: what one cost is, "a row" or of a whole minibatch
    learns: Learns = ""
    instead: str = ""  #: the hint to take where it has no meaning for a click
    because: str = ""  #: why it has none; "": told by what it takes
    pairs: bool = False  #: it compares each row of the minibatch with each other one (`rocket.relation_rows`)
    #: where both nets agree it is 0 and flat
    agrees: bool = True
    #: the teacher only decides what counts, or has no part: no gradient reaches it even without the block
    teacher_only_tells: bool = False
    #: name -> options that it fixes, where the function is several hints; none: one, of the function's own name
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.takes not in get_args(Takes):
            raise ContractError(f"takes = '{self.takes}': no such tensors; {did_you_mean(self.takes, get_args(Takes))}")
        if self.learns not in get_args(Learns):
            known = did_you_mean(self.learns, get_args(Learns)[1:])
            raise ContractError(f"learns = '{self.learns}': no such parameters; {known}")
        of_clicks = self.takes in OF_LOGITS + OF_LAYERS
        if not of_clicks and not self.instead:
            raise ContractError(f"nets that judge clicks have no {self.takes}; name the hint to take instead = '...'")
        if of_clicks and self.instead and not self.because:
            raise ContractError(f"instead = '{self.instead}' refuses what a click has; say because = '...' why")

    @property
    def span(self) -> int:
        """How many of `rocket.feature_layers`, one after the other, one cost is made of."""
        return 2 if self.takes == "layers" else 1

    def __call__(self, loss: _Loss) -> _Loss:
        """The function as it is."""
        return loss


hint = HintName  #: as it stands above a function


class Declared(NamedTuple):
    """A hint and where its function is."""

    row: HintName
    module: str  #: in `model.hints`
    function: str
    options: Mapping[str, Any]  #: that the name fixes
    place: str  #: file and line


@cache
def declared_hints(folder: Path = Path(__file__).parents[1] / "model" / "hints") -> Mapping[str, Declared]:
    """Every hint that is declared in a folder's modules, by name, in the order of the files and in each of its lines.

    The package's own folder takes some milliseconds, once a process.

    Raises:
        ContractError: there is none, one cannot be read, two have one name, or what one names `instead` is refused too.
    """
    found: dict[str, Declared] = {}
    for source in sorted(folder.glob("*.py")):
        for name, declared in _declared_in(source):
            if name in found:
                raise ContractError(
                    f"{declared.place}: hint '{name}' is declared in {found[name].place} too; give one of them another "
                    "name"
                )
            found[name] = declared
    if not found:
        raise ContractError(f"{folder}: no hint is declared there; install Rocket with its sources")
    usable = {name for name, declared in found.items() if not declared.row.instead}
    for name, (row, *_, place) in found.items():
        if row.instead and row.instead not in usable:
            raise ContractError(
                f"{place}: hint '{name}' has instead = '{row.instead}', which a click cannot use; "
                f"{did_you_mean(row.instead, usable)}"
            )
    return found


def _declared_in(source: Path) -> Iterator[tuple[str, Declared]]:
    text = source.read_text(encoding="utf-8")
    for head in _HEAD.finditer(text):
        line = text.count("\n", 0, head.start())
        try:
            function = ast.parse(f"{head[0]}(): ...").body[0]
        except SyntaxError as error:
            raise ContractError(f"{source}, line {line + (error.lineno or 1)}: {error.msg}; mend this @hint") from error
        for call in function.decorator_list if isinstance(function, ast.FunctionDef) else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "hint":
                place = f"{source}, line {line + call.lineno}"
                row = _row(call, place)
                for name, options in (row.variants or {head["name"]: {}}).items():
                    yield name, Declared(row, source.stem, head["name"], options, place)


def _row(call: ast.Call, place: str) -> HintName:
    try:
        told = [ast.literal_eval(value) for value in call.args]
        named = {str(key.arg): ast.literal_eval(key.value) for key in call.keywords}
    except ValueError as error:
        raise ContractError(f"{place}: @hint is read, not run; write its values out as literals") from error
    try:
        return HintName(*told, **named)
    except ContractError as error:
        raise ContractError(f"{place}: @hint: {error}") from error
    except TypeError as error:
        said = str(error).partition("() ")[2]
        raise ContractError(f"{place}: @hint {said}; contracts.declared_hints.HintName says what it takes") from error
