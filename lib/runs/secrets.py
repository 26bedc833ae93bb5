"""Secrets of this machine, and whether a text holds one: nothing that is sealed may.

Knows names of variables that name a secret, by whole words (HF_TOKEN is one, TOKENIZER_PATH is not), and their values.
Does not know files. Does not find a secret that no variable of this process holds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable

WORDS = re.compile(r"(^|_)(token|secrets?|password|passwd|credentials?|(api|access|private)_?key)(_|$)")
SHORTEST = 12  # characters of a value; a shorter one stands in any text by chance


def is_secret(name: str) -> bool:
    """Whether a variable or parameter of this name holds a secret.

    >>> [is_secret(n) for n in ("HF_TOKEN", "apiKey", "AWS_SECRET_ACCESS_KEY", "db-password")]
    [True, True, True, True]
    >>> [is_secret(n) for n in ("TOKENIZER_PATH", "max_tokens", "TOKENIZERS_PARALLELISM", "keyboard")]
    [False, False, False, False]
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name)
    return bool(WORDS.search(words.lower()))


def held(texts: Iterable[str]) -> str:
    """The name of a variable of the environment whose secret stands in one of the texts, "" if none does."""
    texts = list(texts)
    for name, value in os.environ.items():
        # A plain word such as "discovery" is no secret: it would stand in every run.
        plain = value.isalpha() and value.islower()
        if plain or len(value) < SHORTEST or not is_secret(name):
            continue
        # As it is, and as JSON escapes it: a notebook is JSON, which may keep or escape letters beyond ASCII.
        for spelling in (value, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1]):
            if any(spelling in text for text in texts):
                return name
    return ""
