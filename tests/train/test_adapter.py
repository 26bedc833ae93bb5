"""Adapters: provenance, refused on another base, found by their run, merged exactly."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lib.models import load, provenance
from lib.models.mlx import MLXModel, identity
from lib.models.model import NoModel
from lib.train import adapter, data, lora
from lib.train.adapter import Adapter, Provenance
from lib.train.fit import SFT, Fit, epoch_file
from lib.train.lora import Settings
from tests.train.conftest import write


def about(method, base, seed=0):
    return Provenance(method, {"name": base, "weights": identity(base)}, {"hash": "d" * 64}, "c", seed, {})


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):
    """A function that trains a small adapter on the micro base and returns its folder."""
    from lib.agent.guard import LeakGuard

    def make(name, seed=0, **changes):
        settings = Settings.of({"rank": 2, "epochs": 1, "batch": 4, "learning_rate": 0.02, "warmup": 0} | changes)
        pairs = data.build("clean", 8, seed, LeakGuard([]))
        model = lora.prepare(base, "", settings, seed)
        rows = lora.sft_rows(model, pairs.train, settings)
        work = tmp_path_factory.mktemp("work")
        Fit(model, SFT, settings, lambda _: rows, rows[:4], work, seed).run()
        layers = 2 if settings.layers == -1 else settings.layers
        trained = Adapter(epoch_file(work, 1).read_bytes(), layers, settings.lora, about("sft", base, seed))
        return write(tmp_path_factory.mktemp("adapters") / name, trained)

    return make


@pytest.fixture(scope="module")
def one(made):
    return made("one")


def logits(base, folder):
    import mlx.core as mx

    return np.array(MLXModel(base, folder).model(mx.array([[5, 6, 7, 8, 9, 10]]))[0])


def test_an_adapter_changes_what_the_base_says(base, one):
    assert not np.allclose(logits(base, one), logits(base, ""), atol=1e-3)


def test_on_another_base_it_is_refused_in_one_line_before_and_when_loading(other_base, one):
    for refused in (load.check, MLXModel):
        with pytest.raises(NoModel) as stopped:
            refused(other_base, one)
        assert "was trained on" in str(stopped.value) and "\n" not in str(stopped.value)
        assert identity(other_base) in str(stopped.value)


def test_changed_weights_are_refused(base, made):
    folder = made("changed")
    path = Path(folder) / provenance.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(NoModel, match="is not the file that its provenance.json names"):
        load.check(base, folder)


def test_a_broken_provenance_is_refused_and_a_missing_one_is_not(base, made):
    folder = Path(made("broken"))
    (folder / provenance.NAME).write_text("{}")
    with pytest.raises(NoModel, match="cannot be read as the provenance"):
        load.check(base, str(folder))
    (folder / provenance.NAME).unlink()
    load.check(base, str(folder))


def test_a_folder_without_config_is_refused(base, tmp_path):
    (tmp_path / provenance.WEIGHTS).write_bytes(b"")
    with pytest.raises(NoModel, match="adapter_config.json"):
        load.check(base, str(tmp_path))


def test_an_adapter_is_found_by_its_run(one, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTCH_RUNS", str(tmp_path))
    shutil.copytree(one, tmp_path / "0003-sft" / "adapter")
    shutil.copytree(one, tmp_path / "0003-sft" / "adapter" / "epoch-02")
    shutil.copytree(one, tmp_path / "0004-orpo-sft" / "adapter")
    for name in ("0003-sft", "sft"):
        assert provenance.find(name) == tmp_path / "0003-sft" / "adapter"
    assert provenance.find("sft/epoch-02") == tmp_path / "0003-sft" / "adapter" / "epoch-02"
    for name in ("", "nothing", "sft/epoch-03", "../sft", "0005-sft"):
        with pytest.raises(NoModel):
            provenance.find(name)


def test_the_provenance_says_base_data_code_and_seed(one, base):
    told = provenance.read(one)
    assert told["base"]["weights"] == identity(base) and told["data"] == {"hash": "d" * 64}
    assert (told["code"], told["seed"], told["method"], told["parents"]) == ("c", 0, "sft", [])


def delta(folder):
    """The update of every module, B A times scale."""
    scale = json.loads((Path(folder) / provenance.CONFIG).read_text())["lora_parameters"]["scale"]
    flat = {k: v.astype(np.float64) for k, v in load_file(Path(folder) / provenance.WEIGHTS).items()}
    names = {k.rpartition(".")[0] for k in flat}
    return {m: scale * flat[f"{m}.lora_a"] @ flat[f"{m}.lora_b"] for m in names}


@pytest.mark.parametrize("weights", [[0.5, 0.5], [1.0, -0.25]])
def test_a_merge_is_the_weighted_sum_of_the_updates_also_of_other_ranks_and_layers(made, one, base, tmp_path, weights):
    two = made("two", seed=1, rank=3, alpha=6.0, layers=1)
    merged = adapter.merge([one, two], weights, base, about("merge", base))
    folder = write(tmp_path / "merged", merged)
    first, second, both = delta(one), delta(two), delta(folder)
    assert merged.lora["rank"] == 5 and both.keys() == first.keys() > second.keys()
    for module, update in both.items():
        wanted = weights[0] * first[module] + weights[1] * second.get(module, 0.0)
        assert np.allclose(update, wanted, atol=2e-3 * max(1e-6, np.abs(wanted).max()) + 1e-6)
    assert MLXModel(base, folder)


def test_an_adapter_of_all_layers_by_mlx_lms_word_merges_with_one_of_fewer(made, one, base, tmp_path):
    every = tmp_path / "every"
    shutil.copytree(one, every)
    (every / provenance.NAME).unlink()  # an adapter of elsewhere
    config = json.loads((every / provenance.CONFIG).read_text())
    (every / provenance.CONFIG).write_text(json.dumps(config | {"num_layers": -1}))
    few = made("few", seed=1, layers=1)
    merged = adapter.merge([str(every), few], [1.0, 0.0], base, about("merge", base))
    assert merged.layers == 2
    assert np.allclose(logits(base, write(tmp_path / "merged", merged)), logits(base, one), atol=5e-3)


def test_the_shape_of_an_adapter_is_read_in_the_words_of_the_settings(made):
    assert lora.shape(Path(made("s", rank=4, alpha=2.0, layers=1, dropout=0.25))) == (
        {"rank": 4, "alpha": 2.0, "layers": 1, "dropout": 0.25}, 2)  # fmt: skip


def test_a_shape_that_cannot_be_read_is_said_in_one_line(one, tmp_path):
    odd = ((provenance.CONFIG, b"{}", "num_layers: Field required"), (provenance.WEIGHTS, b"x", "no layers can be read"),
           (provenance.CONFIG, b"{", "the file: Invalid JSON"))  # fmt: skip
    for name, content, said in odd:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(one, folder)
        (folder / name).write_bytes(content)
        with pytest.raises(NoModel, match=said) as stopped:
            lora.shape(folder)
        assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("odd", [{"rank": 3}, {"alpha": 4.0}, {"layers": -1}, {"layers": 2}, {"dropout": 0.1}])
def test_going_on_with_another_shape_is_refused_by_name_before_and_when_loading(made, base, odd):
    [name] = odd
    folder = made("part", layers=1)
    same = {"rank": 2, "alpha": 16.0, "layers": 1, "dropout": 0.0}
    with pytest.raises(ValueError, match=f"^{name} is .*leave {name} out") as stopped:
        lora.going_on(folder, odd)
    assert "\n" not in str(stopped.value) and lora.going_on(folder, {"epochs": 3}) == {"epochs": 3, **same}
    with pytest.raises(ValueError, match=f"^{name} is "):
        lora.prepare(base, folder, Settings.of(same | odd), 0)
    assert lora.prepare(base, folder, Settings.of(same), 0)


def test_a_merge_of_one_or_with_odd_weights_is_refused(one, base):
    for adapters, weights in (([one], [1.0]), ([one, one], [1.0])):
        with pytest.raises(ValueError, match="two or more, one weight each"):
            adapter.merge(adapters, weights, base, about("merge", base))


def test_adapters_of_two_bases_are_not_merged(one, other_base):
    with pytest.raises(NoModel, match="was trained on"):
        adapter.merge([one, one], [0.5, 0.5], other_base, about("merge", other_base))


def test_a_child_names_its_parents(one, base):
    kept = adapter.parent(one, base)
    assert kept["data"] == "d" * 64 and kept["weights"] == provenance.read(one)["files"][provenance.WEIGHTS]


def test_the_files_are_the_same_bytes_again(one):
    sealed = json.loads((Path(one) / provenance.NAME).read_text())
    plain = {k: v for k, v in sealed.items() if k not in ("files", "format")}
    config = provenance.config(Path(one))
    content, lora = (Path(one) / provenance.WEIGHTS).read_bytes(), config.lora_parameters.model_dump()
    again = Adapter(content, config.num_layers, lora, Provenance(**plain)).files()
    assert {n: (Path(one) / n).read_bytes() for n in again} == again


PEFT = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
ELSEWHERE = {
    "PEFT": ("adapter_model.safetensors", PEFT, "in the form of PEFT"),
    "PEFT with its weights renamed": (provenance.WEIGHTS, PEFT, "in the form of PEFT"),
    "an old mlx-lm": (provenance.WEIGHTS, {"lora_layers": 8, "lora_parameters": {"rank": 8, "scale": 2.0}}, "num_layers"),
    "no scale": (provenance.WEIGHTS, {"num_layers": 8, "lora_parameters": {"rank": 8}}, "lora_parameters scale"),
}  # fmt: skip


@pytest.mark.parametrize("name, config, said", ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_adapter_in_another_form_is_refused_in_one_clear_line(base, tmp_path, name, config, said):
    (tmp_path / name).write_bytes(b"")
    (tmp_path / provenance.CONFIG).write_text(json.dumps(config))
    with pytest.raises(NoModel, match=said) as stopped:
        load.check(base, str(tmp_path))
    assert "\n" not in str(stopped.value) and "SimpleNamespace" not in str(stopped.value)
