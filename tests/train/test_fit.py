"""The training loop: masks, batches, epochs, early stop, resume after a kill, quantised bases, a full disk."""

import json
import signal
import subprocess
import sys

import pytest

from lib.agent.prompt import Draft
from lib.files import ROOT
from lib.models.blas import fast_blas
from lib.models.mlx import MLXModel
from lib.train import data, lora
from lib.train import fit as loop
from lib.train.adapter import Adapter, Provenance
from lib.train.data import BadData
from lib.train.fit import SFT, Fit
from lib.train.forward import plain_logprobs
from lib.train.lora import Settings
from tests.train.conftest import write

QUICK = {"rank": 2, "epochs": 3, "batch": 4, "learning_rate": 0.01, "warmup": 0, "patience": 0}


def fit(base, no_guard, folder, seed=0, n=8, adapter="", **changes):
    settings = Settings.of(QUICK | changes)
    pairs = data.build("clean", n, 0, no_guard)
    model = lora.prepare(base, adapter, settings, seed)
    rows = lora.sft_rows(model, pairs.train, settings)
    return Fit(model, SFT, settings, lambda _: rows, lora.sft_rows(model, pairs.valid[:6], settings), folder, seed)


def test_training_lowers_the_loss_and_moves_the_adapter_alone(base, no_guard, tmp_path):
    import mlx.core as mx
    from mlx.utils import tree_flatten

    f = fit(base, no_guard, tmp_path / "a")
    before = {k: mx.array(v) for k, v in tree_flatten(f.model.model.parameters())}
    curve = f.run()
    after = dict(tree_flatten(f.model.model.parameters()))
    moved = {k for k, v in after.items() if not mx.array_equal(v, before[k])}
    assert moved == set(f.weights()) and all("lora_" in k for k in moved)
    assert [row["epoch"] for row in curve] == [0, 1, 2, 3] and curve[0]["train_loss"] is None
    assert curve[-1]["train_loss"] < curve[1]["train_loss"] and curve[-1]["valid_loss"] < curve[0]["valid_loss"]


def test_the_same_seed_trains_the_same_bytes_and_another_one_other_ones(base, no_guard, tmp_path):
    made = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(base, no_guard, tmp_path / name, seed, epochs=1).run()
        made.append(loop.epoch_file(tmp_path / name, 1).read_bytes())
    assert made[0] == made[1] != made[2]


def test_a_killed_training_goes_on_from_its_last_epoch_and_ends_in_the_same_bytes(base, no_guard, tmp_path):
    whole = fit(base, no_guard, tmp_path / "whole", dropout=0.1)
    curve = whole.run()

    class Killed(Exception):
        pass

    def kill(state):
        if state["epoch"] == 3:
            raise Killed

    broken = fit(base, no_guard, tmp_path / "broken", dropout=0.1)
    broken.progress = kill
    with pytest.raises(Killed):
        broken.run()
    again, epochs = fit(base, no_guard, tmp_path / "broken", dropout=0.1), set()
    again.progress = lambda state: epochs.add(state["epoch"])
    assert again.run() == curve and epochs == {3}
    assert loop.epoch_file(tmp_path / "broken", 3).read_bytes() == loop.epoch_file(tmp_path / "whole", 3).read_bytes()


# Drafts that follow the weights at the start of their epoch, as GRPO's do: the first token tells which weights drew them.
KILLED = """
import sys
from pathlib import Path
from lib.agent.guard import LeakGuard
from lib.train import fit as loop
from tests.train.test_fit import fit

loop.SAVE = 0.0  # at every step
f = fit(sys.argv[1], LeakGuard([]), Path(sys.argv[2]), dropout=0.1)
same = f.rows(1)


def rows(epoch):
    drawn = abs(float(sum(v.sum().item() for v in f.weights().values())))
    return [row._replace(ids=row.ids[:-2] + [int(drawn * 1e4) % 900, row.ids[-1]]) for row in same]


f.rows = rows
f.progress = lambda state: print(state["epoch"], state["done"], flush=True)
f.run()
"""


