"""Replies as small models write them when they fail, seeded damage to a good reply; and a toy that answers every call."""

import json
import random

import pytest

from lib.agent.dry_run import StandIn

FOREIGN = (
    "Voici les questions : 1. Quand voulez-vous partir ? 2. Avec qui ?",
    "Hier sind sieben Fragen, die Ihnen helfen könnten.",
    "好的，以下是七个问题：{“标题”：“买船”}",
    "Вот вопросы: {title: Купить лодку}",
    "هذه هي الأسئلة السبعة",
)
ODD = (None, True, False, 0, -1, 3.5, 10**40, 1e308, [], {}, [[]], [["a", ["b"]]], {"a": {"b": []}}, "", " ", "\ud800")
JUNK = ("\x00", "\x07", "\x1b[31m", "\u2028", "\ufeff", "\ud83d", "\\ud83d", '"', "\\", "{", "]", ",", "`", "\t", "é")


def spoil(good, rng):
    """One damaged copy of a good reply."""
    return rng.choice(DAMAGE)(good, rng)


def truncated(good, rng):
    return good[: rng.randrange(len(good))]


def with_a_wrong_type(good, rng):
    try:
        body = json.loads(good)
    except ValueError:
        return json.dumps(rng.choice(ODD))
    key = rng.choice(list(body))
    value = body[key]
    if isinstance(value, list) and value and rng.random() < 0.6:
        value[rng.randrange(len(value))] = rng.choice(ODD)
    elif rng.random() < 0.2:
        del body[key]
    else:
        body[key] = rng.choice(ODD)
    return json.dumps(body)


def with_huge_numbers(good, rng):
    number = rng.choice(
        ["9" * 5000, "-" + "9" * 4000, "1e999", "-1e999", "NaN", "Infinity", "0" * 50, "1." + "0" * 400]
    )
    key = rng.choice(["keep", "worst", "title", "questions", "unknowns", "one_thing"])
    return f'{{"{key}": {number}, "title": "x", "fault": "vague", "questions": [{number}]}}'


def nested(good, rng):
    depth = rng.choice([2, 5, 50, 400, 900, 990, 5000, 100_000])
    inside = rng.choice(["", "1", '"x"', good])
    wrap = rng.choice(
        ["%s", '{"questions": %s, "title": "x"}', '{"worst": %s, "fault": "vague"}', '{"keep": %s}', '{"better": %s}']
    )
    closed = "]" * depth if rng.random() < 0.8 else ""
    return wrap % ("[" * depth + inside + closed)


def with_junk(good, rng):
    at = rng.randrange(len(good) + 1)
    return good[:at] + rng.choice(JUNK) * rng.choice([1, 1, 3]) + good[at:]


def without_a_letter(good, rng):
    at = rng.randrange(len(good))
    return good[:at] + good[at + 1 :]


def in_prose(good, rng):
    return rng.choice(["Sure! Here it is:\n{}", "{}\n\nI hope this helps.", "Answer: {} Is that fine?"]).format(good)


def twice(good, rng):
    return good + rng.choice(["", "\n", " ", ", ", "\n\n"]) + good


def fenced(good, rng):
    shapes = [
        "```json\n{}",
        "{}\n```",
        "```\n```json\n{}\n```\n```",
        "```json\n{}\n```\nDone",
        "```{}```",
        "```json\n\n```",
    ]
    return rng.choice(shapes).format(good)


def foreign(good, rng):
    return rng.choice(FOREIGN)


def empty(good, rng):
    return rng.choice(["", " ", "\n\n", "\x00", "null", "{}", "[]", '""', "```", "``````"])


DAMAGE = (
    truncated, with_a_wrong_type, with_a_wrong_type, with_huge_numbers, nested, with_junk, without_a_letter,
    in_prose, twice, fenced, foreign, empty,
)  # fmt: skip


@pytest.fixture
def malformed():
    """`malformed(good, n, seed)`: n damaged copies of a good reply, the same for the same seed."""

    def make(good, n=200, seed=1):
        rng = random.Random(seed)
        return [spoil(good, rng) for _ in range(n)]

    return make


@pytest.fixture
def able():
    """`able(reply)`: a toy with every capability; without a reply function it answers every call well."""
    return StandIn
