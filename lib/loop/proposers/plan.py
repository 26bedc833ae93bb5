"""The proposer `plan`: proposals from a file, in order, each once.

Knows YAML (a mapping with a list `proposals`) and JSON lines. What it has handed out stands in the events, so a
restart goes on where it was. Does not check proposals: the loop does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib.files import canonical, rows, sha256
from lib.forms import read_yaml
from lib.lab.base import BadParameters
from lib.loop.view import Offer, View


class Plan:
    """A file of proposals as a proposer. Raises BadParameters when the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = read(path)

    def __call__(self, view: View) -> Offer:
        """The first entry that was neither accepted nor refused yet; an offer of None after the last."""
        # From the events, not from a counter: a restart goes on where the loop was.
        done = {e.get("asked") for e in view.events.of("accepted", "refused")}
        for number, value in enumerate(self.entries, 1):
            name = entry_name(number, value)
            if name not in done:
                return Offer(value, f"plan:{name}")
        return Offer(None, "plan")


def entry_name(number: int, value: Any) -> str:
    """Names an entry by its place and content: an edited entry is a new one."""
    try:
        text = value if isinstance(value, str) else canonical(value)
    except (TypeError, ValueError):  # YAML has values that JSON has not
        text = repr(value)
    return f"{number}-{sha256(text)[:12]}"


def read(path: Path) -> list[Any]:
    """The entries of a file, as plain data; what is wrong with one shows when its turn comes. Raises BadParameters."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            # Parsed when its turn comes, so that a bad one is refused like any other proposal.
            return [line for line in rows(text) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadParameters(f"{path}: cannot be read ({error})") from error
    value = read_yaml(text, str(path), BadParameters)
    if not isinstance(value, dict) or set(value) != {"proposals"} or not isinstance(value["proposals"], list):
        raise BadParameters(f"{path}: expected a mapping with a list 'proposals' and nothing else")
    return value["proposals"]
