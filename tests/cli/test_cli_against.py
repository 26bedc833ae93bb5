"""`notch calibrate --against verdicts --judge claude`: the real SDK against a server that says what the hand said."""

import json

import pytest

from lib.claude.store import Store
from lib.measure.checks import against
from lib.measure.ruler import Ruler
from tests.claude.loopback import Loopback, texts

CALL = ("calibrate", "--against", "verdicts", "--judge", "claude")


def by_hand(n, body, headers):
    """The verdict by hand on the set of a call, in the form that the call asks for."""
    shown, fields = texts(body), body["output_config"]["format"]["schema"]["properties"]
    sides = {side: (shown["task"], shown[side]["title"], tuple(shown[side]["questions"])) for side in "AB"}
    for side, other in (("A", "B"), ("B", "A")):
        key = sides[side]
        # Gold is among the answers that were judged; beside another set it is the reference.
        if key in STORED and (key not in GOLD or sides[other] in GOLD):
            judgment = STORED[key].judgment
            better = {"win": side, "loss": other, "tie": "tie"}[judgment.verdict]
            scores = {d: round(s) for d, s in judgment.scores.items()}
            return {
                "text": json.dumps({"reason": "By hand."} | ({"verdict": better} if "verdict" in fields else scores))
            }
    raise AssertionError(f"a set that nobody judged: {shown}")


GOLD = {(c.task, c.gold.title, c.gold.questions) for c in Ruler.load().cases}
STORED = {(r.case.task, r.answer.title, r.answer.questions): r for r in against.by_hand()}


@pytest.fixture
def server(monkeypatch):
    with Loopback(by_hand, polls=0) as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-planted-against")
        yield running


@pytest.mark.parametrize("batch", [False, True], ids=["live", "batch"])
def test_sixty_verdicts_are_asked_again_once_and_the_agreement_is_printed(server, notch, tmp_path, batch):
    more = ("-p", "batch", str(batch).lower())
    said = notch(*CALL, *more)
    assert said.code == 0, said.err
    assert "60 answers judged by both\n" in said.out and "same verdict 1.00" in said.out
    assert "Spearman of case quality   1.000" in said.out and "180 calls for $" in said.out
    assert len(server.messages) == (0 if batch else 180) and len(server.batches) == batch
    again = notch(*CALL, *more)
    assert "0 calls for $0.00, 180 replies from the store" in again.out
    assert len(list(Store(tmp_path / "runs" / "judgments.jsonl"))) == 180 and not list((tmp_path / "runs").glob("0*"))


def test_the_cap_holds_and_a_higher_one_goes_on_from_there(server, notch):
    stopped = notch(*CALL, "-p", "judging", "{dollars: 0.1}")
    bought = len(server.messages)
    assert stopped.code == 4 and "the cap is $0.10" in stopped.err and 0 < bought < 180
    assert notch(*CALL).code == 0 and len(server.messages) == 180


def test_without_a_key_it_says_so_and_asks_nothing(server, notch, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    said = notch(*CALL)
    assert said.code == 3 and "ANTHROPIC_API_KEY" in said.err and server.requests == []