@pytest.mark.slow
def test_a_training_killed_with_signal_9_within_an_epoch_goes_on_from_there_and_ends_in_the_same_bytes(base, tmp_path):
    def begin(name):
        command = [sys.executable, "-c", KILLED, base, str(tmp_path / name)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    broken, seen = begin("broken"), []
    for line in broken.stdout:
        seen.append(line.split())
        if seen[-1] == ["2", "3.0"]:  # one step of two in the second epoch is done; it may or may not be saved yet
            broken.send_signal(signal.SIGKILL)
    broken.stdout.close()
    assert broken.wait() == -signal.SIGKILL
    rest = [line.split() for line in begin("broken").communicate()[0].splitlines()]
    assert rest[0] in (["2", "3.0"], ["2", "4.0"]) and rest[-1] == ["3", "6"]
    begin("whole").communicate()
    names = [loop.STATE, *(f"epoch-0{n}.safetensors" for n in range(4))]
    assert sorted(p.name for p in (tmp_path / "broken").iterdir() if not p.name.startswith(".tmp")) == sorted(names)
    for name in names[1:]:  # the state says the same in an order of its own
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_what_was_saved_within_an_epoch_is_taken_up_step_by_step(base, no_guard, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE", 0.0)
    whole = fit(base, no_guard, tmp_path / "whole", dropout=0.1)
    curve = whole.run()

    class Killed(Exception):
        pass

    def kill(state):
        if state["done"] == 4 and state["epoch"] == 2:
            raise Killed

    broken = fit(base, no_guard, tmp_path / "broken", dropout=0.1)
    broken.progress = kill
    with pytest.raises(Killed):
        broken.run()
    again, steps = fit(base, no_guard, tmp_path / "broken", dropout=0.1), []
    again.progress = lambda state: steps.append(state["done"])
    assert again.run() == curve and list(dict.fromkeys(steps)) == [4.0, 5.0, 6.0]
    assert loop.epoch_file(tmp_path / "broken", 3).read_bytes() == loop.epoch_file(tmp_path / "whole", 3).read_bytes()


def test_a_training_that_is_done_is_not_done_again(base, no_guard, tmp_path):
    curve = fit(base, no_guard, tmp_path).run()
    again, steps = fit(base, no_guard, tmp_path), []
    again.progress = steps.append
    assert again.run() == curve and steps == []


def test_it_tells_how_far_it_is_while_it_reads_validation_before_the_first_step(base, no_guard, tmp_path):
    f, heard = fit(base, no_guard, tmp_path, batch=2, epochs=1), []
    f.progress = heard.append
    curve = f.run()
    parts = -(-len(f.valid) // 2)
    before = [state for state in heard if state["done"] == 0]
    assert len(before) == parts > 1 and all(state["seconds_left"] > 0 for state in before)
    assert before[-1]["loss"] == pytest.approx(curve[0]["valid_loss"], abs=1e-4)


def test_it_stops_early_when_validation_does_not_get_better(base, no_guard, tmp_path):
    f = fit(base, no_guard, tmp_path, epochs=6, patience=2)
    shown = [{"valid_loss": v} for v in (1.0, 0.5, 0.6, 0.7, 0.1, 0.1, 0.1)]
    f.read = lambda epoch, loss: {"epoch": epoch, "train_loss": loss, **shown[epoch]}
    curve = f.run()
    assert [r["epoch"] for r in curve] == [0, 1, 2, 3] and f.best(curve) == 1


def test_every_epoch_is_an_adapter_that_loads(base, no_guard, tmp_path):
    f = fit(base, no_guard, tmp_path / "work")
    curve = f.run()
    about = Provenance("sft", {"name": base, "weights": MLXModel(base).identity["weights"]}, {}, "code", 0, {})
    for row in curve[1:]:
        content = loop.epoch_file(f.folder, row["epoch"]).read_bytes()
        loaded = MLXModel(base, write(tmp_path / str(row["epoch"]), Adapter(content, 2, f.settings.lora, about)))
        valid = Fit(loaded, SFT, f.settings, lambda _: [], f.valid, tmp_path)
        assert valid.read(row["epoch"], None)["valid_loss"] == pytest.approx(row["valid_loss"], abs=2e-3)  # float16


@pytest.mark.parametrize("quantised", [False, True])
def test_an_adapter_is_trained_on_a_quantised_base(base_8bit, no_guard, tmp_path, quantised):
    import mlx.nn as nn

    f = fit(base_8bit, no_guard, tmp_path, quantised=quantised)
    kinds = {type(m) for _, m in f.model.model.named_modules()}
    assert (nn.QuantizedLinear in kinds) == quantised
    curve = f.run()
    assert curve[-1]["valid_loss"] < curve[0]["valid_loss"]


def test_only_the_last_layers_learn_when_told_so(base, no_guard, tmp_path):
    names = fit(base, no_guard, tmp_path, layers=1).weights()
    assert names and all("layers.1." in n for n in names)


def test_the_prompt_is_masked_unless_told_otherwise(base, no_guard, tmp_path):
    f = fit(base, no_guard, tmp_path)
    ids, start = f.rows(1)[0]
    _, mask = plain_logprobs(f.model.model, f.rows(1)[:3])
    assert mask[0].sum().item() == len(ids) - start and ids[-1] == f.model.tokenizer.eos_token_id
    assert f.model.tokenizer.decode(ids[start:]).startswith('{"title"')
    assert {r[1] for r in fit(base, no_guard, tmp_path, mask_prompt=False).rows(1)} == {1}


def test_the_loss_is_the_mean_cross_entropy_of_the_learnt_tokens(base, no_guard, tmp_path):
    import mlx.core as mx
    import numpy as np

    f = fit(base, no_guard, tmp_path)
    rows, total, n = f.rows(1)[:3], 0.0, 0
    for ids, start in rows:
        logits = np.array(f.model.model(mx.array([ids[:-1]]))[0].astype(mx.float32), dtype=np.float64)
        logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        total -= sum(logp[t - 1, ids[t]] for t in range(start, len(ids)))
        n += len(ids) - start
    f.settings = Settings.of(QUICK | {"epochs": 1, "batch": 3})
    f.rows = lambda _: rows
    assert f.run()[1]["train_loss"] == pytest.approx(total / n, rel=1e-4)


@pytest.mark.parametrize("part", [1, 400, 10**6])
def test_a_large_batch_is_learnt_in_parts_as_it_would_be_at_once(base, no_guard, tmp_path, monkeypatch, part):
    import mlx.core as mx

    whole, parts = fit(base, no_guard, tmp_path / "a", epochs=1), fit(base, no_guard, tmp_path / "b", epochs=1)
    whole.run()
    monkeypatch.setattr(loop, "PART", part)
    parts.run()
    assert all(mx.allclose(v, parts.weights()[k], atol=1e-4) for k, v in whole.weights().items())


def test_every_row_is_used_once_an_epoch_also_where_batches_do_not_divide():
    rows = [([0] * (5 + i % 7), 1, i) for i in range(11)]

    def length(row):
        return len(row[0])

    cut = loop.batches(rows, 4, 0, length)
    assert sorted(r[2] for part in cut for r in part) == list(range(11)) and min(map(len, cut)) >= 4
    assert loop.batches(rows, 4, 0, length) == cut != loop.batches(rows, 4, 1, length)
    assert [len(p) for p in loop.batches(rows[:2], 4, 0, length)] == [2]


def test_a_row_over_the_limit_is_refused_with_its_task_and_both_numbers(base, no_guard):
    model = MLXModel(base)
    long = Draft("Build a kite", tuple(f"How {'very ' * 99}big?" for _ in range(7)))
    with pytest.raises(BadData, match="'build a kite' has [0-9]+ tokens, more than 640"):
        lora.encode(model, "build a kite", long, 640)


def test_a_loss_that_is_no_number_is_said(base, no_guard, tmp_path):
    import mlx.core as mx

    f = fit(base, no_guard, tmp_path)
    f.objective = loop.Objective(
        list, lambda logprobs, mask, rows: {"loss": logprobs.sum(1) * mx.array(float("nan"))}, valid=SFT
    )
    with pytest.raises(ValueError, match="the loss became nan in epoch 1: lower learning_rate"):
        f.run()


@pytest.mark.parametrize(
    "odd, said",
    [
        ({"rnak": 4}, "settings has no 'rnak', did you mean 'rank'?"),
        ({"rank": 0}, "rank is 0"),
        ({"rank": 2.5}, "a whole number"),
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"alpha": "16"}, "alpha is '16'"),
        ({"dropout": 1.0}, "dropout"),
        ({"layers": 0}, "layers is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"mask_prompt": 1}, "true or false"),
        ({"keep": "first"}, "keep is 'first'"),
        ({"batch": True}, "batch is True"),
        ({"patience": 2, "epochs": 2}, "patience 2 and epochs 2: it can never stop early"),
    ],
)
def test_odd_settings_are_refused_by_name(odd, said):
    with pytest.raises(ValueError, match=said):
        Settings.of(odd)


def test_a_full_disk_is_one_error_and_leaves_no_half_file(base, no_guard, tmp_path):
    import resource

    f = fit(base, no_guard, tmp_path / "work", rank=8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError):
            f.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "work").iterdir()) == []
    assert f.run()[-1]["epoch"] == 3


