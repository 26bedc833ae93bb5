"""Forms: dataclasses that are checked when one is made or read from a file, and one line about what is wrong with a value.

Knows types, ranges and names, as the annotations of the fields say them (pydantic, strict: nothing is converted). Does
not know what a field is for.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, WrapValidator, validate_call
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from typing_extensions import dataclass_transform

from lib.files import OneLine, rows

EXPECTED = {
    "string_type": "text", "tuple_type": "a list", "int_type": "a whole number", "float_type": "a number",
    "bool_type": "true or false", "list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping",
    "string_unicode": "text in UTF-8",
    "too_short": "one or more",
}  # fmt: skip
STRICT = ConfigDict(strict=True, extra="forbid")
NO_FIELD = ("unexpected_keyword_argument", "extra_forbidden")  # kinds of pydantic's errors
LIMITS = {"ge": "{}", "gt": "above {}", "le": "{}", "lt": "below {}"}
# Ten lines of anchors can stand for more values than there is memory.
MOST_VALUES = 100_000  # of a YAML text
T = TypeVar("T")  # what comes out: an instance of a form, a row, the value of a function


def _as_given(value: Any, check: Callable[[Any], Any]) -> Any:
    check(value)
    return value


def _whole(text: str) -> str:
    # Arguments that are no UTF-8 come from Python as halves of a pair, which no file can hold: said before a run.
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("has bytes that are no text; type it in UTF-8")
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


# A whole number stays one where any number will do: 1 and 1.0 are two keys of a run.
Number = Annotated[float, Field(allow_inf_nan=False), WrapValidator(_as_given)]
Text = Annotated[str, AfterValidator(_whole)]
Filled = Annotated[str, AfterValidator(_filled)]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def form(error: Callable[[str], Exception] = ValueError, what: str = "") -> Callable[[type[T]], type[T]]:
    """Make a class a frozen dataclass that refuses, with `error` and one line, what its annotations do not allow.

    `what` is the mapping whose fields these are, such as "decoding"; "" for the parameters of something that runs.
    """

    def register(cls: type[T]) -> type[T]:
        form_class: Any = dataclass(frozen=True, config=STRICT)(cls)
        check = form_class.__init__

        @wraps(check)
        def init(self: Any, *args: Any, **values: Any) -> None:
            # Every argument by its name: else a fault would name a position.
            named = dict(zip(form_class.__pydantic_fields__, args, strict=False))
            try:
                check(self, *args[len(named) :], **named, **values)
            except ValidationError as failure:
                raise fault(failure, form_class.__pydantic_fields__, error, what) from None

        form_class.__init__ = init
        return form_class

    return register


def checked(function: Callable[..., T]) -> Callable[..., T]:
    """A function that refuses, with ValueError and one line, arguments that its annotations do not allow."""
    check = validate_call(config=STRICT)(function)
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    fields = {name: FieldInfo.from_annotation(hint) for name, hint in hints.items()}

    @wraps(function)
    def call(*args: Any, **values: Any) -> T:
        try:
            return check(*args, **values)
        except ValidationError as failure:
            raise fault(failure, fields) from None

    return call


def fill(make: Callable[..., T], values: Mapping[Any, Any]) -> T:
    """A form from plain data, where also a number may stand as a name. Raises what the form raises."""
    return make(**{str(name): value for name, value in values.items()})


def read_yaml(text: str, where: str, error: Callable[[str], Exception] = ValueError) -> Any:
    """Plain data from YAML. Raises `error`, in one line, on what is none and on a key that stands twice in a mapping.

    >>> read_yaml("{n: 8, by: last}", "-p")
    {'n': 8, 'by': 'last'}
    """
    import yaml

    class Once(yaml.SafeLoader):
        """A safe loader that refuses a key that stands twice in one mapping."""

        # Checked as it is read: YAML itself takes the last of two keys and says nothing, and merged keys come later.
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            lines: dict[str, int] = {}
            for key, _ in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in lines:
                    raise error(f"{where}: {name!r} stands in line {lines[name]} and again in line {line}; keep one")
                lines[name] = line
            return node

    try:
        value = yaml.load(text, Once)
        size = _size(value, {})
    except yaml.YAMLError as fault:
        raise error(f"{where}: not YAML ({' '.join(str(fault).split())[:200]})") from fault
    except RecursionError:
        raise error(f"{where}: mappings or lists within each other without end; expected plain data") from None
    if size > MOST_VALUES:
        raise error(f"{where}: {size:.0e} values once its anchors are written out; at most {MOST_VALUES} are read")
    return value


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values it holds when what anchors share is written out. Raises RecursionError on one within itself."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(value)]


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for `json.loads`. Raises ValueError where a name stands twice in it."""
    # Python takes the last of two and says nothing, so a text could hide what it says.
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise ValueError(f"{name!r:.60} stands there twice; keep one")
        names.add(name)
    return dict(pairs)


