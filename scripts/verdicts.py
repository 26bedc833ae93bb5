"""A frontier model's verdicts taken by hand: the frozen prompts filled in, shared out into readings, replies gathered.

A reader sees a page of some thirty filled prompts in a drawn order and nothing else: no source, no score, no other
verdict; no task comes twice on a page, and the two orders of a pair lie on different pages. Replies are checked like
those of an API. Knows the prompts of the cloud judge. Does not know who reads.

usage: python -m scripts.verdicts pages ITEMS.jsonl FOLDER SEED     ITEMS: {"item", "case", "source", "title", "questions"}
       python -m scripts.verdicts gather ITEMS.jsonl FOLDER OUT.jsonl
       python -m scripts.verdicts sealed ITEMS.jsonl RUNS LOOK=SOURCE ...   items of the sealed gate, once the climb is closed
       python -m scripts.verdicts keep ITEMS.jsonl FOLDER RUNS              what was read of them, into RUNS/verdicts.jsonl
       python -m scripts.verdicts blind ITEMS.jsonl RUNS SOURCE ...         items of these, to be read without a dimension
Pages, gather and keep take a dimension as a further word: the prompts go without it, into RUNS/verdicts-blind.jsonl.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from lib.files import canonical, leave_out, rows, sha256
from lib.measure import judge_calls
from lib.measure.answer import Answer, spec_gate
from lib.measure.checks import damage
from lib.measure.checks.blind import without
from lib.measure.judge_calls import Call, Fault
from lib.measure.ruler import Ruler
from lib.measure.score import quality
from lib.models import stored
from lib.runs import by_hand
from lib.runs.by_hand import BLIND, CALLS, VERDICTS
from lib.runs.offline import OfflineJudge
from lib.runs.seal import read_cases, read_record

PAGE = 30  # prompts a page


def pages(items: Sequence[dict[str, Any]], folder: Path, seed: str, dimension: str = "") -> int:
    """Write the pages and the key of which prompt is whose; returns how many pages there are.

    Without the `dimension`, where one is named, in rubric and verdict, as `notch rejudge` asks Claude.
    """
    ruler = Ruler.load()
    if dimension:
        ruler = without(ruler, dimension)
    cases = {c.id: c for c in ruler.cases}
    # What gave no valid answer has lost without a reading.
    asked = [(item, call) for item in items if item["questions"] for call in CALLS]
    shared = share(asked, seed)
    folder.mkdir(parents=True, exist_ok=True)
    key = []
    for number, page in enumerate(shared, 1):
        parts = [
            HEAD.format(
                scores=", ".join(f'"{name}": 1-5' for name in judge_calls.names(ruler)),
                systems="\n\n".join(f"## Instructions {c}\n\n{_system(k, ruler)}" for c, k in KINDS.items()),
            )
        ]
        for place, (item, call) in enumerate(page, 1):
            # A nonce that follows from the item alone: the page is the same whenever it is made.
            nonce = sha256(canonical([seed, item["item"], call.kind, call.order]))[:16]
            answer = Answer(item["title"], tuple(item["questions"]))
            data = judge_calls.user(call, cases[item["case"]], answer, nonce)
            letter = "R" if call.kind == "rubric" else "P"
            parts.append(f"## Prompt {place} (instructions {letter})\n\n{judge_calls.tags(call, nonce)}\n\n{data}")
            key.append({"page": number, "place": place, "item": item["item"], "kind": call.kind, "order": call.order})
        (folder / f"page-{number:03d}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    (folder / "key.jsonl").write_text("".join(canonical(k) + "\n" for k in key), encoding="utf-8")
    return len(shared)


KINDS = {"R": Call("rubric"), "P": Call("pairwise")}
HEAD = """# A page of prompts

Each prompt below is one of its own: read its instructions (R or P), then its data, and answer it as if it were the only
one. Do not compare prompts with each other, and do not look at anything but this page. Answer each with exactly one
JSON object, on a line of its own:

R: {{"n": PROMPT, "reason": "...", {scores}}}
P: {{"n": PROMPT, "reason": "...", "verdict": "A" or "B" or "tie"}}

{systems}"""


def _system(call: Call, ruler: Ruler) -> str:
    return judge_calls.system(call, ruler)


def share(asked: Sequence[tuple[dict[str, Any], Call]], seed: str) -> list[list[tuple[dict[str, Any], Call]]]:
    """Prompts on pages, by lot: no task twice on a page, so also never the two orders of a pair."""
    left = list(asked)
    random.Random(seed).shuffle(left)
    count = -(-len(left) // PAGE)
    found: list[list[tuple[dict[str, Any], Call]]] = [[] for _ in range(count)]
    for item, call in left:
        fitting = [p for p in found if len(p) < PAGE and all(other["case"] != item["case"] for other, _ in p)]
        if not fitting:
            fitting = [[]]
            found.append(fitting[0])
        min(fitting, key=len).append((item, call))
    return found


def gather(
    items: Sequence[dict[str, Any]], folder: Path, dimension: str = ""
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row an item with its three replies, scores and verdict; and what is missing or has another form."""
    dimensions = by_hand.seen(dimension)
    replies, wrong = {}, []
    for row in map(json.loads, rows((folder / "key.jsonl").read_text(encoding="utf-8"))):
        item, file = row.pop("item"), folder / f"replies-{row['page']:03d}.jsonl"
        said = {r.pop("n"): r for r in map(json.loads, rows(file.read_text(encoding="utf-8")))} if file.exists() else {}
        value = judge_calls.parse(json.dumps(said.get(row["place"])), row["kind"], dimensions)
        if isinstance(value, Fault):
            wrong.append(f"page {row['page']}, prompt {row['place']} ({row['kind']}): {value.reason}")
        else:
            replies[item, row["kind"], row["order"]] = {**row, "reply": value}
    made = []
    for item in items:
        calls = [replies[key] for c in CALLS if (key := (item["item"], c.kind, c.order)) in replies]
        if len(calls) == len(CALLS):
            judged = by_hand.judgment(calls, dimensions)
            made.append(
                {**item, "scores": judged.scores, "verdict": judged.verdict, "flipped": judged.flipped, "calls": calls}
            )
    return made, wrong