def test_progress_says_how_much_is_left(base, no_guard, tmp_path):
    f, states = fit(base, no_guard, tmp_path), []
    f.progress = states.append
    f.run()
    assert states[-1]["done"] == states[-1]["total"] == 6 and states[-1]["seconds_left"] == 0
    assert all(json.dumps(s) for s in states) and states[0]["seconds_left"] > 0


def test_the_time_left_counts_work_and_not_steps(base, no_guard, tmp_path):
    f, states = fit(base, no_guard, tmp_path, epochs=2, layers=1, batch=2), []
    f.progress = lambda s: states.append((s["seconds_left"] * f.worked / f.spent, f.worked))
    f.run()
    assert len(states) > 8
    # Three of validation, three steps: then every row was read, and what is left is what will have been done.
    for left, done in states[6:]:
        assert left == pytest.approx(f.worked - done, rel=1e-3, abs=1)


def test_openblas_has_as_many_threads_as_settings_say_while_it_trains_and_then_as_before(base, no_guard, tmp_path):
    import ctypes

    if fast_blas() != "openblas":
        pytest.skip("no OpenBLAS here")
    blas = ctypes.CDLL("libopenblas.so.0")
    before = blas.openblas_get_num_threads()
    f, counts = fit(base, no_guard, tmp_path, epochs=1, threads=before + 1), set()
    f.progress = lambda state: counts.add(blas.openblas_get_num_threads())
    f.run()
    assert counts == {before + 1} and blas.openblas_get_num_threads() == before