def read_rows(
    path: Path, row: type[T], error: Callable[[str], Exception] = ValueError, skip: int = 0
) -> Iterator[tuple[str, T]]:
    """Place ("file:line") and row of every line of a JSONL file that is not blank; what a row does not name is left out.

    `skip`: lines at the head that are of another form. Raises `error` naming file, line and field; OSError.
    """
    adapter = TypeAdapter(row)
    fields = getattr(row, "__dataclass_fields__", {})
    try:
        lines = rows(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as failure:
        raise error(f"{path}: not UTF-8 ({failure})") from failure
    for number, line in enumerate(lines, 1):
        if number <= skip or not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            yield where, adapter.validate_json(line, strict=True)
        except ValidationError as failure:
            raise fault(failure, fields, error, f"{where}:") from None


def fault(
    failure: ValidationError, fields: Mapping[str, Any], error: Callable[[str], Exception] = ValueError, what: str = ""
) -> Exception:
    """The first thing that is wrong, as an error of one line; an own error of a validator stays what it is."""
    # A misspelt name is said before the field that is missing for it.
    first = min(failure.errors(include_url=False), key=lambda e: e["type"] not in NO_FIELD)
    kind, path, value, context = first["type"], first["loc"], first["input"], first.get("ctx", {})
    where = what
    for at in path:
        where += f"[{at}]" if isinstance(at, int) else f" {at}"
    where = where.strip()
    if kind in NO_FIELD:
        return error(unknown(f"{what} has no" if what else "no parameter", path[-1], fields))
    if kind == "value_error":
        own = context["error"]
        if isinstance(own, OneLine):
            return own
        return error(f"{where} {own}")
    if kind == "json_invalid":
        return error(f"{where} not a JSON object ({context['error']})")
    if kind in ("dict_type", "dataclass_type") and not path:
        return error(f"{where} not a JSON object")
    if kind.startswith("missing"):
        return error(f"{where} is missing; expected {', '.join(fields)}")
    if kind == "literal_error":
        words = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return error(f"{where} is {value!r:.60}: expected one of {', '.join(words)}{_near(value, words)}")
    expected = EXPECTED.get(kind)
    if not expected and path:
        expected = span(getattr(fields.get(str(path[0])), "metadata", ()))
    return error(f"{where} is {value!r:.60}: expected {expected or first['msg'].removeprefix('Input should be ')}")


def span(limits: Iterable[Any]) -> str:
    """A range in words, "" where there is none.

    >>> from annotated_types import Ge, Gt, Le, Lt
    >>> [span(x) for x in ([Ge(0), Le(5)], [Gt(0), Le(1)], [Ge(0), Lt(1)], [Ge(1)], [Gt(0)], [Le(9)])]
    ['0 to 5', 'above 0 to 1', '0 to below 1', '1 or more', 'above 0', '9 or less']
    """
    bounds = {}
    for limit in limits:
        for name in LIMITS:
            if hasattr(limit, name):
                bounds[name] = getattr(limit, name)
    words = [LIMITS[name].format(bound) for name, bound in bounds.items()]
    if list(bounds) in (["ge"], ["le"]):
        return words[0] + (" or more" if "ge" in bounds else " or less")
    return " to ".join(words)


def unknown(start: str, name: Any, choices: Iterable[str]) -> str:
    """That there is no such name, the nearest one that there is, and all of them.

    >>> unknown("decoding has no", "tmep", ["temp", "top_p"])
    "decoding has no 'tmep', did you mean 'temp'? there are temp, top_p"
    """
    names = list(choices)
    return f"{start} {name!r:.60}{_near(name, names) or ';'} there are {', '.join(names) or 'none'}"


def _near(name: Any, choices: list[str]) -> str:
    near = difflib.get_close_matches(str(name), choices, 1)
    return f", did you mean {near[0]!r}?" if near else ""
