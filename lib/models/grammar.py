"""Constrained decoding: which tokens may come next so that a reply fits a JSON schema. The one owner of `llguidance`.

Knows schemas, token tables and bitmasks. Does not know the engine: the mask goes out as an array, because llguidance's
own glue for mlx runs on Metal alone. A schema fixes the form of a reply and nothing else: not whether it is any good,
and not that its questions differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lib.files import OneLine

if TYPE_CHECKING:
    import numpy as np

# As json.dumps writes by default, and so as adapters learn their replies: other spacing would be tokens they never saw.
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
MOST_COMPILED = 64


class BadGrammar(OneLine, ValueError):
    """A grammar that constrains nothing; the message says what is wrong with it."""


@lru_cache(maxsize=MOST_COMPILED)
def _compiled(schema: str) -> str:
    """A JSON schema as llguidance's own grammar. Raises BadGrammar."""
    try:
        from llguidance import LLMatcher
    except ImportError as error:
        raise BadGrammar(f"a grammar needs llguidance ({error}); run `make setup`") from error
    grammar = LLMatcher.grammar_from_json_schema(schema, overrides=SPACING)
    fault = LLMatcher.validate_grammar(grammar)
    if fault:
        raise _not_held(schema, fault)
    return grammar


def _not_held(schema: str, why: str) -> BadGrammar:
    return BadGrammar(f"grammar {schema!r:.60} cannot be held: {' '.join(why.split())[:160]}")


class Grammars:
    """The grammars of one tokenizer. `tokenizer` is a fast tokenizer of transformers, `ends` its end tokens."""

    def __init__(self, tokenizer: Any, ends: Sequence[int]) -> None:
        """Raises BadGrammar where llguidance is missing, or cannot read the tokenizer."""
        try:
            import llguidance.hf
        except ImportError as error:
            raise BadGrammar(f"a grammar needs llguidance ({error}); run `make setup`") from error
        try:
            self.table = llguidance.hf.from_tokenizer(tokenizer, eos_token=sorted(ends))
        except ValueError as error:
            raise BadGrammar(f"this model's tokenizer holds no grammar ({error}); leave grammar empty") from error
        self.ends = sorted(ends)
        # One thread: a mask takes microseconds, and the others belong to the engine.
        self._executor = llguidance.LLExecutor(num_threads=1)
        # Of this object: a cache on the method would keep every tokenizer that ever had a grammar.
        self._matcher = lru_cache(maxsize=MOST_COMPILED)(self._new_matcher)

    def begin(self, schema: str) -> Rule:
        """The rule of one reply. Raises BadGrammar."""
        # Copies share what the lexer has worked out, so later rows are several times faster than the first.
        return Rule(self._matcher(schema).deep_copy(), self.ends)

    def _new_matcher(self, schema: str) -> Any:
        """A matcher before its first token; it is only ever copied. Raises BadGrammar."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self.table, _compiled(schema), log_level=0)
        if matcher.is_error():
            raise _not_held(schema, matcher.get_error())
        return matcher

    def allowed(self, rules: Sequence[Rule | None], width: int) -> np.ndarray:
        """A row of `width` ones and zeros for each rule: 1 where a token may come next. None allows every token."""
        import numpy as np
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par

        bits = allocate_token_bitmask(len(rules), self.table.vocab_size)
        # A rule that is through has no mask of its own: only an end may follow.
        matchers = [(rule.matcher, i) for i, rule in enumerate(rules) if rule and not rule.complete]
        if matchers:
            fill_next_token_bitmask_par(self._executor, matchers, bits)
        # 32 tokens a word of `bits`: (rows, words) -> (rows, vocabulary of the tokenizer)
        tokens = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, : self.table.vocab_size]
        # The output layer may have more rows than there are tokens: those stay shut.
        allowed = np.zeros((len(rules), width), dtype=np.uint8)
        allowed[:, : tokens.shape[1]] = tokens[:, :width]
        for i, rule in enumerate(rules):
            if rule is None:
                allowed[i] = 1
            elif rule.complete or not allowed[i].any():
                # Without a mask the model would write on after valid JSON.
                allowed[i] = 0
                allowed[i, self.ends] = 1
        return allowed


class Rule:
    """How far one reply has come. One a row: it remembers every token."""

    def __init__(self, matcher: Any, ends: Sequence[int]) -> None:
        self.matcher, self._ends = matcher, frozenset(ends)
        self.complete = matcher.is_stopped()

    def take(self, token: int) -> None:
        """Move on by the token that was drawn. The end, or a token past it, leaves everything as it is."""
        if self.complete or token in self._ends:
            self.complete = True
            return
        self.matcher.consume_token(token)
        self.complete = self.matcher.is_stopped()

    def forced(self) -> list[int]:
        """The tokens that must come next, one after the other, none where there is a choice: what `allowed` would
        leave alone at each of them. Moves nothing."""
        return [] if self.complete else list(self.matcher.compute_ff_tokens())
