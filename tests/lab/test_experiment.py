"""An experiment with the second question: usefulness beside quality, and keys that stay what they were."""

from dataclasses import replace

import pytest

from lib.agent.pipeline import BadPipeline, Step
from lib.agent.prompt import SCHEMAS, Draft
from lib.files import ROOT
from lib.lab.experiment import LATER, LOOK, BadParameters, Experiment, useful_sentence
from lib.measure.ruler import Ruler
from lib.measure.score import case_quality, score
from lib.models.model import NoModel
from lib.runs import rescore, verify
from lib.runs.ledger import Ledger
from lib.runs.provenance import run_key
from lib.runs.record import CaseRow, Findings, Usefulness
from lib.runs.verify import recomputed
from tests.claude.loopback import Loopback


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run by Claude that asks how useful its sets are, one that does not, and the folder of their store."""
    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch, Loopback() as server:
        patch.setenv("ANTHROPIC_BASE_URL", server.url)
        patch.setenv("ANTHROPIC_API_KEY", "sk-ant-planted-asked")
        patch.setenv("NOTCH_RUNS", str(folder))
        plain = Experiment(hypothesis="x", model="toy", gate="dev", judge="claude")
        return replace(plain, useful=True).run(), plain.run(), folder


@pytest.fixture
def asked(both):
    return both[0]


def test_a_run_that_asks_how_useful_its_sets_are_keeps_the_same_quality(both):
    asked, plain, _ = both
    assert asked.record.scores == plain.record.scores
    assert "useful" not in plain.cases[0].as_dict() and not plain.record.found


def test_usefulness_stands_in_every_row_and_its_mean_in_the_record(asked):
    told = [r.useful["score"] for r in asked.cases]
    found = asked.record.found.useful
    assert found.cases == len(told) == 10 and found.mean == pytest.approx(sum(told) / 10)
    assert all(1 <= t <= 5 for t in told) and all(r.useful["reason"] for r in asked.cases)


def test_usefulness_is_not_asked_of_the_offline_judge():
    with pytest.raises(BadParameters, match="useful is asked of judge 'claude' alone: offline it measured nothing"):
        Experiment(hypothesis="x", model="toy", gate="dev", useful=True).check()


def test_the_mean_is_computed_again_when_a_run_is_verified(asked):
    record, rows = asked.result.record, list(asked.cases)
    assert recomputed(record, rows) == []
    rows[0] = rows[0].revised(useful={"score": rows[0].useful["score"] % 5 + 1, "reason": "said so"})
    assert recomputed(record, rows) == ["usefulness"]
    assert recomputed(record.revised(found=Findings()), asked.cases) == ["usefulness"]


def test_it_is_said_beside_quality(asked):
    assert "no part of it" in asked._repr_markdown_() and "Useful" in asked._repr_markdown_()
    assert useful_sentence(Usefulness()) == ""


def test_a_parameter_at_its_later_default_leaves_old_keys_as_they_were():
    plain, asks = Experiment(hypothesis="x", model="toy"), Experiment(hypothesis="x", model="toy", useful=True)
    old = {k: v for k, v in plain.parameters.items() if k not in LATER and k != "kind"}
    assert plain.key == run_key("experiment", old, plain.fingerprint) != asks.key


def test_the_sealed_runs_of_the_project_have_the_key_that_this_code_gives_them():
    made = [r for r in Ledger.read(ROOT / "runs").records if r.kind == "experiment"]
    made = [
        r for r in made if not r.model.startswith("…/")
    ]  # a folder: the key holds where it lay, the record does not
    names = [k for k in Experiment().parameters if k not in ("kind", *LATER)]
    if not made:
        pytest.skip("no experiment is sealed here yet")
    for r in made:
        told = {k: getattr(r, k) for k in names} | {k: getattr(r, k) for k, v in LATER.items() if getattr(r, k) != v}
        assert r.key == run_key("experiment", told, r.fingerprint), r.id


def test_useful_is_true_or_false():
    with pytest.raises(BadParameters, match="useful is 1: expected true or false"):
        Experiment(useful=1)


# --- what could not end well is refused before it costs anything


@pytest.mark.parametrize(
    "pipeline, said",
    [
        ([{"step": "ask", "n": 8}], "it ends with 8 questions instead of 7"),
        ([{"step": "best"}], "best: no pool to work on"),
        ([{"step": "demos"}], "no step of it writes a set"),
        ([{"step": "ask", "wording": {"title": "Write a title."}}], "has no effect"),
    ],
)
def test_a_pipeline_with_which_no_model_could_pass_is_refused(pipeline, said):
    with pytest.raises(BadPipeline, match=said) as stopped:
        Experiment("h", model="toy", pipeline=pipeline).check()
    assert "\n" not in str(stopped.value)


STORED = Experiment("a frontier model", model="stored:claude", lever="anchor", gate="dev")


def test_stored_answers_stand_beside_the_climb_as_an_anchor_at_no_cost():
    made = STORED.run()
    assert [r.no_answer for r in made.cases] == [None] * 10 and made.record.scores.quality > 0
    assert made.record.cost.generation_tokens == made.record.cost.dollars == 0


@pytest.mark.parametrize(
    "change, said",
    [
        ({"lever": "prompting"}, "stored answers are an anchor, never part of the climb"),
        ({"pipeline": [{"step": "ask", "advice": ["coach"]}]}, "and no other"),
        ({"decoding": {"temp": 0.7}}, "temp"),
    ],
)
def test_stored_answers_take_no_lever(change, said):
    with pytest.raises((BadParameters, NoModel), match=said):
        replace(STORED, **change).check()


def test_stored_answers_to_another_prompt_than_todays_are_refused(monkeypatch):
    assert STORED.check()
    monkeypatch.setitem(SCHEMAS, "json", "Reply in JSON, please.")
    with pytest.raises(BadParameters, match="asked with another prompt than today's"):
        replace(STORED).check()


# --- gold stays out


@pytest.mark.parametrize("of", ["", "0009-nowhere", "again", "look"])
def test_the_sealed_gate_is_for_kept_runs_alone(lab, monkeypatch, of):
    monkeypatch.setenv("NOTCH_RUNS", str(lab.folder))
    lab.seal(slug="first", pipeline=[{"step": "ask"}])
    lab.seal(slug="again", lever="a/a", status="reference")
    lab.seal(slug="look", kind="confirm", gate="confirm", of="0001-first", status="kept")
    with pytest.raises(BadParameters, match="expected a kept run of this folder"):
        Experiment("h", model="toy", gate="confirm", kind="confirm", of=of).check()


@pytest.mark.parametrize(
    ("decoding", "said"),
    [
        ({"top_p": 0.9}, "top_p and temp 0"),
        ({"temp": 0, "top_k": 5}, "top_k and temp 0"),
        ({"min_p": 0.1}, "min_p and temp 0"),
        ({"repetition_context": 9}, "repetition_context and no repetition_penalty"),
    ],
)
def test_decoding_that_would_do_nothing_is_refused(decoding, said):
    with pytest.raises(BadParameters, match=said):
        Experiment("h", model="toy", decoding=decoding).check()


def test_decoding_that_a_step_with_its_own_heat_takes_along_is_fine():
    drawn = [{"step": "ask"}, {"step": "sample", "temps": [0.5]}, {"step": "best"}]
    Experiment("h", model="toy", pipeline=drawn, decoding={"top_p": 0.9}).check()
    for fine in ({"temp": 0.7, "top_p": 0.9}, {"top_p": 1}, {"repetition_penalty": 1.1, "repetition_context": 9}):
        Experiment("h", model="toy", decoding=fine).check()


def test_an_eleventh_look_in_one_era_is_refused(lab, monkeypatch):
    monkeypatch.setenv("NOTCH_RUNS", str(lab.folder))
    era = Experiment("h", model="toy").fingerprint
    told = {"kind": "confirm", "gate": "confirm", "of": "0001-first", "status": "kept"}
    lab.seal(slug="first", pipeline=[{"step": "ask"}], status="kept", fingerprint=era)
    for look in range(9):
        lab.seal(slug=f"look-{look}", fingerprint=era, **told)
    lab.seal(slug="elsewhere", fingerprint="e" * 64, **told)
    tenth = Experiment("h", model="toy", gate="confirm", kind="confirm", of="first").check()
    lab.seal(slug="look-9", fingerprint=era, **told)
    with pytest.raises(BadParameters, match="looked at 10 times in this era"):
        replace(tenth).check()


def test_a_look_at_the_sealed_gate_that_nobody_counts_is_refused(lab, monkeypatch):
    monkeypatch.setenv("NOTCH_RUNS", str(lab.folder))
    monkeypatch.delenv(LOOK, raising=False)
    lab.seal(slug="first", pipeline=[{"step": "ask"}], status="kept")
    look = Experiment("h", model="toy", gate="confirm", kind="confirm", of="first").check()
    with pytest.raises(BadParameters, match="`notch confirm RUN` looks at it"):
        look.run()
    with pytest.raises(BadParameters, match="pipeline is not that of 0001-first"):
        replace(look, pipeline=[{"step": "ask", "n": 7}]).check()


@pytest.fixture(scope="module")
def pasted():
    """A run whose answers are gold, and the count of its own rows says that they are not."""
    gold = {c.task: c.gold for c in Ruler.load().gate("dev")}
    steps = [Step("paste", "toy", {}, paste(gold), 0, "", ())]
    run = Experiment(hypothesis="x", model="toy", gate="dev")
    run.__dict__["steps"] = steps
    made = run.run()
    return made.record.revised(leaks=[]), [r.revised(copies=0, leak="") for r in made.cases], made.cases


def paste(gold):
    def work(state):
        mine = gold[state.task]
        return replace(state, draft=Draft(mine.title, mine.questions))
        yield

    return work


def test_copies_of_gold_are_counted_again_and_not_believed(pasted, tmp_path):
    record, faked, honest = pasted
    ruler = Ruler.load()
    assert recomputed(record, faked) == [] and {r.copies for r in honest} == {7}
    assert len(verify._wrong_copies(record, faked, ruler)) == 10 and verify._wrong_copies(record, honest, ruler) == []
    uncounted = [CaseRow.read({k: v for k, v in r.as_dict().items() if k != "copies"}) for r in honest]
    assert len(verify._wrong_copies(record, uncounted, ruler)) == 10
    [first, *_] = rescore.faults(record, faked, tmp_path)
    assert "its copies is 0, and 7 when gold is compared again" in first


@pytest.fixture(scope="module")
def honest():
    made = Experiment(hypothesis="x", model="toy", gate="dev").run()
    return made.record, made.cases


def moved(record, rows, by, **changes):
    """The run with one score of its first case moved, and everything that follows from judgments computed anew."""
    judged = rows[0].judgment
    name, value = next(iter(judged.scores.items()))
    judged = replace(judged, **{"scores": judged.scores | {name: value + by}, **changes})
    rows = [rows[0].revised(judgment=judged, quality=case_quality(judged)), *rows[1:]]
    return record.revised(scores=score([r.outcome for r in rows])), rows


@pytest.mark.parametrize(
    "by, changes, wrong",
    [
        (0.009, {}, 0),
        (-0.009, {}, 0),
        (0.012, {}, 1),
        (-0.012, {}, 1),
        (0, {"verdict": "win"}, 1),
        (0, {"flipped": True}, 1),
    ],
)
def test_a_run_is_judged_again_and_only_the_last_digits_of_an_offline_score_may_differ(
    honest, tmp_path, by, changes, wrong
):
    assert honest[1][0].judgment.verdict != "win"
    found = rescore.faults(*moved(*honest, by, **changes), tmp_path)
    assert found == ["case " + honest[1][0].case + ": the judge says something else of this answer"] * wrong


def test_a_quality_that_does_not_follow_to_the_last_digit_is_refused(honest, tmp_path):
    record, rows = honest
    assert rescore.faults(record, rows, tmp_path) == []
    near = [rows[0].revised(quality=rows[0].quality + 0.0001), *rows[1:]]
    assert rescore.faults(record, near, tmp_path) == [f"quality of {rows[0].case}"]


def test_a_score_of_claude_is_what_the_store_says_exactly(both):
    _, plain, folder = both
    record, rows = plain.record, plain.cases
    assert rescore.faults(record, rows, folder) == []
    [found] = rescore.faults(*moved(record, rows, 0.009), folder)
    assert "the judge says something else" in found


def test_the_line_for_a_terminal_asks_for_the_same_experiment():
    import shlex

    from lib.cli.options import values

    told = Experiment(hypothesis="It's `so`, \n\"they\" say: 3", predicted=1e-05, lever="a/a", of="3", seed=7, useful=True,
                      pipeline=[{"step": "ask", "advice": ["It's é"]}], decoding={"temp": 0.7}, judge="claude")  # fmt: skip
    text = told.command.text
    assert "\n````" not in text.replace("\n```\n", "") and "-p gate" not in text  # what is as usual is left out
    line = text.split("```sh\n")[1].removesuffix("\n```")
    program, verb, *words = shlex.split(line)
    assert (program, verb) == (".venv/bin/notch", "run") and set(words[::3]) == {"-p"}
    assert Experiment(**values(zip(words[1::3], words[2::3], strict=True))).parameters == told.parameters
