"""A model tried on this machine: what came of each try, said in lines that can be pasted."""

import json
import re
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


@pytest.mark.slow
def test_a_model_with_weights_is_loaded_batched_answers_learns_and_is_worked_out(tmp_path):
    figures = list(trial(small(), steps=4))
    seen = values(figures)
    assert all(figure.ok for figure in figures) and all("\n" not in figure.value for figure in figures)
    assert "say the same together and alone" in seen["batch"] and seen["dev gate"].startswith("10 tasks in ")
    told = re.fullmatch(
        r"4 steps of 8 pairs, ([\d.]+) s a step, validation loss ([\d.]+) -> ([\d.]+); 1000 pairs in 2 epochs: "
        r"about (\d+) minutes",
        seen["training"],
    )
    step, first, last, minutes = map(float, told.groups())
    # 250 steps of 8 pairs; the step is shown to a hundredth of a second.
    assert last < first and minutes == pytest.approx(step * 250 / 60, abs=0.6)
    # Random weights write nothing that can be read, and somebody who tries a model must learn why.
    assert "0 of 10 answers valid (10 not: '" in seen["dev gate"]
    # Three calls of 2,000 tokens in and 500 out a case, at 2 and 10 dollars a million: 0.027 dollars.
    assert seen["full gate"].startswith("30 tasks: ") and seen["full gate"].endswith("about $0.81")
    assert "about $56.70" in seen["70 such runs"] and "/tmp" not in seen["model"]
    gate = float(re.search(r"about ([\d.]+) minutes", seen["full gate"])[1])
    # A notebook takes seven seconds beside its answers; the gate is shown to a tenth of a minute.
    assert float(re.search(r"about (\d+) minutes", seen["70 such runs"])[1]) == pytest.approx(
        70 * (gate + 7 / 60), abs=4.1
    )


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
    assert (
        said.code == 0
        and len(lines) == 11
        and all(line.startswith("- ") for line in lines)
        and "FAILED" not in said.out
    )
    assert "no weights that can be trained" in said.out and not (tmp_path / "runs").exists()
    rows = json.loads(notch("doctor", "--try", "toy", "--json").out)
    assert [set(row) for row in rows] == [{"what", "value", "ok"}] * 11
