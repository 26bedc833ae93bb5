"""Forms: strict types and ranges, and one line that says what came, what was expected and the nearest name."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from lib.files import OneLine
from lib.forms import Number, Text, fill, form, read_rows, read_yaml


class Bad(OneLine, ValueError):
    pass


@form(Bad, "boat")
class Boat:
    name: Text
    length: Annotated[Number, Field(gt=0, le=30)] = 5.0
    draught: Number = 1.0
    crew: Annotated[int, Field(ge=1)] = 1
    sail: Literal["lateen", "square"] = "square"
    load: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    sound: bool = True

    def __post_init__(self):
        if self.name == "Titanic":
            raise Bad("not again")


@pytest.mark.parametrize(
    "odd, said",
    [
        ({"name": None}, "boat name is None: expected text"),
        ({"name": "\ud800"}, "boat name has bytes that are no text; type it in UTF-8"),
        ({"name": "Titanic"}, "not again"),
        ({"length": "5"}, "boat length is '5': expected a number"),
        ({"length": True}, "boat length is True: expected a number"),
        ({"length": 0}, "boat length is 0: expected above 0 to 30"),
        ({"length": float("nan")}, "boat length is nan: expected above 0 to 30"),
        ({"draught": float("inf")}, "boat draught is inf: expected a finite number"),
        ({"crew": 1.0}, "boat crew is 1.0: expected a whole number"),
        ({"crew": False}, "boat crew is False: expected a whole number"),
        ({"crew": 0}, "boat crew is 0: expected 1 or more"),
        ({"sail": "latten"}, "boat sail is 'latten': expected one of lateen, square, did you mean 'lateen'?"),
        ({"sail": []}, "boat sail is []: expected one of lateen, square"),
        ({"load": "salt"}, "boat load is 'salt': expected a list"),
        ({"load": ["salt", 3]}, "boat load[1] is 3: expected text"),
        ({"more": []}, "boat more is []: expected a mapping"),
        ({"sound": 1}, "boat sound is 1: expected true or false"),
        ({"lenght": 5}, "boat has no 'lenght', did you mean 'length'? there are name, length, draught"),
        ({3: 5}, "boat has no '3'; there are name, length"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_what_does_not_fit_is_refused_in_one_line(odd, said):
    with pytest.raises(Bad) as stopped:
        fill(Boat, {"name": "Kon-Tiki"} | odd)
    assert str(stopped.value).startswith(said) and "\n" not in str(stopped.value)


def test_a_misspelt_name_is_said_before_the_one_that_is_missing_for_it():
    with pytest.raises(Bad, match="no 'nmae', did you mean 'name'"):
        fill(Boat, {"nmae": "Kon-Tiki"})
    with pytest.raises(Bad, match="boat name is missing; expected name, length, draught"):
        fill(Boat, {})


def test_values_stay_what_they_are_and_cannot_be_changed():
    boat = Boat("Kon-Tiki", 14)
    assert type(boat.length) is int and type(replace(boat, length=14.0).length) is float
    with pytest.raises(AttributeError):
        boat.crew = 2
    with pytest.raises(Bad, match="crew is 0"):
        replace(boat, crew=0)


def test_a_value_that_is_given_by_its_place_is_named_too():
    with pytest.raises(Bad, match="boat length is 31: expected above 0 to 30"):
        Boat("Kon-Tiki", 31)
    with pytest.raises(TypeError):
        Boat("Kon-Tiki", name="Ra")


@pytest.mark.parametrize(
    "text, said",
    [
        ("a: 1\nb: 2\na: 3", "'a' stands in line 1 and again in line 3; keep one"),
        ("runs:\n  - n: 1\n    n: 1", "'n' stands in line 2 and again in line 3"),
        ("{a: 1, a: 1}", "'a' stands in line 1 and again in line 1"),
        ("a: {b: [{c: 1, 'c': 2}]}", "'c' stands in line 1"),
        ("a: [1", "not YAML"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_lines(text, said):
    with pytest.raises(Bad) as refused:
        read_yaml(text, "plan.yaml", Bad)
    assert str(refused.value).startswith("plan.yaml: ") and said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_anchors_that_stand_for_more_than_there_is_memory_are_refused_at_once():
    rows = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(Bad, match=r"^plan: 1e\+09 values once its anchors are written out; at most 100000 are read$"):
        read_yaml(f"a: &a [x, x, x, x, x, x, x, x, x, x]\n{rows}", "plan", Bad)
    with pytest.raises(Bad, match="within each other without end"):
        read_yaml("a: &a {b: *a}", "plan", Bad)
    with pytest.raises(Bad, match="within each other without end"):
        read_yaml("[" * 5000, "plan", Bad)
    assert read_yaml("a: &a [1, 2]\nb: *a", "plan", Bad) == {"a": [1, 2], "b": [1, 2]}


def test_a_merged_key_may_be_set_again():
    text = "base: &base {n: 1, by: last}\nfirst:\n  <<: *base\n  n: 2\nsecond: {<<: *base, by: given}"
    read = read_yaml(text, "plan.yaml", Bad)
    assert (read["first"], read["second"]) == ({"n": 2, "by": "last"}, {"n": 1, "by": "given"})


# --- rows of a file


@dataclass
class Port:
    name: str
    depth: float = 0.0
    piers: tuple[str, ...] = ()


@pytest.fixture
def ports(tmp_path):
    """Write lines to a file and read them as ports."""

    def read(*lines):
        (tmp_path / "ports.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
        return [row for _, row in read_rows(tmp_path / "ports.jsonl", Port, Bad)]

    return read


def test_rows_are_typed_a_blank_line_is_none_and_what_a_row_does_not_name_is_left_out(ports):
    assert ports('{"name": "Oslo", "depth": 9, "more": 1}', "", '{"name": "Bergen", "piers": ["a"]}') == [
        Port("Oslo", 9.0),
        Port("Bergen", 0.0, ("a",)),
    ]


@pytest.mark.parametrize(
    "line, said",
    [
        ('{"depth": 1}', ":2: name is missing; expected name, depth, piers"),
        ('{"name": "Oslo", "depth": "deep"}', ":2: depth is 'deep': expected a number"),
        ('{"name": "Oslo", "piers": "a"}', ":2: piers is 'a': expected a list"),
        ('{"name": "Oslo"', ":2: not a JSON object (EOF"),
        ("[1]", ":2: not a JSON object"),
        ("\udcff", ": not UTF-8"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_file_line_and_field(ports, line, said):
    with pytest.raises(Bad) as stopped:
        ports('{"name": "Oslo"}', line)
    assert f"ports.jsonl{said}" in str(stopped.value) and "\n" not in str(stopped.value)
