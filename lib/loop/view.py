"""What a proposer may know, rebuilt from disk every time: champion, last runs, lessons, worst dev cases, steering, menu.

Knows which texts may be shown: of cases, those of the dev gate alone, with the judge's notes; no task and no gold of
the gates that decide, wherever it may stand. Does not know who reads it, nor
what they make of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lib.agent.pipeline import STEPS
from lib.agent.prompt import ADVICE
from lib.files import RULER
from lib.loop import lessons
from lib.loop.events import Events
from lib.loop.proposal import PROPOSABLE, Proposal
from lib.loop.steering import Limits, Steering
from lib.loop.validate import Base, admit
from lib.measure.ruler import Ruler
from lib.models.model import Decoding
from lib.runs.ledger import Ledger

LAST, WORST, REFUSED = 12, 4, 8  # rows of each that are shown
SHOWN = ("id", "status", "lever", "gate", "hypothesis", "predicted", "pipeline", "decoding", "adapter")


@dataclass(frozen=True)
class View:
    """The state of a loop, as proposers get it."""

    ledger: Ledger
    events: Events
    steering: Steering
    base: Base
    limits: Limits
    fingerprint: str
    leave: str = ""  # the lever class that the next proposal must leave, "" for none

    def admit(self, proposal: Proposal) -> dict[str, Any]:
        """Parameters of a proposal that may run. Raises Refused."""
        return admit(proposal, self.base, self.ledger, self.steering, self.limits, self.leave)

    @cached_property
    def champion(self) -> dict[str, Any] | None:
        return self.ledger.champion(self.fingerprint)

    @cached_property
    def plain(self) -> dict[str, Any]:
        """Everything as plain data."""
        return shown(self._all())

    def _all(self) -> dict[str, Any]:
        recent = [r for r in self.ledger.records if r["kind"] == "experiment" and r["fingerprint"] == self.fingerprint]
        return {
            "champion": _run(self.champion) if self.champion else None,
            "last_runs": [_run(r) for r in recent[-LAST:]],
            **lessons.as_data(self.ledger, self.fingerprint),
            "worst_dev_cases": self._worst(),
            "refused": self._refused(),
            "next": self.steering.wish,
            "standing": self.steering.standing,
            "bans": sorted(self.steering.bans),
            "must_leave": self.leave,
            "limits": {"calls_a_case": self.limits.calls, "tokens_a_call": self.limits.tokens},
            "levers": list(PROPOSABLE),
            "steps": menu(),
            "advice": sorted(ADVICE),
            "decoding": {k: v for k, v in Decoding().__dict__.items() if k != "grammar"},
            "adapters": adapters(self.ledger),
        }

    def _refused(self) -> list[dict[str, Any]]:
        """The last refused proposals, and trainings asked for that cannot be made; those have the rule `request`."""
        rows = [e for e in self.events.of("refused", "request") if not e.get("opened")][-REFUSED:]
        rows = [{"by": "loop", "rule": "request", "reason": e.get("why", ""), **e} for e in rows]
        return [{k: e[k] for k in ("by", "rule", "reason")} for e in rows]

    def _worst(self) -> list[dict[str, Any]]:
        """The lowest cases of the champion's run on the dev gate, with what the judge said."""
        run = self.ledger.screened(self.fingerprint)
        if run is None or run["gate"] != "dev":
            return []
        judged = [r for r in self.ledger.cases(run["id"]) if r["quality"] is not None]
        rows = sorted(judged, key=lambda r: (r["quality"], r["case"]))[:WORST]
        return [
            {
                "task": r["task"], "answer": r["answer"], "no_answer": r["no_answer"], "quality": r["quality"],
                "verdict": (r["judgment"] or {}).get("verdict"), "notes": (r["judgment"] or {}).get("notes", {}),
            }
            for r in rows
        ]  # fmt: skip


def _hidden() -> re.Pattern[str]:
    """Tasks and gold questions of the gates that decide; one of them may stand in a judge's note on a dev case too."""
    cases = [c for c in Ruler.load(RULER).cases if c.gate != "dev"]
    texts = {t for c in cases for t in (c.task, *(c.gold.questions if c.gold else ()))}
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))), re.IGNORECASE)


