"""Small sealed runs without a kernel: a record with rows that follow from each other, sealed as notch seals."""

import json

import pytest

from lib.files import canonical
from lib.lab.execute import Executed
from lib.measure.judge import DIMENSIONS, Judgment, Unscored
from lib.measure.score import case_quality, score
from lib.runs.ledger import Ledger
from lib.runs.record import MIME, CaseRow, Decision
from lib.runs.record import record_of as typed
from lib.runs.seal import LEDGER, seal

FULL = {f"case-{i:02d}": 0.3 for i in range(12)}


def outcome(quality):
    """A judgment of that quality: half the rubric mean, half the verdict; None is unscored."""
    if quality is None:
        return Unscored("the judge did not answer")
    won = quality > 0.5
    mean = 1 + 8 * (quality - 0.5 * won)
    return Judgment({d: mean for d in DIMENSIONS}, "win" if won else "loss")


def record_of(qualities, **changes):
    """The record of a run with these qualities by case; `changes` are fields of the record."""
    plain = {
        "kind": "experiment", "hypothesis": "said before", "predicted": 0.0, "min_effect": 0.02, "lever": "prompting",
        "pipeline": [{"step": "ask"}], "model": "toy", "adapter": "", "decoding": {}, "judge": "offline",
        "gate": "full", "seed": 0, "fingerprint": "f" * 64, "code": {"commit": "unknown"},
        "cost": {"calls": 12, "generation_tokens": 100}, "scores": {},
    }  # fmt: skip
    if qualities:
        plain["scores"] = score([outcome(q) for q in qualities.values()]).as_dict()
    return typed(plain | changes)


def rows_of(qualities):
    """The lines of cases.jsonl for these qualities."""
    rows = []
    for case, quality in qualities.items():
        found = outcome(quality)
        judged = isinstance(found, Judgment)
        rows.append(
            {
                "case": case, "task": f"plan {case}", "calls": [], "notes": [], "answer": None, "no_answer": None,
                "judgment": dict(found.__dict__) if judged else None, "unscored": None if judged else found.reason,
                "quality": case_quality(found),
            }
        )  # fmt: skip
    return rows


def seal_run(folder, qualities=None, slug="run", status=None, text="{}", **changes):
    """Seal one run; without a status the keep rule decides it. Returns its id."""
    qualities = FULL if qualities is None else qualities
    record = record_of(qualities, **changes)
    scored = {q: v for q, v in qualities.items() if v is not None}
    decision = Decision(status, status)
    if status is None:
        decision = Ledger.read(folder).decide(record, scored)
    record = record.revised(status=decision.status, decision=decision)

    def finish(run):
        return {"record.json": json.dumps(record.revised(id=run, slug=slug).as_dict()).encode()}

    cases = "".join(canonical(r) + "\n" for r in rows_of(qualities)).encode()
    return seal(folder, slug, {"experiment.ipynb": text.encode(), "cases.jsonl": cases}, finish)


def without_kernel(template, parameters, runnable):
    """Executes a run here, where a test is about what becomes of it: what a kernel would have handed back."""
    result = runnable.run().result
    rows = result._repr_mimebundle_()[MIME]["cases"]
    return Executed(runnable, {"cells": []}, None, result.record, [CaseRow.read(row) for row in rows])


class Lab:
    """A folder of runs with the helpers above."""

    full = FULL
    record_of = staticmethod(record_of)

    def __init__(self, folder):
        self.folder = folder

    @property
    def path(self):
        return self.folder / LEDGER

    def seal(self, qualities=None, **changes):
        return seal_run(self.folder, qualities, **changes)

    def read(self):
        return Ledger.read(self.folder)

    def decide(self, qualities, **changes):
        told = {q: v for q, v in qualities.items() if v is not None}
        return self.read().decide(record_of(qualities, **changes), told)

    def overwrite(self, path, data):
        path.chmod(0o644)
        path.write_bytes(data)


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path / "runs")
