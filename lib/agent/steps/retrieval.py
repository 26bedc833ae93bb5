"""Retrieval: worked examples from the bank as demonstrations.

Knows the bank and word overlap. Examples of the same task are left out (leave-one-out by near-duplicate, not by id).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lib.agent.bank import SAME_TASK, Example, bank, content, nearest, overlap
from lib.agent.pipeline import State, Work, step


@step("retrieval")
def demos(k: int = 2, by: Literal["words", "fixed"] = "words"):
    """Show the k nearest worked examples (by shared words), or the same k for every task, before asking."""
    if not 1 <= k <= 8:
        raise ValueError(f"k is {k}, expected 1 to 8")

    def run(state: State) -> Work:
        chosen = nearest(state.task, bank(), k) if by == "words" else _fixed(state.task, k)
        # The nearest stands last, next to the task: a small model leans on what it read last.
        return replace(state, demos=tuple(reversed(chosen))).note("examples: " + " | ".join(e.task for e in chosen))
        yield  # makes this a generator, as every step is

    return run


def _fixed(task: str, k: int) -> list[Example]:
    """The same examples for every task, spread over the bank, passing over one that is the task itself."""
    examples = bank()
    spread = [examples[(i * len(examples) // 16) % len(examples)] for i in range(16)]
    return [e for e in spread if overlap(content(e.task), content(task)) < SAME_TASK][:k]
