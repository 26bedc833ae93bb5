"""What the sealed runs were answered, read again: every completion still gives the answer that was judged."""

from collections import defaultdict

import pytest

from lib.agent.pipeline import run
from lib.agent.steps import build
from lib.files import ROOT, canonical
from lib.lab.experiment import answer_of
from lib.measure.answer import Answer
from lib.measure.ruler import Ruler
from lib.models.model import Capabilities, Completion, Decoding, ToyModel
from lib.runs.ledger import Ledger

# What a set's likelihood was stands in no trace, so a choice by it cannot be played back.
SEALED = [
    r
    for r in Ledger.read(ROOT / "runs").records
    if r.kind in ("experiment", "confirm") and r.scores and all(s.get("by") != "logprob" for s in r.pipeline)
]


class Replay(ToyModel):
    """A model that says again what stands in the trace of a run, call by call."""

    def __init__(self, rows):
        super().__init__()
        self.capabilities = Capabilities(logprobs=True, grammar=True, adapters=True)
        self.replies = defaultdict(list)
        for row in rows:
            for call in row.calls:
                self.replies[canonical(call["messages"])].append(call)

    def generate(self, prompts, decodings):
        calls = [self.replies[canonical(list(messages))].pop(0) for messages in prompts]
        return [Completion(c["text"], *c["tokens"], c["finish_reason"]) for c in calls]

    def with_adapter(self, adapter):
        return self


@pytest.mark.parametrize("record", SEALED, ids=lambda r: r.id)
@pytest.mark.slow
def test_every_sealed_completion_gives_the_answer_that_was_judged(record):
    rows, protocol = Ledger.read(ROOT / "runs").cases(record.id), Ruler.load().protocol
    steps = build(record.pipeline)
    states = run(steps, [(row.case, row.task) for row in rows], Replay(rows), Decoding(max_tokens=100_000))
    for row, state in zip(rows, states, strict=True):
        answer = answer_of(state, protocol)
        assert (answer if isinstance(answer, Answer) else None) == row.answer, row.case
        assert row.answer is not None or answer.reason
    assert rows
