"""Texts as Jinja2 templates, in a sandbox whose work is bounded before it begins.

A template sees JSON values only: no object, no method, no call. Of Jinja2 it has output, ``if``,
``for``, comparisons, arithmetic and a few filters. Nothing in it can grow: there is no assignment,
macro or inclusion, values are cut to size on their way in, all loops of a text together turn at
most ``MAX_TURNS`` times, and the output ends at ``MAX_TEXT`` characters. Time and chance are not to
be had, so that the same values give the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from jinja2 import StrictUndefined, Template, nodes, pass_context
from jinja2.exceptions import TemplateSyntaxError
from jinja2.filters import FILTERS
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS

MAX_TEXT = 4_096  # characters of a template, and of what it makes
MAX_TURNS = 200  # of all loops of one rendering
MAX_NESTING = 2  # loops in one another
MAX_STRING = 1_000  # characters of one value
MAX_VALUES = 2_000  # in one variable
MAX_DEPTH = 8  # of one variable
COMPILED = 512  # templates kept

VARIABLES: Final = frozenset({"business", "entities", "results", "default"})

_MARKS = ("{{", "{%", "{#")
_BUDGET = "_turns"
_COUNTED = "_counted"
_LOOP: Final = frozenset({"index", "index0", "first", "last", "length"})
_PLAIN: Final = frozenset(
    {"default", "upper", "lower", "capitalize", "title", "trim", "length", "first", "last"}
    | {"abs", "int", "float", "items"}
)
_TESTS: Final = frozenset(
    {"defined", "undefined", "none", "number", "string", "mapping", "odd", "even", "in"}
    | {"eq", "ne", "lt", "le", "gt", "ge"}
)
_NODES: Final = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.CondExpr),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Getattr, nodes.Getitem),
    *(nodes.Slice, nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.Keyword),
    *(nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
)
_NOT_PRINTED = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class TemplateError(Exception):
    """A template that is not accepted, or has failed. The text is for who writes templates: it may
    quote the template, and never the values."""


def is_template(text: str) -> bool:
    """Whether a text has anything to be filled in."""
    return any(mark in text for mark in _MARKS)


def check(text: str) -> None:
    """Raises ``TemplateError`` for a template that no values could make a text of."""
    _compiled(text)


def render(text: str, variables: Mapping[str, Any]) -> str:
    """The text with its values. Raises ``TemplateError``, and nothing else whatever the template
    and the values are."""
    template = _compiled(text)
    values = {name: _Cut().value(variables[name], MAX_DEPTH) for name in VARIABLES & set(variables)}
    pieces: list[str] = []
    left = MAX_TEXT
    try:
        for piece in template.generate(values | {_BUDGET: _Turns()}):
            left -= len(piece)
            if left < 0:
                raise TemplateError(f"the text has more than {MAX_TEXT} characters")
            pieces.append(piece)
    except TemplateError:
        raise
    except Exception as error:
        # The messages of others may quote values.
        raise TemplateError(f"{type(error).__name__} while the text is made") from None
    return "".join(pieces).strip()


class _Turns:
    """What is left of the turns that loops may take."""

    def __init__(self) -> None:
        self._left = MAX_TURNS

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise TemplateError(f"the loops turn more than {MAX_TURNS} times")


class _Cut:
    """Values as templates see them: JSON, cut to size, keys in order, each text on one line."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def value(self, given: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth < 0:
            return None
        if isinstance(given, str):
            return _NOT_PRINTED.sub(" ", given[: 4 * MAX_STRING]).strip()[:MAX_STRING]
        if isinstance(given, Mapping):
            # The database keeps keys in an order of its own: a repetition must not see another.
            return {
                key: self.value(given[key], depth - 1) for key in sorted(given) if self._left > 0
            }
        if isinstance(given, list | tuple):
            return [self.value(item, depth - 1) for item in given[: max(self._left, 0)]]
        if isinstance(given, float) and given.is_integer() and abs(given) < 1e15:
            return int(given)  # "3", as a person writes it
        return given if isinstance(given, bool | int | float | None) else None


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext):
            return getattr(obj, attribute) if attribute in _LOOP else self.undefined(name=attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Members of JSON values, and nothing that Python has besides."""
        if isinstance(obj, Undefined):
            return obj  # its use fails, its absence can be tested for
        try:
            if isinstance(obj, dict) and isinstance(argument, str):
                return obj[argument]
            if isinstance(obj, list | tuple | str) and isinstance(argument, int | slice):
                return obj[argument]
        except (KeyError, IndexError):
            pass
        return self.undefined(name=str(argument))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return _bounded(left + right)
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            raise TemplateError(f"{operator} is for numbers")
        return super().call_binop(context, operator, left, right)


def _finalize(value: Any) -> Any:
    if isinstance(value, Undefined):
        return value  # says by itself that it is none
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TemplateError("what is printed must be a text or a number")
    return value


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise TemplateError(f"a value has more than {MAX_TEXT} characters")
    return text


@pass_context
def _counted(context: Context, value: Iterable[Any]) -> list[Any]:
    if isinstance(value, Undefined | str):
        raise TemplateError("a loop goes through a list")
    items = list(value)
    context[_BUDGET].take(len(items))
    return items


def _join(value: Iterable[Any], separator: str = "") -> str:
    if isinstance(value, Undefined | str):
        raise TemplateError("join is for lists")
    parts = [str(_finalize(part)) for part in value]
    if sum(map(len, parts)) + len(separator) * len(parts) > MAX_TEXT:
        raise TemplateError(f"a value has more than {MAX_TEXT} characters")
    return separator.join(parts)


def _decimals(value: float, digits: int = 2) -> str:
    if not 0 <= digits <= 6 or abs(value) >= 1e15:
        raise TemplateError("decimals is for 0 to 6 digits of a number below 1e15")
    return f"{value:.{digits}f}"


def _environment() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined, finalize=_finalize, cache_size=0, optimized=False
    )
    own: dict[str, Callable[..., Any]]
    own = {"join": _join, "decimals": _decimals, _COUNTED: _counted}
    environment.filters = {name: FILTERS[name] for name in _PLAIN} | own
    environment.tests = {name: TESTS[name] for name in _TESTS}
    environment.globals = {}
    return environment


_ENVIRONMENT = _environment()
_FILTERS: Final = _PLAIN | {"join", "decimals"}


@lru_cache(COMPILED)
def _compiled(text: str) -> Template:
    if len(text) > MAX_TEXT:
        raise TemplateError(f"a text has at most {MAX_TEXT} characters")
    try:
        tree = _ENVIRONMENT.parse(text)
        _check(tree, 0)
        for name in sorted(_undeclared(tree)):
            raise TemplateError(f"{name} is not known; there are {', '.join(sorted(VARIABLES))}")
        code = _ENVIRONMENT.compile(tree)
        return Template.from_code(_ENVIRONMENT, code, {})
    except TemplateError:
        raise
    except TemplateSyntaxError as error:
        raise TemplateError(f"line {error.lineno}: {error.message}") from None
    except Exception as error:  # nested too deeply for the parser or for Python
        raise TemplateError(f"{type(error).__name__}: the text is too involved") from None


def _check(node: nodes.Node, loops: int) -> None:
    """Only what is in ``_NODES``, and loops that count their turns."""
    if not isinstance(node, _NODES):
        what = re.sub(r"(?<!^)(?=[A-Z])", " ", type(node).__name__).lower()
        raise TemplateError(f"line {node.lineno}: {what} is not allowed in a text")
    if isinstance(node, nodes.Filter):
        _known("filter", node.name, _FILTERS, node.lineno)
    if isinstance(node, nodes.Test):
        _known("test", node.name, _TESTS, node.lineno)
    if isinstance(node, nodes.For):
        loops += 1
        if node.recursive or loops > MAX_NESTING:
            raise TemplateError(f"line {node.lineno}: at most {MAX_NESTING} loops in one another")
    for child in node.iter_child_nodes():
        _check(child, loops)
    if isinstance(node, nodes.For):
        node.iter = nodes.Filter(node.iter, _COUNTED, [], [], None, None, lineno=node.lineno)


def _known(what: str, name: str, names: Iterable[str], line: int) -> None:
    if name not in names:
        raise TemplateError(
            f"line {line}: there is no {what} {name!r}; there are {', '.join(sorted(names))}"
        )


def _undeclared(tree: nodes.Template) -> Iterator[str]:
    own = {"loop"}
    for loop in tree.find_all(nodes.For):
        own |= {name.name for name in loop.target.find_all(nodes.Name)}
        if isinstance(loop.target, nodes.Name):
            own.add(loop.target.name)
    for name in tree.find_all(nodes.Name):
        if name.ctx == "load" and name.name not in own and name.name not in VARIABLES:
            yield name.name
