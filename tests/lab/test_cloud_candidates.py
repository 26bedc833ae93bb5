"""Claude as a candidate beside small models, against a loopback server: one command, sealed, verified, no secret in it."""

from pathlib import Path

import pytest

from lib.lab import study
from lib.models.model import quoting
from lib.runs.ledger import Ledger
from lib.runs.verify import verify
from tests.claude.loopback import Loopback
from tests.llama import small

KEY = "loopback-key-0123456789"


def planner(_, body, __):
    """A set for the planner's call; the judge's calls get the server's own reply."""
    asked = body["messages"][-1]["content"]
    text = asked if isinstance(asked, str) else asked[0]["text"]
    return {"text": quoting([{"role": "user", "content": text}])} if body["model"] == "claude-haiku-4-5" else {}


@pytest.mark.slow
def test_a_cloud_candidate_runs_in_the_same_harness_and_the_seal_holds_no_key(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    monkeypatch.setenv("NOTCH_RUNS", str(runs))
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    told = {"judge": "claude", "judging": {"dollars": 3}}
    with Loopback(planner) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        made = [r for _, r in study.compare_models(runs, [small(), "claude-haiku-4-5"], told)]
        asked = {b["model"] for b in server.messages}
    told = [r.model for r in Ledger.read(runs).records[:2]]
    assert told == [f"…/{Path(small()).name}", "claude-haiku-4-5"] and "claude-haiku-4-5" in asked
    first, other = made[2].found.groups[0].runs
    assert other.difference.n == 30 and first.difference is None
    notebook = (runs / made[2].id / "experiment.ipynb").read_text()
    assert "claude-haiku-4-5 cannot decode greedily" in notebook
    assert not any(KEY in p.read_text() for p in runs.rglob("*") if p.is_file())
    assert verify(runs) == [] and Ledger.read(runs).champion(made[0].fingerprint) is None
