"""A judge beside stored verdicts: files of our own in the study's format, and the study's own where they are here."""

import json

import pytest

from lib.files import ROOT, RULER
from lib.measure.checks import against
from lib.measure.checks.agreement import agreement
from lib.measure.judge import Judgment, Unscored
from lib.runs.offline import OfflineJudge

REAL = ROOT.parent / "shared" / "reference" / "fmdiscovery" / "verdicts"
ASKED = ("How soon", "How often", "How big", "How far", "How old", "How cheap", "How heavy")


def row(case, better="goldBetter", **changes):
    plain = {"id": case, "title": case, "questions": [f"{a} is your {case}?" for a in ASKED], "pairwise": better}
    plain |= dict.fromkeys(("atomicity", "specificity", "coverage", "naturalness", "nonRedundancy"), 3)
    return plain | changes


@pytest.fixture
def verdicts(tmp_path):
    """Two files of verdicts with gold in the folder above."""
    gold = [{"id": c, "input": f"buy a {c}", "title": c, "questions": [f"{a} must it be?" for a in ASKED]}
            for c in ("boat", "kite", "goat", "drum")]  # fmt: skip
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(g) + "\n" for g in gold))
    folder = tmp_path / "verdicts"
    folder.mkdir()
    rows = [row("boat"), row("kite", "tie", coverage=5), row("goat", "fmBetter", coverage=4)]
    rows.append({"id": "drum", "title": None, "questions": None, "pairwise": None, "atomicity": None})
    for name in ("one", "two"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


class Same:
    """Says what was stored, shifted."""

    def __init__(self, rows, shift=0.0):
        self.said = {r.answer.text: r.judgment for r in rows}
        self.shift = shift

    def judge_all(self, pairs):
        stored = [self.said[a.text] for _, a in pairs]
        return [Judgment({d: s - self.shift for d, s in j.scores.items()}, j.verdict) for j in stored]


class Silent:
    def judge_all(self, pairs):
        return [Unscored("no reply")] * len(pairs)


def test_rows_without_a_verdict_are_counted_and_left_out(verdicts):
    rows, left = against.read(verdicts / "one.jsonl")
    assert len(rows) == 3 and left == 1
    assert [r.judgment.verdict for r in rows] == ["loss", "tie", "win"]
    assert rows[1].judgment.scores["coverage"] == 5 and rows[0].case.task == "buy a boat"


def test_a_judge_that_agrees_has_all_ranks_and_verdicts(verdicts):
    rows = against.read(verdicts / "one.jsonl")[0] + against.read(verdicts / "two.jsonl")[0]
    pairs, unscored = against.compare(Same(rows, 1.0), rows)
    found = agreement(pairs)
    assert unscored == 0 and found.n == 6
    assert found.spearman == 1 and found.dims["coverage"] == 1 and found.same == 6
    assert found.order("ours") == found.order("stored") == ["one", "two"]
    assert "the same order" in against.text(found, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "one.jsonl:1: not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"id": "boat"}', "one.jsonl:1: title is missing"),
        (json.dumps(row("cow")), "one.jsonl:1: id is 'cow', which has no line in"),
        (json.dumps(row("boat", "maybe")), "pairwise is 'maybe': expected one of fmBetter, tie, goldBetter"),
        (json.dumps(row("boat", coverage=0)), "one.jsonl:1: scores are .*: expected 1 to 5"),
        (json.dumps(row("boat", coverage=None)), "one.jsonl:1: scores are .*None.*: expected 1 to 5"),
    ],
)
def test_a_file_that_is_no_file_of_verdicts_is_refused_by_name(verdicts, text, said):
    (verdicts / "one.jsonl").write_text(text + "\n")
    with pytest.raises(against.BadVerdicts, match=said):
        against.read(verdicts / "one.jsonl")


def test_verdicts_without_gold_are_refused(verdicts):
    (verdicts.parent / "gold.jsonl").unlink()
    with pytest.raises(against.BadVerdicts, match="no gold.jsonl"):
        against.read(verdicts / "one.jsonl")


def test_where_the_judge_scored_nothing_there_is_nothing_to_compare(verdicts):
    rows, _ = against.read(verdicts / "one.jsonl")
    with pytest.raises(against.BadVerdicts, match="of 3 answers with a verdict none was scored"):
        against.compare(Silent(), rows)


@pytest.mark.skipif(not REAL.is_dir(), reason="the study's texts are not here")
def test_the_offline_judge_agrees_with_a_study_that_it_was_not_fitted_to_as_well_as_it_is_said_to():
    """Measured on its 233 answers: quality 0.460; their gold alone stands for the unknowns."""
    judged = [r for path in sorted(REAL.glob("*.jsonl")) for r in against.read(path)[0]]
    assert all(r.case.unknowns == () for r in judged)
    found = agreement(against.compare(OfflineJudge(), judged)[0])
    assert found.n == 233 and found.spearman >= 0.4
    assert found.spearman > max(0.0, min(found.dims.values()))


def test_sixty_verdicts_by_hand_are_of_every_source_and_the_same_ones_each_time():
    rows = against.by_hand()
    texts = [(r.case.id, r.answer) for r in rows]
    _, *written = map(json.loads, (RULER / "verdicts.jsonl").read_text(encoding="utf-8").splitlines())
    sources = {(r["case"], r["title"], tuple(r["questions"])): r["source"] for r in written}
    drawn = [sources[r.case.id, r.answer.title, r.answer.questions] for r in rows]
    assert len(rows) == len(set(texts)) == 60 and texts == [(r.case.id, r.answer) for r in against.by_hand()]
    assert set(drawn) == set(sources.values()) and {r.run for r in rows} == {"by hand"}
    assert max(drawn.count(s) for s in drawn) - min(drawn.count(s) for s in drawn) <= 1
