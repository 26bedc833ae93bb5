"""A frontier model's verdicts taken by hand: the frozen prompts filled in, shared out into readings, replies gathered.

A reader sees a page of some thirty filled prompts in a drawn order and nothing else: no source, no score, no other
verdict; no task comes twice on a page, and the two orders of a pair lie on different pages. Replies are checked like
those of an API. Knows the prompts of the cloud judge. Does not know who reads.

usage: python -m scripts.verdicts pages ITEMS.jsonl FOLDER SEED     ITEMS: {"item", "case", "source", "title", "questions"}
       python -m scripts.verdicts gather ITEMS.jsonl FOLDER OUT.jsonl
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.files import canonical, rows, sha256
from lib.measure import judge_calls
from lib.measure.answer import Answer
from lib.measure.judge_calls import PROTOCOLS, Call, Fault
from lib.measure.ruler import Ruler

PAGE = 30  # prompts a page
CALLS = PROTOCOLS["balanced"]


def pages(items: Sequence[dict[str, Any]], folder: Path, seed: str) -> int:
    """Write the pages and the key of which prompt is whose; returns how many pages there are."""
    ruler = Ruler.load()
    cases = {c.id: c for c in ruler.cases}
    asked = [(item, call) for item in items for call in CALLS]
    shared = share(asked, seed)
    folder.mkdir(parents=True, exist_ok=True)
    key = []
    for number, page in enumerate(shared, 1):
        parts = [
            HEAD.format(systems="\n\n".join(f"## Instructions {c}\n\n{_system(k, ruler)}" for c, k in KINDS.items()))
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

R: {{"n": PROMPT, "reason": "...", "atomicity": 1-5, "specificity": 1-5, "coverage": 1-5, "naturalness": 1-5, "non_redundancy": 1-5}}
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


def gather(items: Sequence[dict[str, Any]], folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A row an item with its three replies, scores and verdict; and what is missing or has another form."""
    dimensions = judge_calls.names(Ruler.load())
    replies, wrong = {}, []
    for row in map(json.loads, rows((folder / "key.jsonl").read_text(encoding="utf-8"))):
        file = folder / f"replies-{row['page']:03d}.jsonl"
        said = {r.pop("n"): r for r in map(json.loads, rows(file.read_text(encoding="utf-8")))} if file.exists() else {}
        value = judge_calls.parse(json.dumps(said.get(row["place"])), row["kind"], dimensions)
        if isinstance(value, Fault):
            wrong.append(f"page {row['page']}, prompt {row['place']} ({row['kind']}): {value.reason}")
        else:
            replies[row["item"], row["kind"], row["order"]] = {**row, "reply": value}
    made = []
    for item in items:
        mine = {c: replies.get((item["item"], c.kind, c.order)) for c in CALLS}
        if all(mine.values()):
            values = {c: r["reply"] for c, r in mine.items() if r}
            judged = judge_calls.judgment(values, dimensions, 0.0)
            calls = [{k: v for k, v in r.items() if k != "item"} for r in mine.values() if r]
            made.append(
                {**item, "scores": judged.scores, "verdict": judged.verdict, "flipped": judged.flipped, "calls": calls}
            )
    return made, wrong


def main(arguments: Sequence[str]) -> int:
    """Make pages or gather replies. Exit code 1 where replies are missing or malformed."""
    verb, path, folder, last = arguments
    items = [json.loads(line) for line in rows(Path(path).read_text(encoding="utf-8"))]
    if verb == "pages":
        print(f"{pages(items, Path(folder), last)} pages of {len(items)} items in {folder}")
        return 0
    made, wrong = gather(items, Path(folder))
    Path(last).write_text("".join(canonical(row) + "\n" for row in made), encoding="utf-8")
    for text in wrong[:20]:
        print(text)
    print(f"{len(made)} of {len(items)} items judged, {len(wrong)} replies missing or malformed; "
          f"{dict(Counter(row['verdict'] for row in made))}")  # fmt: skip
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
