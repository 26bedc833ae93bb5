"""A model that is a real llama with random weights, so small that it takes no time; for tests that need weights."""

import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from lib.agent import prompt
from lib.agent.bank import bank
from lib.files import canonical, sha256
from lib.models.blas import fast_blas

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": True, "max_position_embeddings": 1024,
}  # fmt: skip
ROLES = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@lru_cache(maxsize=1)
def tokenizer():
    """About a thousand pieces, learnt from the prompts and sets that the tests train on; any other text goes by bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    sets = bank()[::30]
    texts = [m["content"] for e in sets for m in prompt.ask(e.task)] + [prompt.write_set(e.draft) for e in sets]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=1024, special_tokens=list(ROLES), initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


def write_tokenizer(folder):
    """A new folder with what reads and speaks for a model."""
    folder.mkdir(parents=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": ROLES[0], "pad_token": ROLES[0]}
    about |= {"clean_up_tokenization_spaces": False, "chat_template": CHAT, "model_max_length": 1024}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def write_base(folder, seed=0, quantised=0, **changes):
    """A folder with a model of random weights and its tokenizer; `quantised` to so many bits, 0 for not."""
    fast_blas()
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.utils import quantize_model

    mx.random.seed(seed)
    told = CONFIG | {"vocab_size": tokenizer().get_vocab_size(), "eos_token_id": 0} | changes
    model = Model(ModelArgs.from_dict(told))
    if quantised:
        model, told = quantize_model(model, told, group_size=32, bits=quantised)
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(told))
    mx.save_safetensors(
        str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"}
    )
    return str(folder)


def small(seed=0):
    """The path of such a model: made once for all processes of this machine, so that a test may be named by it."""
    about = sha256(canonical([CONFIG, seed, tokenizer().to_str()]))[:12]
    folder = Path(tempfile.gettempdir()) / f"notch-llama-{os.getuid()}-{about}"
    if not (folder / "model.safetensors").exists():
        made = Path(tempfile.mkdtemp(prefix="notch-llama-making-"))
        write_base(made / "model", seed)
        try:
            os.rename(made / "model", folder)
        except OSError:  # another process was faster
            assert (folder / "model.safetensors").exists()
    return str(folder)


def write_broken(folder):
    """A model that loads and then says nothing but NaN: its runs crash."""
    write_base(folder)
    import mlx.core as mx

    path = folder / "model.safetensors"
    weights = mx.load(str(path))
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    mx.save_safetensors(str(path), weights, metadata={"format": "mlx"})
