"""A model tried on this machine: what came of each try, said in lines that can be pasted."""

import json
from dataclasses import replace

import pytest

from lib.desk.trial import Figure, batch, learnt, trial
from lib.lab.base import BadParameters
from lib.lab.training import Training
from lib.models.model import NoModel, ToyModel
from tests.cli.conftest import notch, one_line  # noqa: F401
from tests.llama import small, write_broken


def values(figures):
    return {figure.what: figure.value for figure in figures}


def test_a_model_with_weights_is_loaded_batched_answers_learns_and_is_worked_out(tmp_path):
    figures = list(trial(small(), steps=4))
    seen = values(figures)
    assert all(figure.ok for figure in figures) and all("\n" not in figure.value for figure in figures)
    assert "say the same together and alone" in seen["batch"] and seen["dev gate"].startswith("10 tasks in ")
    assert seen["training"].startswith("4 steps of 8 pairs, ")
    first, last = seen["training"].rsplit("loss ", 1)[1].split(" -> ")
    assert float(last) < float(first)
    # Three calls of 2,000 tokens in and 500 out a case, at 2 and 10 dollars a million: 0.027 dollars.
    assert seen["full gate"].startswith("30 tasks: ") and seen["full gate"].endswith("about $0.81")
    assert "about $56.70" in seen["70 such runs"] and "/tmp" not in seen["model"]


def test_a_training_that_fails_is_said_and_is_no_crash():
    figure = learnt(Training(hypothesis="x", model=small(), settings={"longest": 10}), 2)
    assert not figure.ok and figure.value.startswith("failed: ") and "more than 10" in figure.value


class Mixing(ToyModel):
    """An engine that lets one row of a batch into another."""

    def generate(self, prompts, decodings):
        done = super().generate(prompts, decodings)
        return [replace(done[0], text="?"), *done[1:]] if len(done) > 1 else done


def test_replies_that_are_others_in_a_batch_are_counted():
    assert batch(ToyModel()).ok
    assert batch(Mixing()) == Figure("batch", "1 of 2 replies are other words in a batch than alone", ok=False)


@pytest.mark.parametrize(
    ("name", "error"), [("claude-haiku-4-5", BadParameters), ("stored:claude", BadParameters), ("nowhere", NoModel)]
)
def test_what_cannot_be_tried_for_nothing_is_refused_before_anything_is_said(name, error):
    with pytest.raises(error):
        next(trial(name))


def test_a_model_that_gives_no_numbers_is_one_line(tmp_path, notch):  # noqa: F811
    write_broken(tmp_path / "broken")
    said = notch("doctor", "--try", tmp_path / "broken")
    assert said.code == 3 and one_line(said.err)


def test_the_doctor_prints_a_line_a_figure_and_seals_nothing(tmp_path, notch):  # noqa: F811
    said = notch("doctor", "--try", "toy")
    lines = said.out.splitlines()
    assert said.code == 0 and len(lines) == 11 and all(line.startswith("ok  ") for line in lines)
    assert "no weights that can be trained" in said.out and not (tmp_path / "runs").exists()
    rows = json.loads(notch("doctor", "--try", "toy", "--json").out)
    assert [set(row) for row in rows] == [{"what", "value", "ok"}] * 11
