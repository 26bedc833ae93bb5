"""Pages of filled prompts and what was answered to them: all of it is kept, or nothing."""

import json
import re

import pytest

from lib.measure.judge import DIMENSIONS
from lib.measure.ruler import Ruler
from lib.runs import by_hand
from scripts import verdicts


def item(source, case, questions, run=""):
    return {"item": f"{source}/{case.id}", "source": source, "case": case.id, "run": run, "fingerprint": "f" * 64, "title": case.task,
            "questions": questions, "offline": 0.2, "offline_verdict": "loss"}  # fmt: skip


@pytest.fixture
def items(tmp_path):
    """Two answers and one case without a valid one, with their pages in `pages`."""
    first, second, *_ = (c for c in Ruler.load().cases if c.gate == "confirm")
    asked = [f"What about {n} of it?" for n in ("one", "two", "three", "four", "five", "six", "seven")]
    rows = [item("champion", first, asked, "0001-run"), item("champion", second, [], "0001-run")]
    rows.append(item("any-task set", second, asked))
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert verdicts.main(["pages", str(tmp_path / "items.jsonl"), str(tmp_path / "pages"), "seed"]) == 0
    return tmp_path


def answer(folder, leave_out=0, dimensions=DIMENSIONS):
    """Answer every prompt, but for some at the end; A is better wherever it stands."""
    for page in sorted((folder / "pages").glob("page-*.md")):
        prompts = re.findall(r"^## Prompt (\d+) \(instructions ([RP])\)", page.read_text(), re.MULTILINE)
        said = []
        for n, kind in prompts[: len(prompts) - leave_out]:
            value = {"verdict": "A"} if kind == "P" else dict.fromkeys(dimensions, 3)
            said.append(json.dumps({"n": int(n), "reason": "r", **value}))
        page.with_name(page.name.replace("page-", "replies-").replace(".md", ".jsonl")).write_text(
            "\n".join(said) + "\n"
        )


def keep(folder):
    return verdicts.main(["keep", str(folder / "items.jsonl"), str(folder / "pages"), str(folder)])


def test_what_was_read_is_kept_with_its_era_and_an_invalid_answer_has_lost_unread(items):
    answer(items)
    assert keep(items) == 0 and by_hand.about(items)["fingerprint"] == "f" * 64
    kept = by_hand.read(items)
    assert [(r.source, r.verdict, r.quality) for r in kept] == [
        ("champion", "tie", 0.5), ("champion", "loss", 0.0), ("any-task set", "tie", 0.5)
    ]  # fmt: skip
    pages = "".join(p.read_text() for p in (items / "pages").glob("page-*.md"))
    assert pages.count("## Prompt ") == 6 and "champion" not in pages


def test_one_missing_reply_and_nothing_is_kept(items):
    answer(items, leave_out=1)
    assert keep(items) == 1 and not (items / by_hand.VERDICTS).exists()


def test_what_was_read_may_be_read_once_more_without_a_dimension(items):
    answer(items)
    assert keep(items) == 0
    again, folder = items / "again.jsonl", items / "blind"
    assert verdicts.main(["blind", str(again), str(items), "champion"]) == 0
    assert verdicts.main(["pages", str(again), str(folder / "pages"), "seed", "coverage"]) == 0
    text = "".join(p.read_text() for p in (folder / "pages").glob("page-*.md"))
    assert '"coverage": 1-5' not in text and "Leave one thing out of account altogether: coverage." in text
    answer(folder)  # scores of five dimensions are no reply to these prompts
    assert verdicts.main(["keep", str(again), str(folder / "pages"), str(items), "coverage"]) == 1
    answer(folder, dimensions=by_hand.seen("coverage"))
    assert verdicts.main(["keep", str(again), str(folder / "pages"), str(items), "coverage"]) == 0
    assert by_hand.about(items, by_hand.BLIND)["without"] == "coverage"
    assert [(r.source, r.verdict) for r in by_hand.read(items, by_hand.BLIND)] == [
        ("champion", "tie"),
        ("champion", "loss"),
    ]
