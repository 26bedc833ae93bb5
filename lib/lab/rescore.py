"""Scores again, in a process of its own: `python -m lib.lab.rescore FOLDER < {"record": ..., "cases": [...]}`.

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
from pathlib import Path
from typing import Any

from lib.files import ROOT, RULER, Tampered
from lib.lab.ledger import answer_of, outcome_of, recomputed
from lib.lab.offline import NEAR, OfflineJudge
from lib.measure.answer import Answer, NoAnswer, spec_gate
from lib.measure.judge import Judgment, Unscored
from lib.measure.leak import copies, leaked
from lib.measure.ruler import BadRuler, Case, Ruler


def check(record: dict[str, Any], cases: list[dict[str, Any]], folder: Path) -> list[str]:
    """What does not follow, as a fresh process sees it; empty when all does."""
    told = json.dumps({"record": record, "cases": cases})
    command = [sys.executable, "-m", "lib.lab.rescore", str(folder.resolve())]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input=told, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().splitlines()
        return [f"the scores could not be computed again ({said[-1] if said else f'exit code {done.returncode}'})"]
    return [str(text) for text in found]


def odd(record: dict[str, Any], cases: list[dict[str, Any]], folder: Path) -> list[str]:
    """What does not follow from ruler, answers and judgments."""
    try:
        ruler = Ruler.load(RULER)
    except (Tampered, BadRuler) as error:
        return [str(error)]
    own = {c.id: c for c in ruler.gate(record["gate"])}
    if [row["case"] for row in cases] != list(own):
        return [f"the cases are not those of the gate {record['gate']!r}, in its order"]
    wrong = [f"case {r['case']}: {w}" for r in cases if (w := _row(r, own[r["case"]], ruler))]
    wrong += recomputed(record, cases)
    return wrong or _judged(record, cases, own, ruler, folder)


def _row(row: dict[str, Any], case: Case, ruler: Ruler) -> str:
    if row["task"] != case.task:
        return "its task is another"
    said = [row[k] is not None for k in ("judgment", "no_answer", "unscored")]
    if sum(said) != 1 or (row["answer"] is None) != (row["no_answer"] is not None):
        return "not exactly one of judgment, no answer, unscored"
    if row["answer"] is None:
        return ""
    rules = ruler.protocol
    gated = spec_gate(row["answer"]["title"], row["answer"]["questions"], rules.questions, rules.generic_titles)
    if isinstance(gated, NoAnswer):
        return f"its answer does not pass the spec gate ({gated.reason})"
    answer = answer_of(row)
    seen = {"copies": copies(case, answer), "leak": leaked(case, answer)}
    odd = next((k for k, v in seen.items() if k in row and row[k] != v), "")
    return f"its {odd} is {row[odd]!r}, and {seen[odd]!r} when gold is compared again" if odd else ""


def _judged(
    record: dict[str, Any], cases: list[dict[str, Any]], own: dict[str, Case], ruler: Ruler, folder: Path
) -> list[str]:
    judge: Any = OfflineJudge() if record["judge"] == "offline" else _stored(record, ruler, folder)
    if record["fingerprint"] != ruler.fingerprint(judge.identity):
        return ["the fingerprint is not that of this ruler and judge"]
    wrong = []
    for row in cases:
        if row["judgment"] is None:
            continue
        again = judge.judge(own[row["case"]], answer_of(row))
        if not _same(again, outcome_of(row), NEAR if record["judge"] == "offline" else 0.0):
            wrong.append(f"case {row['case']}: the judge says something else of this answer")
    return wrong


def _same(again: Any, stored: Any, within: float) -> bool:
    """Whether two judgments say the same: each score as near as that, verdict and flips exactly."""
    if not (isinstance(again, Judgment) and isinstance(stored, Judgment)):
        return False
    if (again.verdict, again.flipped, again.scores.keys()) != (stored.verdict, stored.flipped, stored.scores.keys()):
        return False
    return all(abs(value - stored.scores[name]) <= within for name, value in again.scores.items())


def _stored(record: dict[str, Any], ruler: Ruler, folder: Path) -> Any:
    """Judgments as the store's paid replies say them; nothing is asked and nothing is spent."""
    from lib.claude import store
    from lib.measure import judge_calls
    from lib.measure.claude_judge import ClaudeJudge

    asked = ClaudeJudge(ruler, store=folder / store.NAME, **record["judging"])

    class Stored:
        identity = asked.identity

        def judge(self, case: Case, answer: Answer) -> Judgment | Unscored:
            rows = {c: asked.store.reply(asked.key(c, case, answer)) for c in asked.calls}
            if not all(rows.values()):
                return Unscored("not in the store")
            values = {c: row["value"] for c, row in rows.items() if row}
            return judge_calls.judgment(values, asked.dimensions, 0.0)

    return Stored()


if __name__ == "__main__":
    told = json.load(sys.stdin)
    print(json.dumps(odd(told["record"], told["cases"], Path(sys.argv[1]))))