STORED = {"the frontier": "stored:claude", "the frontier with the teacher's brief": "stored:claude-briefed"}
ABOUT = {
    "model": "Claude; which version is not stated",
    "how": "Taken by hand from the frozen prompts judge_rubric.md and judge_pairwise.md, through no API, after the climb was "
    "closed: three filled prompts an answer, shared out by lot into pages of 30 over all sources; a page was read by a "
    "session that saw the page and nothing else. No reply was repaired. What gave no valid answer has lost and was not read. "
    "Pages: scripts/verdicts.py.",
}  # fmt: skip


def sealed(runs: Path, looks: Sequence[str]) -> list[dict[str, Any]]:
    """An item a case of the sealed gate and a source: the looks that are named, both frontiers, the any-task set."""
    cases, judge = [c for c in Ruler.load().cases if c.gate == "confirm"], OfflineJudge()
    items = []
    for pair in looks:
        run, source = pair.split("=", 1)
        era = {"run": run, "fingerprint": read_record(runs / run).fingerprint}
        for row in read_cases(runs / run):
            verdict = row.judgment.verdict if row.judgment else "loss"
            items.append(_item(source, row.case, row.answer, row.quality or 0.0, verdict) | era)
    written = {"any-task set": {c.id: damage.plain(c) for c in cases}}
    for source, name in STORED.items():
        replies = stored.read(name).replies
        written[source] = {c.id: spec_gate(**json.loads(replies[c.task])) for c in cases}
    for source, answers in written.items():
        judged = judge.judge_all([(c, answers[c.id]) for c in cases])
        for case, judgment in zip(cases, judged, strict=True):
            value = quality(judgment.scores, judgment.verdict)
            items.append(_item(source, case.id, answers[case.id], value, judgment.verdict))
    return items


def again(runs: Path, sources: Sequence[str]) -> list[dict[str, Any]]:
    """The items of these sources among those that were read, without what was read of them."""
    lines = rows((runs / VERDICTS).read_text(encoding="utf-8"))[1:]
    read = ("scores", "verdict", "flipped", "calls")
    return [leave_out(row, *read) for row in map(json.loads, lines) if row["source"] in sources]


def _item(source: str, case: str, answer: Answer | None, value: float, verdict: str) -> dict[str, Any]:
    title, questions = (answer.title, list(answer.questions)) if answer else ("", [])
    return {
        "item": f"{source}/{case}", "source": source, "case": case, "run": "", "title": title, "questions": questions,
        "offline": value, "offline_verdict": verdict,
    }  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Make pages or gather replies. Exit code 1 where replies are missing or malformed."""
    verb, path, folder, *others = arguments
    if verb in ("sealed", "blind"):
        items = sealed(Path(folder), others) if verb == "sealed" else again(Path(folder), others)
        Path(path).write_text("".join(canonical(item) + "\n" for item in items), encoding="utf-8")
        return 0
    last, *dimensions = others
    dimension = "".join(dimensions)
    items = [json.loads(line) for line in rows(Path(path).read_text(encoding="utf-8"))]
    if verb == "pages":
        print(f"{pages(items, Path(folder), last, dimension)} pages of {len(items)} items in {folder}")
        return 0
    made, wrong = gather(items, Path(folder), dimension)
    out, head = Path(last), []
    if verb == "keep":
        by_item = {row["item"]: row for row in made}
        lost = {"scores": {}, "verdict": "loss", "flipped": False, "calls": []}
        made = [by_item.get(item["item"], {**item, **lost}) for item in items]
        [fingerprint] = {item["fingerprint"] for item in items if item["run"]}  # looks of one era
        about = {**ABOUT, "date": date.today().isoformat(), "fingerprint": fingerprint}
        out = out / VERDICTS
        if dimension:
            about |= {"without": dimension, "how": f"As those in {VERDICTS}, of the same answers, by the prompts that "
                      f"`notch rejudge --without {dimension}` asks Claude with."}  # fmt: skip
            out = out.parent / BLIND
        head = [{"about": about}]
        if wrong:  # an answer that was not read would count as lost
            made = []
    if made:
        out.write_text("".join(canonical(row) + "\n" for row in head + made), encoding="utf-8")
    for text in wrong[:20]:
        print(text)
    print(f"{len(made)} of {len(items)} items judged, {len(wrong)} replies missing or malformed; "
          f"{dict(Counter(row['verdict'] for row in made))}")  # fmt: skip
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
