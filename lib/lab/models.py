"""Change only the model: sealed runs that differ in nothing else, side by side.

Knows how to refuse runs between which something else than the model differs, and to compare the rest. Answers nothing
and judges no candidate: each candidate is a sealed run of its own. The result is a reference beside the climb.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from lib.files import canonical, without_paths
from lib.forms import Text, form
from lib.lab.base import BadParameters, Clock, Finding, Runnable, sealed_run
from lib.lab.experiment import Experiment
from lib.lab.ledger import Decision, Ledger, outcome_of
from lib.lab.record import Record
from lib.measure.answer import Answer
from lib.measure.calibrate import row_of
from lib.measure.checks import compare
from lib.measure.judge import DIMENSIONS
from lib.measure.keep import ALPHA

SAME = ("pipeline", "decoding", "judge", "gate", "seed", "fingerprint")  # what the runs of a group share
CLOUD = "claude-"  # models whose service takes no temperature
PURSE = ("dollars", "concurrency")  # of judging: what it may cost and how fast it goes changes no judgment


def named(record: dict[str, Any]) -> str:
    """The candidate of a run: the model, with its adapter if it has one."""
    return record["model"] + (f" + {record['adapter']}" if record["adapter"] else "")


def split(candidate: str) -> tuple[str, str]:
    """Model and adapter of a spelling such as `smollm2+runs/0030-sft/adapter`.

    >>> split("smollm2+runs/0030-sft/adapter")
    ('smollm2', 'runs/0030-sft/adapter')
    """
    model, _, adapter = candidate.partition("+")
    return model.strip(), adapter.strip()


def sealed(ledger: Ledger, experiment: Experiment) -> dict[str, Any] | None:
    """The newest whole run that did what an experiment would do, whatever was expected of it."""
    setup = {k: getattr(experiment, k) for k in (*SAME, "model", "adapter")} | {"judging": _judging(experiment.judging)}
    want = json.loads(without_paths(json.dumps(setup), experiment.model))  # as a seal spells it
    for r in reversed(ledger.records):
        have = {k: r[k] for k in (*SAME, "model", "adapter")} | {"judging": _judging(r["judging"])}
        sound = r["kind"] == "experiment" and r["status"] not in ("invalid", "crashed")
        whole = sound and r["scores"] and not r["scores"]["unscored"]
        if whole and have == want and (r.get("useful") or not experiment.useful):
            return r
    return None


def _judging(judging: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in judging.items() if k not in PURSE}


@form(BadParameters)
class Models(Runnable):
    """What the parameters cell says. Nothing runs until `run()`."""

    hypothesis: Text = "If prompt, schema or judge held the score down, no other model could lift it."
    groups: dict[str, list[str]] = field(default_factory=dict)
    kind: str = "models"
    lever: ClassVar[str] = "anchor"

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger.read()

    @cached_property
    def members(self) -> dict[str, list[dict[str, Any]]]:
        """The records of every group, each run once, in the order given."""
        groups = {}
        for name, runs in self.groups.items():
            records = [sealed_run(self.ledger, r) for r in runs]
            groups[str(name)] = list({r["id"]: r for r in records}.values())
        return groups

    @property
    def records(self) -> list[dict[str, Any]]:
        return list({r["id"]: r for some in self.members.values() for r in some}.values())

    @property
    def fingerprint(self) -> str:
        return self.records[0]["fingerprint"] if self.records else super().fingerprint

    @property
    def keyed(self) -> dict[str, Any]:
        # What is compared, not what was expected of it: the same question is asked once.
        return {"groups": {name: [r["id"] for r in some] for name, some in self.members.items()}}

    def check(self) -> Models:
        """Refuse runs that are not whole, that another ruler judged, or that differ in more than the model."""
        super().check()
        if not self.groups:
            raise BadParameters("groups is empty: name the runs that are compared, such as {ask: [1, 3]}")
        for name, records in self.members.items():
            _check(name, records)
        if len({r["fingerprint"] for r in self.records}) > 1:
            raise BadParameters("the groups were made with different rulers or judges; compare each era for itself")
        return self

    def run(self) -> Compared:
        """Read the sealed judgments and compare. No model and no paid judge is asked."""
        self.check()
        clock = Clock()
        rows = [row for name, some in self.members.items() for r in some for row in self._rows(name, r["id"])]
        rows += self._ceiling()
        candidates = {r["id"]: _candidate(r) for r in self.records}
        findings = {**compare.readings(rows), "candidates": candidates, "parameters": self.parameters}
        judge = self.records[0]["identity"].get("judge", {})
        cost = {"calls": 0, "generation_tokens": 0}
        record = self.record(found=findings, cost=cost, identity={"judge": judge}, **clock.times)
        return Compared(self, record, rows)

    def _rows(self, group: str, run: str) -> list[dict[str, Any]]:
        return [row_of("sealed", r["case"], outcome_of(r), group=group, run=run) for r in self.ledger.cases(run)]

    def _ceiling(self) -> list[dict[str, Any]]:
        """Every gold answer judged as a candidate, where the judge costs nothing and is the one of the runs."""
        if super().fingerprint != self.fingerprint:
            return []
        pairs = [(c, Answer(c.gold.title, c.gold.questions)) for c in self.ruler.gate("full") if c.gold]
        judged = zip(pairs, self.the_judge.judge_all(pairs), strict=True)
        return [row_of("gold", c.id, o, group=compare.CEILING, run=compare.CEILING) for (c, _), o in judged]

    def record(self, **findings: Any) -> Record:
        """The record of this comparison with what came out; what was the same in all runs is said as theirs."""
        same = {k: self.records[0][k] for k in (*SAME, "judging")}
        return super().record(of=", ".join(r["id"] for r in self.records), **same, **findings)

    # --- what the notebook shows

    @property
    def plan(self) -> str:
        """What it takes, to be read before it runs."""
        return f"{len(self.records)} sealed runs in {len(self.groups)} groups; nothing is answered or paid for again."

    def _repr_markdown_(self) -> str:
        lines = []
        for name, records in self.members.items():
            r = records[0]
            who = ", ".join(f"{named(x)} ({x['id']})" for x in records)
            lines.append(
                f"- **{name}**: {who}. The same in all: pipeline "
                f"`{canonical(r['pipeline'])}`, decoding `{canonical(r['decoding']) if r['decoding'] else 'greedy'}`, judge "
                f"{r['judge']}, gate {r['gate']}, seed {r['seed']}, ruler and judge `{r['fingerprint'][:12]}`."
            )
        lines += [f"- {text}" for text in caveats(self.records)]
        return f"{self.plan}\n\n" + "\n".join(lines)


def _check(name: str, records: list[dict[str, Any]]) -> None:
    if len(records) < 2:
        raise BadParameters(f"group {name!r} has {len(records)} runs; a comparison needs two or more")
    for r in records:
        if r["kind"] != "experiment" or r["status"] == "invalid" or not r["scores"] or r["scores"]["unscored"]:
            raise BadParameters(
                f"{r['id']}: expected a whole experiment ({r['kind']}, {r['status']}); run it again first"
            )
        if r["gate"] != "full":
            raise BadParameters(f"{r['id']} ran on gate {r['gate']!r}; models are compared on the full gate")
    first = records[0]
    for r in records[1:]:
        for k in SAME:
            if r[k] != first[k]:
                raise BadParameters(
                    f"{r['id']} and {first['id']} differ in {k} ({r[k]!r:.60} against {first[k]!r:.60}); "
                    "only the model may differ"
                )
        if _judging(r["judging"]) != _judging(first["judging"]):
            raise BadParameters(f"{r['id']} and {first['id']} differ in judging; only the model may differ")
    names = [named(r) for r in records]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise BadParameters(f"group {name!r} has {twice} twice; each candidate stands once")


def _candidate(record: dict[str, Any]) -> dict[str, Any]:
    cost = record["cost"]
    return {
        "candidate": named(record), "model": record["model"], "adapter": record["adapter"], "lever": record["lever"],
        "calls": cost.get("calls", 0), "generation_tokens": cost.get("generation_tokens", 0),
        "dollars": cost.get("dollars", 0.0),
        "useful": record["found"].get("useful", {}) if record["judge"] == "claude" else {},
    }  # fmt: skip


def caveats(records: list[dict[str, Any]]) -> list[str]:
    """What, against the intention, was not the same in all runs."""
    sentences = []
    if len({r["code"].get("sha256") for r in records}) > 1:
        sentences.append("The runs were made by different states of the code; where prompts changed in between, so did more "
                    "than the model.")  # fmt: skip
    free = [named(r) for r in records if r["model"].startswith(CLOUD)]
    if free:
        sentences.append(
            f"{', '.join(free)} cannot decode greedily: asked for the same, it samples as its service does."
        )
    if len({canonical(r["machine"]) for r in records}) > 1:
        sentences.append(
            "The runs were made on different machines or library versions; last digits can differ with them."
        )
    return sentences


@dataclass(frozen=True, repr=False)
class Compared(Finding):
    """What a comparison found, before it is sealed."""

    @property
    def decision(self) -> Decision:
        """Nothing is kept; the sentence says how far quality moved when only the model did."""
        sentences, names = [], _names(self.found)
        for group in self.found["groups"]:
            first, *others = group["runs"]
            changed = [r for r in others if _beyond_chance(r["difference"])]
            deltas = ", ".join(f"{names[r['run']]} {r['difference']['delta']:+.3f}" for r in changed)
            sentences.append(
                f"{group['group']}: against {names[first['run']]} quality moves beyond chance for {len(changed)} of "
                f"{len(others)}" + (f" ({deltas})" if changed else "")
            )
        return Decision("reference", "; ".join(sentences))

    def _repr_markdown_(self) -> str:
        return "\n".join(f"- {text}" for text in moved(self.found))


def _names(found: dict[str, Any]) -> dict[str, str]:
    """What each run of a comparison is called, by its id."""
    return {run: about["candidate"] for run, about in found["candidates"].items()}


def _beyond_chance(test: dict[str, Any]) -> bool:
    return test["p"] is not None and test["p"] < ALPHA


def moved(found: dict[str, Any]) -> list[str]:
    """What changed with the model and what did not, in sentences made from the numbers."""
    sentences, names = [], _names(found)
    for group in found["groups"]:
        first, *others = group["runs"]
        base = names[first["run"]]
        sentences += [_sentence(group["group"], base, names[r["run"]], first, r) for r in others]
        sentences.append(_coverage(group["group"], base, {names[r["run"]]: r for r in others}))
    sentences.append(
        "Dimensions are compared on the cases that both answered; of twenty such tests one moves by luck alone."
    )
    return sentences


def _sentence(group: str, base: str, other: str, first: dict[str, Any], mine: dict[str, Any]) -> str:
    d = mine["difference"]
    if d["delta"] is None:
        return f"**{group}**, {other}: no case has a quality in both runs."
    changed = [
        f"{k.replace('_', '-')} {first['scores']['dims'][k]:.2f} → {mine['scores']['dims'][k]:.2f} (p = {t['p']:.2g})"
        for k in DIMENSIONS
        if _beyond_chance(t := mine["dims"][k])
    ]
    still = [k.replace("_", "-") for k in DIMENSIONS if not _beyond_chance(mine["dims"][k])]
    head = f"**{group}**, {other} against {base}: quality {first['scores']['quality']:.3f} → {mine['scores']['quality']:.3f} ({d['delta']:+.3f}, p = {d['p']:.2g})"
    return f"{head}. Moved beyond chance: {', '.join(changed) or 'no dimension'}." + (
        f" Not: {', '.join(still)}." if still else ""
    )


def _coverage(group: str, base: str, others: dict[str, dict[str, Any]]) -> str:
    tests = {k: v["dims"]["coverage"] for k, v in others.items() if v["dims"]["coverage"]["delta"] is not None}
    moved = [f"{k} {t['delta']:+.2f}" for k, t in tests.items() if _beyond_chance(t)]
    if moved:
        return f"**{group}**: coverage moved when only the model changed ({', '.join(moved)} against {base}): the harness does not lock it."
    if not tests:
        return f"**{group}**: coverage cannot be compared: no case was judged in both runs."
    k, t = max(tests.items(), key=lambda x: abs(x[1]["delta"]))
    return (
        f"**{group}**: coverage did not move beyond chance with any of these models (largest difference {t['delta']:+.2f}, {k}, "
        f"p = {t['p']:.2g}), so this comparison cannot say whether model or harness holds it where it is."
    )
