"""Pipelines that could never end in a set, found before they cost anything, and new steps left in peace."""

import pytest

from lib.agent.dry_run import fault
from lib.agent.pipeline import Call, Step
from lib.agent.steps import build
from lib.files import NOTEBOOKS
from lib.lab import study

NEVER = {
    "no pool": ([{"step": "consensus"}], "consensus: no pool to work on"),
    "no draft": ([{"step": "prune"}, {"step": "ask"}], "prune: no draft to work on; put ask before it"),
    "no donor": ([{"step": "ask"}, {"step": "transplant"}], "no pool to work on"),
    "nothing asked": ([{"step": "demos"}], "no step of it writes a set"),
    "eight": ([{"step": "ask", "n": 8}], "8 questions instead of 7"),
    "ten brainstormed": ([{"step": "brainstorm", "n": 10}], "10 questions instead of 7"),
    "five": ([{"step": "ask", "n": 5}, {"step": "critique"}], "5 questions instead of 7"),
    "a wording of a call that is not made": (
        [{"step": "ask", "wording": {"plan": "Write a plan now."}}],
        "it makes ask",
    ),
    "a wording of a step without calls": (
        [{"step": "ask", "n": 8}, {"step": "prune", "wording": "Drop one of them."}],
        "it makes no call",
    ),
    "examples that nobody shows": ([{"step": "demos"}, {"step": "brainstorm"}], "demos: it has no effect"),
    "examples in place of examples": (
        [{"step": "demos"}, {"step": "demos"}, {"step": "ask"}],
        "demos: it has no effect",
    ),
    "a set that is written over": (
        [{"step": "ask"}, {"step": "critique"}, {"step": "ask"}],
        "critique: it has no effect",
    ),
    "frames over a set": ([{"step": "ask"}, {"step": "frames"}], "ask: it has no effect"),
    "sets that nobody chooses from": ([{"step": "ask"}, {"step": "sample"}], "sample: it has no effect"),
    "a choice that is written over": (
        [{"step": "sample"}, {"step": "best"}, {"step": "ask"}],
        "best: it has no effect",
    ),
    "a schema that examples lack": ([{"step": "demos"}, {"step": "ask", "schema": "slots"}], "no slots to show"),
}


@pytest.mark.parametrize("pipeline, said", NEVER.values(), ids=list(NEVER))
def test_what_can_never_end_in_a_set_is_named(pipeline, said):
    assert said in fault(build(pipeline))


@pytest.mark.parametrize("name", sorted(p.stem for p in (NOTEBOOKS / "plans").glob("*.yaml")))
def test_every_pipeline_of_the_shipped_plans_can_end_in_a_set(name):
    rows = [e.parameters["pipeline"] for e in study.read(name).entries if "pipeline" in e.parameters]
    assert rows and [fault(build(row)) for row in rows] == [""] * len(rows)


@pytest.mark.parametrize(
    "pipeline",
    [
        [{"step": "sample"}],  # its first set is the draft
        [{"step": "ask"}, {"step": "sample"}, {"step": "best"}],
        [{"step": "ask"}, {"step": "revise"}, {"step": "frames"}, {"step": "merge"}],  # the pool grows
        [{"step": "demos"}, {"step": "ask"}, {"step": "demos", "by": "fixed"}, {"step": "sample"}, {"step": "best"}],
    ],
    ids=lambda rows: "-".join(row["step"] for row in rows),
)
def test_what_another_step_reads_has_an_effect(pipeline):
    assert fault(build(pipeline)) == ""


def test_a_wording_of_a_call_that_is_made_can_end_in_a_set():
    assert (
        fault(build([{"step": "brainstorm", "wording": {"brainstorm": "List what is open."}}, {"step": "select"}]))
        == ""
    )


def test_another_count_can_be_asked_for():
    assert fault(build([{"step": "ask", "n": 5}]), 5) == ""


def test_a_step_whose_calls_are_unknown_is_given_the_benefit_of_the_doubt():
    def run(state):
        yield [Call([{"role": "system", "content": "Sing."}, {"role": "user", "content": state.task}])]
        return state

    assert fault([Step("sing", "toy", {}, run, 1, "", ())]) == ""