def shown(value: Any, hidden: re.Pattern[str] | None = None) -> Any:
    """Plain data as anybody may see it: without those texts."""
    hidden = hidden or _hidden()
    if isinstance(value, str):
        return hidden.sub("[withheld]", value)
    if isinstance(value, dict):
        return {k: shown(v, hidden) for k, v in value.items()}
    return [shown(v, hidden) for v in value] if isinstance(value, (list, tuple)) else value


Ask = Callable[[View], "Asked"]  # a proposer


@dataclass(frozen=True)
class Asked:
    """What a proposer answered: plain data or a text to be read as JSON; None when it has nothing left to propose."""

    value: Any
    by: str
    dollars: float = 0.0
    tokens: int = 0
    fault: str = ""  # why there is no value, where something was asked and paid for all the same


def _run(record: dict[str, Any]) -> dict[str, Any]:
    s, d = record["scores"], record["decision"]
    run = {k: record[k] for k in SHOWN}
    run |= {k: s.get(k) for k in ("quality", "wins", "ties", "losses", "no_answer", "dims")} if s else {}
    return run | {k: d[k] for k in ("reason", "against", "delta", "p", "low", "high") if d.get(k) not in (None, "")}


def menu() -> list[dict[str, Any]]:
    """Every step of the registry with what it does and what it takes."""
    rows = []
    for name, lever in sorted(STEPS.items(), key=lambda item: (item[1].family, item[0])):
        arguments = {k: {"type": a.expected, "default": a.default} for k, a in lever.arguments.items()}
        rows.append({"step": name, "family": lever.family, "about": lever.about, "arguments": arguments})
    return rows


def adapters(ledger: Ledger) -> list[str]:
    """Sealed runs that hold an adapter; a proposal names one by its id."""
    return [r["id"] for r in ledger.records if (ledger.folder / r["id"] / "adapter").is_dir()]


def as_text(view: View, waiting: list[str]) -> str:
    """The same for a person or an outside agent, as Markdown, after what waits to be run."""
    p = view.plain
    c = p["champion"]
    lines = ["# Before a new proposal", "", *(f"- {line}" for line in waiting), ""] if waiting else []
    lines += ["# Champion", ""]
    lines += [f"{c['id']}: quality {c['quality']:.4f}, {_steps(c)}" if c else "none yet", "", "# Last runs", ""]
    lines += [_line(r) for r in p["last_runs"]] or ["none yet"]
    lines += ["", lessons.as_text(view.ledger, view.fingerprint), "# Worst dev cases of the champion", ""]
    lines += [_case(row) for row in p["worst_dev_cases"]] or ["no run of the champion on the dev gate yet"]
    lines += ["", "# Steering", "", f"next: {p['next'] or '-'}", f"standing: {p['standing'] or '-'}"]
    lines += [f"bans: {', '.join(p['bans']) or '-'}"]
    if p["must_leave"]:
        lines += [f"must leave: {p['must_leave']} (nothing was kept for long)"]
    lines += ["", "# Refused lately", ""]
    lines += [f"- {e['by']}: {e['rule']}: {e['reason']}" for e in p["refused"]] or ["-"]
    lines += ["", "# Menu", "", f"levers: {', '.join(p['levers'])}", f"advice: {', '.join(p['advice'])}"]
    lines += [f"- {s['step']} ({s['family']}): {s['about']} {_arguments(s)}" for s in p["steps"]]
    return "\n".join(lines) + "\n"


def _steps(run: dict[str, Any]) -> str:
    return " > ".join(row["step"] for row in run["pipeline"])


def _line(run: dict[str, Any]) -> str:
    delta = f", {run['delta']:+.4f} against {run['against']}" if "delta" in run else ""
    quality = f" quality {run['quality']:.4f}" if "quality" in run else ""
    return f"- {run['id']} [{run['gate']}] {run['status']}{quality}{delta}, predicted {run['predicted']:+.3f}: {run['hypothesis'][:160]}"


def _case(row: dict[str, Any]) -> str:
    asked = " / ".join(row["answer"]["questions"]) if row["answer"] else f"no answer: {row['no_answer']}"
    notes = "; ".join(f"{k}: {v}" for k, v in row["notes"].items() if v)
    return f"- {row['task']} ({row['quality']:.3f}): {asked}{f' [judge: {notes}]' if notes else ''}"


def _arguments(step: dict[str, Any]) -> str:
    return ", ".join(f"{k}: {a['type']} = {a['default']!r}" for k, a in step["arguments"].items())
