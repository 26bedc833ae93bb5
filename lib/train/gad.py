"""Adversarial distillation: a small critic learns to tell sets like gold from the model's drafts; fooling it is the reward.

Round 0 trains the critic against the starting policy. Later rounds train it again on fresh drafts, as the method
asks for (the published study stopped after round 0). The update is GRPO's, with its anchor.
Knows texts and hashed features: word pairs, endings, a few signs of style. Does not know gold of the ruler, nor any
embedding model. Its judgment is checked on families of tasks that it was not trained on (AUC), and shown.
Source of the idea: generative adversarial distillation, Ye et al. 2025 (arXiv 2511.10643), much smaller here.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lib.agent.guard import content, overlap
from lib.agent.prompt import Draft
from lib.measure.answer import normalised
from lib.train.data import Pair

SIZE = 4096  # hashed features
STEPS, RATE, RIDGE = 300, 0.5, 3e-3


def features(pair_task: str, draft: Draft) -> dict[int, float]:
    """Hashed features of a set, as a sparse vector of length 1, with signs of style in the first places."""
    found: dict[int, float] = {}
    for question in draft.questions:
        words = ["^", *normalised(question).split(), "$"]
        for a, b in zip(words, words[1:], strict=False):
            at = 16 + zlib.crc32(f"{a} {b}".encode()) % (SIZE - 16)
            found[at] = found.get(at, 0.0) + 1.0
    norm = sum(v * v for v in found.values()) ** 0.5 or 1.0
    return {**{k: v / norm for k, v in found.items()}, **dict(enumerate(style(pair_task, draft)))}


def style(task: str, draft: Draft) -> list[float]:
    """Signs of style: length, how often the topic is named, how much the questions repeat each other, joined ones."""
    sets = [content(q) for q in draft.questions]
    n = len(sets) or 1
    topic = content(task)
    near = [overlap(a, b) for i, a in enumerate(sets) for b in sets[:i]]
    return [
        1.0,
        sum(len(q.split()) for q in draft.questions) / (10 * n),
        sum(bool(s & topic) for s in sets) / n,
        max(near, default=0.0),
        sum(" and " in q for q in draft.questions) / n,
    ]


@dataclass(frozen=True)
class Critic:
    """A logistic model over features. `auc` is measured on families that it was not fitted on."""

    weights: Any
    auc: float

    def __call__(self, pairs: Sequence[Pair], drafts: Sequence[Draft]) -> list[float]:
        """The probability that each draft is like gold: the reward."""
        import numpy as np

        if not drafts:
            return []
        return [float(x) for x in 1 / (1 + np.exp(-(matrix(pairs, drafts) @ self.weights)))]


def matrix(pairs: Sequence[Pair], drafts: Sequence[Draft]) -> Any:
    """Features of many drafts, one a row."""
    import numpy as np

    made = np.zeros((len(drafts), SIZE))
    for i, (pair, draft) in enumerate(zip(pairs, drafts, strict=True)):
        told = features(pair.task, draft)
        made[i, list(told)] = list(told.values())
    return made


def critic(pairs: Sequence[Pair], drafts: Sequence[Draft]) -> Critic:
    """Fit on a task's chosen set against a draft of it; every fourth family is left out to measure the AUC.

    Plain gradient descent on the logistic loss with a ridge, so the same texts give the same critic.
    """
    import numpy as np

    names = sorted({p.family for p in pairs})
    apart = set(names[3::4])
    real, own = matrix(pairs, [p.chosen for p in pairs]), matrix(pairs, drafts)
    held = np.array([p.family in apart for p in pairs])
    x = np.concatenate([real[~held], own[~held]])
    y = np.concatenate([np.ones((~held).sum()), np.zeros((~held).sum())])
    weights = np.zeros(SIZE)
    for _ in range(STEPS):
        told = 1 / (1 + np.exp(-(x @ weights)))
        weights -= RATE * (x.T @ (told - y) / len(y) + RIDGE * weights)
    return Critic(weights, auc(real[held] @ weights, own[held] @ weights) if held.any() else float("nan"))


def auc(positive: Any, negative: Any) -> float:
    """The chance that a positive score stands above a negative one, ties counting half.

    >>> auc([2.0, 3.0], [1.0, 2.0])
    0.875
    """
    pairs = [(a > b) + 0.5 * (a == b) for a in positive for b in negative]
    return float(sum(pairs) / len(pairs))
