"""Scores again, in a process of its own: `python -m lib.runs.rescore FOLDER < {"record": ..., "cases": [...]}`.

Knows the ruler, the judge and the arithmetic; imports no model, no step and nothing that a run could have changed in
memory. Prints a JSON list of what does not follow. With the offline judge every judgment is made again from the
answer, and its scores may differ in the last digits; with Claude every judgment must stand in the store that was paid
for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.files import ROOT, RULER, Tampered, sha256_file
from lib.measure.answer import Answer, NoAnswer, spec_gate
from lib.measure.judge import Judgment, Unscored
from lib.measure.leak import copies, leaked
from lib.measure.ruler import BadRuler, Case, Ruler
from lib.runs.offline import NEAR, OfflineJudge, doubted
from lib.runs.record import CaseRow, Record, record_of
from lib.runs.verify import recomputed
from lib.weights import PINNED
from lib.weights import folder as folder_of


def check(record: Record, cases: Sequence[CaseRow], folder: Path) -> list[str]:
    """What does not follow, as a fresh process sees it; empty when all does."""
    run = json.dumps({"record": record.as_dict(), "cases": [row.as_dict() for row in cases]})
    # A step of the run may have reached into this process; a fresh one has only what the files hold.
    command = [sys.executable, "-m", "lib.runs.rescore", str(folder.resolve())]
    # This checkout alone: what the caller had put on its path is not what is to judge.
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input=run, cwd=ROOT, env=env, capture_output=True, text=True)
    try:
        faults = json.loads(done.stdout)
    except ValueError:
        *_, reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return [f"the scores could not be computed again ({reason})"]
    return [str(text) for text in faults]


def faults(record: Record, cases: Sequence[CaseRow], folder: Path) -> list[str]:
    """What does not follow from ruler, answers and judgments."""
    try:
        ruler = Ruler.load(RULER)
    except (Tampered, BadRuler) as error:
        return [str(error)]
    if [row.case for row in cases] != [c.id for c in ruler.gate(record.gate)]:
        return [f"the cases are not those of the gate {record.gate!r}, in its order"]
    wrong = [f"case {row.case}: {fault}" for row in cases if (fault := _row_fault(row, ruler.by_id[row.case], ruler))]
    wrong += recomputed(record, cases)
    # The judge last: it has to be loaded, and of rows that do not hold it need not be asked.
    return wrong or _judged_otherwise(record, cases, ruler, folder)


def _row_fault(row: CaseRow, case: Case, ruler: Ruler) -> str:
    """What is wrong with a row, whatever the judge says of it; "" when nothing is."""
    if row.task != case.task:
        return "its task is another"
    outcomes = (row.judgment, row.no_answer, row.unscored)
    if sum(o is not None for o in outcomes) != 1 or (row.answer is None) != (row.no_answer is not None):
        return "not exactly one of judgment, no answer, unscored"
    if row.answer is None:
        return ""
    rules = ruler.protocol
    gated = spec_gate(row.answer.title, row.answer.questions, rules.questions, rules.generic_titles)
    if isinstance(gated, NoAnswer):
        return f"its answer does not pass the spec gate ({gated.reason})"
    for name, again in (("copies", copies(case, row.answer)), ("leak", leaked(case, row.answer))):
        # Rows from before they were counted have neither.
        if name in row.model_fields_set and getattr(row, name) != again:
            return f"its {name} is {getattr(row, name)!r}, and {again!r} when gold is compared again"
    return ""


def _judged_otherwise(record: Record, cases: Sequence[CaseRow], ruler: Ruler, folder: Path) -> list[str]:
    """Cases of which the judge says something else now than the row does."""
    judge: Any = _offline() if record.judge == "offline" else _stored(record, ruler, folder)
    if record.fingerprint != ruler.fingerprint(judge.identity):
        return ["the fingerprint is not that of this ruler and judge"]
    # Claude's replies are stored text and repeat exactly; the offline judge adds floats, in another order elsewhere.
    within = NEAR if record.judge == "offline" else 0.0
    judged, pairs = [], []
    for row in cases:
        if row.judgment is not None and row.answer is not None:
            judged.append((row.case, row.judgment))
            pairs.append((ruler.by_id[row.case], row.answer))
    wrong = []
    # All at once, as the run had them judged: vectors of few texts at a time take longer.
    for (case, stored), again in zip(judged, judge.judge_all(pairs), strict=True):
        if not _same(again, stored, within):
            wrong.append(f"case {case}: the judge says something else of this answer")
    return wrong


def _same(again: Judgment | Unscored, stored: Judgment, within: float) -> bool:
    """Whether two judgments say the same: each score as near as that, verdict and flips exactly."""
    if not isinstance(again, Judgment):
        return False
    if (again.verdict, again.flipped, again.scores.keys()) != (stored.verdict, stored.flipped, stored.scores.keys()):
        return False
    return all(abs(value - stored.scores[name]) <= within for name, value in again.scores.items())


def _offline() -> OfflineJudge:
    """The offline judge, with nothing believed that the cache remembers. Raises Tampered."""
    minilm = PINNED["minilm"]
    for file in minilm.files:
        if sha256_file(path := folder_of(minilm) / file.name) != file.sha256:
            raise Tampered(f"{path}: not the pinned file that the judge reads with; delete it")
    return OfflineJudge(doubted)


def _stored(record: Record, ruler: Ruler, folder: Path) -> Any:
    """Judgments as the store's paid replies say them; nothing is asked and nothing is spent."""
    from lib.claude import store
    from lib.measure import judge_calls
    from lib.measure.claude_judge import ClaudeJudge

    claude = ClaudeJudge(ruler, store=folder / store.NAME, **record.judging)

    class Stored:
        """A judge of the record's identity; an answer whose calls are not all in the store is Unscored."""

        identity = claude.identity

        def judge_all(self, pairs: Sequence[tuple[Case, Answer]]) -> list[Judgment | Unscored]:
            return [self._of(case, answer) for case, answer in pairs]

        def _of(self, case: Case, answer: Answer) -> Judgment | Unscored:
            rows = {c: claude.store.reply(claude.key(c, case, answer)) for c in claude.calls}
            if not all(rows.values()):
                return Unscored("not in the store")
            values = {c: row["value"] for c, row in rows.items() if row}
            return judge_calls.judgment(values, claude.dimensions, 0.0)

    return Stored()


if __name__ == "__main__":
    run = json.load(sys.stdin)
    rows = [CaseRow.read(row) for row in run["cases"]]
    print(json.dumps(faults(record_of(run["record"]), rows, Path(sys.argv[1]))))
