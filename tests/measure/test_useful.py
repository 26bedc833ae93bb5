"""Usefulness without gold: the real SDK against a loopback server, and nothing offline."""

import json
from dataclasses import replace

import pytest

from lib.claude.prices import BudgetSpent
from lib.claude.store import Store
from lib.measure import useful
from lib.measure.answer import Answer
from lib.measure.claude_judge import ClaudeJudge
from lib.measure.judge import Unscored
from lib.measure.judge_calls import Call, parse
from lib.measure.ruler import Ruler
from lib.measure.useful import Useful, useful_all
from lib.runs.offline import OfflineJudge
from tests.claude.loopback import Loopback, texts

RULER = Ruler.load()
CASES = RULER.gate("dev")


def golds(n=2):
    return [(c, Answer(c.gold.title, c.gold.questions)) for c in CASES[:n]]


@pytest.fixture
def server(monkeypatch):
    with Loopback() as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-planted-useful")
        yield running


@pytest.fixture
def judge(tmp_path):
    made = []

    def make(ruler=RULER, **more):
        made.append(ClaudeJudge(ruler, **{"store": tmp_path / "judgments.jsonl", "poll": 0.02} | more))
        return made[-1]

    yield make
    for j in made:
        j.close()


def test_the_offline_judge_estimates_no_usefulness():
    assert not hasattr(useful, "estimate")
    with pytest.raises(AttributeError, match="ask_all"):
        useful_all(OfflineJudge(), golds(1))


def test_claude_sees_task_and_set_alone_and_no_word_of_gold(server, judge):
    case, mine = CASES[0], Answer("Mine", tuple(f"What of part {i}?" for i in range(7)))
    [found] = useful_all(judge(), [(case, mine)])
    assert isinstance(found, Useful) and found.score in (1, 2, 3, 4, 5) and found.reason and found.dollars > 0
    [body] = server.messages
    assert texts(body) == {"task": case.task, "A": {"title": "Mine", "questions": list(mine.questions)}}
    sent = json.dumps(body)
    assert not any(q in sent for q in case.gold.questions)
    assert body["output_config"]["format"]["schema"]["properties"]["usefulness"]["enum"] == [1, 2, 3, 4, 5]


def test_it_is_paid_once_and_kept_apart_from_judgments_of_the_same_answer(server, judge, tmp_path):
    judge().judge_all(golds())
    first = useful_all(judge(), golds())
    again = judge()
    assert useful_all(again, golds()) == first and (again.cost.calls, again.cost.stored) == (0, 2)
    assert server.replies == 8
    kinds = [r["kind"] for r in Store(tmp_path / "judgments.jsonl")]
    assert kinds.count("useful") == 2 and {r["order"] for r in Store(tmp_path / "judgments.jsonl")} >= {"alone"}
    assert useful_all(judge(replicate=1), golds()) and server.replies == 10


def test_another_gold_answer_asks_nothing_anew_and_another_task_does(server, judge):
    [(case, answer)] = golds(1)
    useful_all(judge(), [(case, answer)])
    useful_all(judge(), [(replace(case, gold=None), answer)])
    assert server.replies == 1
    useful_all(judge(), [(replace(case, task="buy a boat"), answer)])
    assert server.replies == 2


def test_another_wording_of_the_question_is_another_question(server, judge):
    changed = replace(RULER, prompts=RULER.prompts | {"useful": RULER.prompts["useful"] + " Be strict."})
    useful_all(judge(), golds(1))
    useful_all(judge(changed), golds(1))
    assert server.replies == 2


def test_usefulness_by_batch_comes_in_order(server, judge):
    found = useful_all(judge(batch=True), golds(3))
    assert [type(f) for f in found] == [Useful] * 3 and len(server.batches) == 1
    assert useful_all(judge(), golds(3)) == found and not server.messages


def test_a_reply_that_is_no_score_is_asked_for_once_more_and_then_unscored(server, judge):
    server.rule = lambda n, body, headers: {"text": '{"reason": "x", "usefulness": 6}'}
    [found] = useful_all(judge(), golds(1))
    assert isinstance(found, Unscored) and "usefulness" in found.reason and server.replies == 2


def test_the_dollar_cap_holds(server, judge):
    with pytest.raises(BudgetSpent):
        useful_all(judge(dollars=0.000001), golds(1))
    assert server.replies == 0


def test_a_ruler_without_the_question_says_so(judge):
    old = replace(RULER, prompts={k: v for k, v in RULER.prompts.items() if k != "useful"})
    with pytest.raises(ValueError, match="judge_useful.md"):
        useful_all(judge(old), golds(1))


@pytest.mark.parametrize("said", ["true", "3.0", "0", "6", '"3"', "null"])
def test_no_other_value_is_a_score(said):
    assert parse(f'{{"reason": "x", "usefulness": {said}}}', "useful", ()).again
    assert Call("useful").order == "alone"
