"""Many runs of a plan judged by Claude in one message batch: half the price, and one wait for all of them.

First every run is answered and waits, as one whose judge failed does; then everything that they lack is asked at once;
then each is executed again, finds its judgments and is sealed. Knows what waits, the one cap, and whose call a reply
was. Does not know plans, nor how a batch is sent and picked up again (lib.claude.paid does). Does not cover looks at
the sealed gate, comparisons, and usefulness replies that were faulty twice: those are asked live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeGuard

from lib.claude.paid import Ask, Fault, Paid, say
from lib.claude.prices import Spent, spent
from lib.claude.store import REPLY
from lib.lab.base import Runnable
from lib.lab.experiment import UNJUDGED, Experiment
from lib.log import Row
from lib.measure.claude_judge import ClaudeJudge
from lib.measure.judge_calls import USEFUL, Call
from lib.runs import pending
from lib.runs.record import RunCost

LATER = {UNJUDGED: "1"}  # for the kernel of a run that is only answered


def batched(runnable: Runnable) -> TypeGuard[Experiment]:
    """Whether its judgments can be asked for together with those of other runs."""
    return isinstance(runnable, Experiment) and runnable.kind == "experiment" and runnable.judge == "claude"


def lacks(runnable: Runnable) -> bool:
    """Whether it is yet to be answered, or some case of it to be judged."""
    waiting = pending.read(runnable.runs_folder, runnable.key)
    return waiting is None or any(row.unscored is not None for row in waiting[1])


def judge(runs: Sequence[Runnable], dollars: float, poll: float = 60.0) -> float:
    """Ask for every judgment that waiting runs lack, and put it beside their answers; what stays unscored says why.
    Returns what it cost.

    `dollars` is the one cap, looked at before anything is sent. Raises what `Paid.collect` raises; a batch that was sent
    is read by the next call.
    """
    eras: dict[str, list[Experiment]] = {}
    for run in filter(batched, runs):
        eras.setdefault(run.fingerprint, []).append(run)
    cost = 0.0
    # A batch each, for a line of the store names one judge.
    for era in eras.values():
        cost += _judge(era, dollars - cost, poll)
    return cost


def _judge(runs: Sequence[Experiment], dollars: float, poll: float) -> float:
    """The same for runs of one ruler and judge; returns what it cost."""
    asks = {run.key: _asks(run) for run in runs}
    # Two runs may ask the same; the first of them is who pays.
    owners = {ask.key: key for key, own in reversed(asks.items()) for ask in own}
    paid = replace(_judge_of(runs[0]).paid, dollars=dollars, batch=True, poll=poll)
    before = paid.store.end
    if missing := sum(paid.store.reply(key) is None for key in owners):
        say(f"{missing} replies about {len(runs)} runs come in one batch, which can take a day; cut off, the same call "
            "picks it up")  # fmt: skip
    try:
        [rows] = paid.collect([paid.submit(paid.answer([ask for own in asks.values() for ask in own]))])
    finally:
        paid.close()
    bill = _bill(paid, before, owners)
    # `rows` are in the order of the asks, in which those of a run stand together.
    replies = iter(rows)
    for run in runs:
        _keep(run, list(islice(replies, len(asks[run.key]))), bill.get(run.key, Spent()))
    return paid.cost.dollars


def _asks(run: Experiment) -> list[Ask]:
    """The calls that a waiting run still needs: those of its judgments case by case, then those about usefulness."""
    waiting = pending.read(run.runs_folder, run.key)
    assert waiting is not None
    cases, judge = {case.id: case for case in run.ruler.gate(run.gate)}, _judge_of(run)
    answered = [(cases[row.case], row.answer, row) for row in waiting[1] if row.answer is not None]
    asks = [ask for case, answer, row in answered if row.unscored is not None for ask in judge.asks(case, answer)]
    if run.useful:
        asks += [judge.ask(Call(USEFUL), case, answer) for case, answer, _ in answered]
    return asks


def _bill(paid: Paid, before: int, owners: Mapping[str, str]) -> dict[str, Spent]:
    """What was paid since, by the run that needed it, faulty replies among it."""
    bill: dict[str, Spent] = {}
    for row in paid.store.since(before):
        if row["type"] == REPLY and row["key"] in owners:
            key = owners[row["key"]]
            bill[key] = bill.get(key, Spent()) + spent(row["usage"], row["dollars"])
    return bill


def _keep(run: Experiment, replies: Sequence[Row | Fault], bill: Spent) -> None:
    """Put what came back beside the answers of a run."""
    waiting = pending.read(run.runs_folder, run.key)
    assert waiting is not None
    record, rows = waiting
    judge, left = _judge_of(run), iter(replies)
    judged = [
        row if row.unscored is None else row.judged(judge.outcome(list(islice(left, len(judge.calls)))))
        for row in rows
    ]  # fmt: skip
    cost = record.cost.as_dict()
    for name, more in vars(bill).items():
        cost[f"judge_{name}"] = round(cost.get(f"judge_{name}", 0) + more, 4)
    # Replies about usefulness are not among them: the run finds those in the store when it is executed again.
    pending.keep(run.runs_folder, record.revised(cost=RunCost.read(cost)), judged)


def _judge_of(run: Experiment) -> ClaudeJudge:
    """The judge of a run whose answers wait for a batch; only Claude's can, so any other is a fault of the code."""
    judge = run.the_judge
    assert isinstance(judge, ClaudeJudge)
    return judge
