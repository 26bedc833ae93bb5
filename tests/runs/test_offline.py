"""The offline judge with its embedder: ready at once, and refused where it is not the one that was fitted."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lib import Answer, Case, Gold, OfflineJudge, weights
from lib.files import ROOT, RULER, Tampered, canonical, sha256
from lib.measure.judge import DIMENSIONS
from lib.models import embed
from lib.models.model import NoModel
from lib.runs import offline
from lib.runs.offline import TEXTS
from lib.weights import cache

GOLD = Gold("Build a kite", ("How big must it be?", "Who will fly it?", "Where will you fly it?", "When is it for?"))
OWN = Case("kite", "build a kite", GOLD)


@pytest.fixture
def ruler(tmp_path):
    """A copy of the ruler; `ruler(change)` is its folder with other calibration texts."""
    folder = tmp_path / "ruler"
    shutil.copytree(RULER, folder)

    def texts(change):
        rows = [json.loads(line) for line in (RULER / TEXTS).read_text(encoding="utf-8").splitlines()]
        (folder / TEXTS).chmod(0o644)
        (folder / TEXTS).write_text("".join(json.dumps(r) + "\n" for r in change(rows)), encoding="utf-8")
        return folder

    return texts


def test_it_judges_a_task_of_ones_own_that_has_no_unknowns():
    judge = OfflineJudge()
    same = judge.judge(OWN, Answer(GOLD.title, GOLD.questions))
    poor = judge.judge(OWN, Answer("A kite", ("What is a kite?", "Tell me about kites.")))
    assert same.verdict == "tie" and poor.verdict == "loss" and set(same.scores) == set(DIMENSIONS)
    assert sum(poor.scores.values()) < sum(same.scores.values())


def loaded(code):
    """Heavy libraries that a process has loaded after this code."""
    code += "; import sys; print(sorted({'numpy', 'mlx', 'scipy', 'pandas'} & {*sys.modules}))"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    return done.stdout.strip(), done.stderr


def test_its_import_brings_no_model_and_no_array_library():
    assert loaded("from lib import OfflineJudge; OfflineJudge()") == ("[]", "")


def test_it_says_here_what_it_said_where_it_was_fitted_and_another_process_need_not_judge_that_again():
    OfflineJudge().check()
    assert loaded("from lib import OfflineJudge; OfflineJudge().check()") == ("[]", "")


def test_a_ruler_without_calibration_texts_is_let_through(frozen_ruler):
    OfflineJudge().check(frozen_ruler)


@pytest.mark.slow
def test_scores_that_are_not_the_kept_ones_are_refused_in_one_line_and_refused_again(ruler):
    folder = ruler(lambda rows: [rows[0] | {"questions": ["Is it?"] * 7}, *rows[1:]])
    for _ in range(2):
        with pytest.raises(NoModel, match=r"gives 5 of 900 scores of .* otherwise than where it was fitted") as stopped:
            OfflineJudge().check(folder)
    assert "make setup" in str(stopped.value) and "\n" not in str(stopped.value)


def test_the_texts_of_another_ruler_are_refused_with_what_to_do(ruler):
    with pytest.raises(
        NoModel, match="179 texts of this ruler's cases, and the offline judge was fitted with 180; fit it"
    ):
        OfflineJudge().check(ruler(lambda rows: rows[1:]))


def test_on_a_ruler_without_texts_of_its_own_it_must_say_what_its_fingerprint_names_all_the_same(
    frozen_ruler, monkeypatch
):
    monkeypatch.setattr(
        offline, "SHIPPED", frozen_ruler
    )  # a shipped ruler whose texts are not those that it was fitted with
    (frozen_ruler / TEXTS).write_text("")
    bare = frozen_ruler.parent / "bare"
    shutil.copytree(frozen_ruler, bare)
    (bare / TEXTS).unlink()
    with pytest.raises(NoModel, match="0 texts of this ruler's cases"):
        OfflineJudge().check(bare)


# --- vectors that are kept on disk

MANY = [f"How much of part {i} do you want?" for i in range(embed.MANY)]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The file with the vectors of MANY texts in a cache of its own, and the vectors."""
    there = cache() / "weights"
    monkeypatch.setenv("NOTCH_CACHE", str(tmp_path))
    (tmp_path / "weights").symlink_to(there.resolve())
    vectors = embed.vectors(MANY)
    [path] = (tmp_path / "vectors").iterdir()
    return path, vectors


def test_kept_vectors_with_a_flipped_bit_are_not_believed(kept):
    path, vectors = kept
    data = bytearray(path.read_bytes())
    data[-2] ^= 64
    path.write_bytes(bytes(data))
    assert (embed.vectors(MANY) == vectors).all(), "embedded anew"
    assert path.read_bytes() != bytes(data) and (offline.doubted(MANY) == vectors).all()


def test_kept_vectors_that_somebody_wrote_are_found_where_the_cache_is_doubted(kept):
    path, vectors = kept
    buffer = io.BytesIO()
    np.save(buffer, np.roll(vectors, 1, axis=0))
    path.write_bytes(sha256(buffer.getvalue()).encode() + buffer.getvalue())
    assert (embed.vectors(MANY) != vectors).any()
    with pytest.raises(Tampered, match="vectors: holds other vectors"):
        offline.doubted(MANY)


def test_altered_weights_of_the_judge_are_found_also_where_the_cache_vouches_for_them(tmp_path, monkeypatch):
    from lib.runs import rescore

    folder = weights.folder(weights.PINNED["minilm"])
    monkeypatch.setenv("NOTCH_CACHE", str(tmp_path))
    shutil.copytree(folder, weights.folder(weights.PINNED["minilm"]))
    path = weights.folder(weights.PINNED["minilm"]) / weights.PINNED["minilm"].files[0].name
    assert rescore._offline()
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\1")
    about = path.stat()
    state = canonical([str(path.resolve()), about.st_size, about.st_mtime_ns, about.st_ctime_ns])
    (tmp_path / "sums").mkdir(exist_ok=True)
    (tmp_path / "sums" / sha256(state)[:32]).write_text(weights.PINNED["minilm"].files[0].sha256)
    with pytest.raises(Tampered, match=f"{path.name}: not the pinned file"):
        rescore._offline()
