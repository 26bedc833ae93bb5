"""A reply held to a schema: what is refused, and that a form is kept whatever the model would rather say."""

import json

import numpy as np
import pytest

from lib.models.grammar import BadGrammar, Grammars
from lib.models.model import Decoding

SET = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1},
        "questions": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "string", "pattern": r'^[^?"\\]+\?$'}},
    },
    "required": ["title", "questions"],
    "additionalProperties": False,
}  # fmt: skip
FITS = '{"title": "Fly a kite", "questions": ["How high?", "How long?"]}'
WRONG = {
    "an unknown type": ('{"type": "objec"}', "Invalid type"),
    "a broken pattern": ('{"type": "string", "pattern": "("}', "regex parse error"),
    "a schema that nothing fits": ('{"allOf": [{"type": "string"}, {"type": "integer"}]}', "Unsatisfiable"),
    "a keyword that is not held": ('{"not": {"type": "string"}}', "Unimplemented"),
    "a schema elsewhere": ('{"$ref": "http://nowhere.invalid/s"}', "cannot be held"),
}


@pytest.fixture(scope="module")
def letters(llama):
    """A tokenizer whose every token is one byte, and its end token's id."""
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(llama)
    return made, made.get_vocab()


@pytest.mark.parametrize("kind", WRONG)
def test_a_bad_grammar_is_refused_in_one_line(letters, kind):
    schema, why = WRONG[kind]
    tokenizer, vocab = letters
    with pytest.raises(BadGrammar) as caught:
        Grammars(tokenizer, [vocab["<end>"]]).begin(schema)
    assert why in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def spell(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_text_that_fits_is_allowed_token_by_token_and_then_only_the_end(letters):
    tokenizer, vocab = letters
    grammars = Grammars(tokenizer, [vocab["<end>"]])
    rule = grammars.begin(json.dumps(SET))
    for token in spell(tokenizer, FITS):
        assert not rule.complete
        [allowed] = grammars.allowed([rule], 400)
        assert allowed[token] == 1 and not allowed[len(vocab) :].any()
        rule.take(token)
    assert rule.complete
    for _ in range(2):  # mlx runs one step ahead, past the end
        [allowed] = grammars.allowed([rule], 400)
        assert np.flatnonzero(allowed).tolist() == [vocab["<end>"]]
        rule.take(vocab["<end>"])


@pytest.mark.parametrize(
    ("so_far", "next_one"),
    [("", "["), ('{"title":', '"'), ('{"title": "', '"'), ('{"title": "A", "questions": ["How', '"'),
     ('{"title": "A", "questions": ["How?', "?"), ('{"title": "A", "questions": ["How?"', "]"),
     ('{"title": "A", "questions": ["How?", "Who?"', ","), ('{"title": "A",', "\n")],
)  # fmt: skip
def test_what_would_break_the_form_is_not_allowed(letters, so_far, next_one):
    tokenizer, vocab = letters
    grammars = Grammars(tokenizer, [vocab["<end>"]])
    rule = grammars.begin(json.dumps(SET))
    for token in spell(tokenizer, so_far):
        rule.take(token)
    [token] = spell(tokenizer, next_one)
    allowed = grammars.allowed([rule], len(vocab))[0]
    assert allowed.any() and allowed[token] == 0


def test_rows_do_not_share_a_rule_and_a_free_row_is_free(letters):
    tokenizer, vocab = letters
    grammars = Grammars(tokenizer, [vocab["<end>"]])
    a, b = (grammars.begin(json.dumps(SET)) for _ in range(2))
    for token in spell(tokenizer, '{"title": "Kite'):
        a.take(token)
    first, second, free = grammars.allowed([a, b, None], len(vocab))
    assert second.sum() == 1 and first.sum() > 50 and free.all()


def test_forced_tokens_are_those_that_the_masks_leave_alone(letters):
    tokenizer, vocab = letters
    grammars = Grammars(tokenizer, [vocab["<end>"]])
    rule = grammars.begin(json.dumps(SET))
    runs = []
    for token in spell(tokenizer, FITS):
        forced = rule.forced()
        allowed = np.flatnonzero(grammars.allowed([rule], len(vocab))[0])
        assert forced == rule.forced() and forced[:1] == (allowed.tolist() if len(allowed) == 1 else [])
        runs.append(len(forced))
        rule.take(token)
    assert runs[0] == len('{"title": "') and runs[-1] == 1 and 0 in runs
    assert rule.complete and rule.forced() == []


def test_a_schema_holds_at_any_temperature_in_a_batch_with_free_rows(llama):
    from lib.models.mlx import MLXModel

    short = {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "string", "maxLength": 8}}
    schema = json.dumps({**SET, "properties": {"title": {"type": "string", "maxLength": 8}, "questions": short}})
    model = MLXModel(llama)
    prompts = [
        [{"role": "user", "content": t}] for t in ("bake bread", "sail", "sell a caravan", "knit", "adopt a cat")
    ]
    held = [Decoding(temp=1.5, seed=s, grammar=schema) for s in range(4)]
    done = model.generate([*prompts, prompts[0]], [*held, Decoding(max_tokens=60), Decoding(grammar='{"const": "no"}')])
    for c in done[:4]:
        said = json.loads(c.text)
        assert c.finish_reason == "stop" and list(said) == ["title", "questions"] and len(said["questions"]) == 2
    assert len({c.text for c in done[:4]}) == 4
    assert done[4] == model.generate([prompts[4]], [Decoding(max_tokens=60)])[0]
    assert done[5].text == '"no"' and done[5].finish_reason == "stop"
