"""GGUF files that the tests write, beside the same weights in the usual layout; and files that lie about themselves."""

import json
import struct

import numpy as np
import pytest

from lib.models import gguf
from lib.models.blas import fast_blas
from lib.models.mlx import MLXModel
from lib.models.model import Decoding, NoModel

HEADS, GROUPS, WIDTH, INNER, LAYERS = 4, 2, 64, 96, 2
CHAT = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
KINDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "Q4_K": 12}
U32, F32, TEXT, LIST, I32 = 4, 6, 8, 9, 5


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTCH_CACHE", str(tmp_path / "cache"))


def alphabet():
    """The 256 letters that stand for bytes in a byte-level vocabulary."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


TOKENS = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", *alphabet(), "Ġt", "he", "Ġthe"]
MERGES = ["Ġ t", "h e", "Ġt he"]


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, content):
    if kind == TEXT:
        return text(content)
    if kind == LIST:
        inner, items = content
        return struct.pack("<IQ", inner, len(items)) + b"".join(value(inner, i) for i in items)
    return struct.pack({U32: "<I", F32: "<f", I32: "<i"}[kind], content)


def rounded(block, kind):
    """Scale, offset and whole numbers of 32 numbers, and what they stand for."""
    if kind == "Q8_0":
        scale, low = np.float16(max(abs(block).max() / 127, 1e-4)), np.float16(0)
        q = np.round(block / scale).clip(-127, 127)
    elif kind == "Q4_1":
        low, scale = np.float16(block.min()), np.float16(max((block.max() - block.min()) / 15, 1e-4))
        q = np.round((block - low) / scale).clip(0, 15)
    else:
        scale = np.float16(max(abs(block).max() / 7, 1e-4))
        low, q = np.float16(-8 * scale), np.round(block / scale + 8).clip(0, 15)
    return scale, low, q, np.float32(scale) * q.astype(np.float32) + np.float32(low)


def packed(array, kind):
    """The bytes of a matrix in a type: plain numbers, or blocks of 32 with their scale."""
    if kind in ("F32", "F16"):
        return array.astype("<f4" if kind == "F32" else "<f2").tobytes()
    out = b""
    for block in array.reshape(-1, 32):
        scale, low, q, _ = rounded(block, kind)
        halves = q.astype(np.uint8)
        out += scale.tobytes() + (low.tobytes() if kind == "Q4_1" else b"")
        out += q.astype(np.int8).tobytes() if kind == "Q8_0" else (halves[:16] | halves[16:] << 4).tobytes()
    return out


def stored(array, kind):
    """The numbers that a file of this type really holds."""
    if kind in ("F32", "F16") or array.ndim == 1:
        return array.astype("<f2").astype(np.float32) if kind == "F16" and array.ndim == 2 else array
    return (
        np.concatenate([rounded(block, kind)[3] for block in array.reshape(-1, 32)])
        .reshape(array.shape)
        .astype(np.float32)
    )


def weights(seed=0):
    """Weights in the usual layout, by mlx-lm's names."""
    rng, size = np.random.default_rng(seed), WIDTH // HEADS
    shapes = {"model.embed_tokens": (len(TOKENS), WIDTH)}
    for n in range(LAYERS):
        at = f"model.layers.{n}."
        shapes |= {at + "self_attn.q_proj": (WIDTH, WIDTH), at + "self_attn.o_proj": (WIDTH, WIDTH)}
        shapes |= {at + f"self_attn.{k}_proj": (GROUPS * size, WIDTH) for k in "kv"}
        shapes |= {
            at + "mlp.gate_proj": (INNER, WIDTH),
            at + "mlp.up_proj": (INNER, WIDTH),
            at + "mlp.down_proj": (WIDTH, INNER),
        }
    made = {f"{k}.weight": (rng.normal(size=s) * 0.2).astype(np.float32) for k, s in shapes.items()}
    for name in [
        "model.norm",
        *(f"model.layers.{n}.{k}" for n in range(LAYERS) for k in ("input_layernorm", "post_attention_layernorm")),
    ]:
        made[f"{name}.weight"] = rng.normal(1, 0.1, size=WIDTH).astype(np.float32)
    return made


OURS = {v: k for k, v in gguf.MODULES.items()} | {v: k for k, v in gguf.WHOLE.items()}


def as_llama_cpp_names_it(name, array):
    """A tensor of the usual layout under its name in GGUF, rows of q and k interleaved as llama.cpp's `permute` does."""
    module = name.removesuffix(".weight")
    if not module.startswith("model.layers."):
        return f"{OURS[module]}.weight", array
    _, _, n, rest = module.split(".", 3)
    short = OURS[rest]
    if short in ("attn_q", "attn_k"):
        heads = HEADS if short == "attn_q" else GROUPS
        array = array.reshape(heads, 2, array.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)
    return f"blk.{n}.{short}.weight", array


def meta(**changes):
    values = {
        "general.architecture": (TEXT, "llama"), "llama.embedding_length": (U32, WIDTH), "llama.block_count": (U32, LAYERS),
        "llama.feed_forward_length": (U32, INNER), "llama.attention.head_count": (U32, HEADS),
        "llama.attention.head_count_kv": (U32, GROUPS), "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
        "llama.context_length": (U32, 512), "llama.rope.freq_base": (F32, 10000.0),
        "tokenizer.ggml.model": (TEXT, "gpt2"), "tokenizer.ggml.pre": (TEXT, "smollm"),
        "tokenizer.ggml.tokens": (LIST, (TEXT, TOKENS)), "tokenizer.ggml.merges": (LIST, (TEXT, MERGES)),
        "tokenizer.ggml.token_type": (LIST, (I32, [3] * 4 + [1] * (len(TOKENS) - 4))),
        "tokenizer.ggml.eos_token_id": (U32, 0), "tokenizer.chat_template": (TEXT, CHAT),
    }  # fmt: skip
    return {**values, **{k.replace("__", "."): v for k, v in changes.items()}}


def write(path, kind="F32", values=None, extra=(), seed=0):
    """A whole GGUF file of the toy's weights; norms stay F32, as in real files."""
    tensors = [as_llama_cpp_names_it(k, v) for k, v in weights(seed).items()] + list(extra)
    values = values or meta()
    head = struct.pack("<IIQQ", 0x46554747, 3, len(tensors), len(values))
    for name, (k, content) in values.items():
        head += text(name) + struct.pack("<I", k) + value(k, content)
    body = b""
    for name, array in tensors:
        mine = kind if array.ndim == 2 else "F32"
        head += text(name) + struct.pack("<I", array.ndim) + struct.pack(f"<{array.ndim}Q", *reversed(array.shape))
        head += struct.pack("<IQ", KINDS[mine], len(body))
        data = packed(array, mine) if mine in gguf.BLOCKS else bytes(array.size // 256 * 144 + 144)
        body += data + b"\0" * (-len(data) % 32)
    head += b"\0" * (-len(head) % 32)
    path.write_bytes(head + body)
    return path


def usual(folder, kind="F32", seed=0):
    """The model of a file as mlx-lm writes one, with the numbers that the file holds."""
    fast_blas()
    import mlx.core as mx

    folder.mkdir()
    config = {"model_type": "llama", "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "intermediate_size": INNER,
              "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "rms_norm_eps": 1e-5, "vocab_size": len(TOKENS),
              "rope_theta": 10000.0, "tie_word_embeddings": True, "eos_token_id": 0}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(
        str(folder / "model.safetensors"),
        {k: mx.array(stored(v, kind)) for k, v in weights(seed).items()},
        {"format": "mlx"},
    )
    return folder


def logits(folder, ids):
    import mlx.core as mx
    from mlx_lm.utils import load_model

    fast_blas()
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    return np.array(model(mx.array([ids])))


IDS = [2, 90, 17, 201, 33, 1, 250, 8]


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1", "Q4_0"])
def test_a_file_says_what_the_same_weights_say_in_the_usual_layout(tmp_path, kind):
    expected = logits(usual(tmp_path / "usual", kind), IDS)
    found = logits(gguf.folder(write(tmp_path / "toy.gguf", kind)), IDS)
    assert found.shape == expected.shape and np.abs(expected).max() > 1
    # Scales are half precision, and mlx turns the -8 of Q4_0 into an offset of its own: its last bit may differ.
    assert np.abs(found - expected).max() < (1e-5 if kind == "F32" else 0.02)


@pytest.mark.parametrize("kind, bits", [("Q8_0", 8), ("Q4_0", 4), ("Q4_1", 4)])
def test_quantised_weights_stay_quantised(tmp_path, kind, bits):
    config = json.loads((gguf.folder(write(tmp_path / "toy.gguf", kind)) / "config.json").read_text())
    assert config["quantization"] == {"group_size": 32, "bits": bits}


def test_a_gguf_file_is_a_model_by_its_path(tmp_path):
    model = MLXModel(str(write(tmp_path / "toy.gguf")))
    [reply] = model.generate([[{"role": "user", "content": "the cat"}]], [Decoding(max_tokens=5)])
    assert reply.generation_tokens and model.identity["weights"] != str(tmp_path / "toy.gguf")


def test_text_is_cut_as_the_file_says(tmp_path):
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(gguf.folder(write(tmp_path / "a.gguf")) / "tokenizer.json"))
    assert made.encode("see the 12").tokens == ["s", "e", "e", "Ġthe", "Ġ", "1", "2"]
    assert made.encode("<|user|>x").tokens == ["<|user|>", "x"]
    assert made.decode(made.encode("naïve — the 12 ✓").ids) == "naïve — the 12 ✓"


def test_the_same_file_under_two_names_is_one_folder_and_an_altered_folder_is_made_again(tmp_path):
    first, second = gguf.folder(write(tmp_path / "a.gguf")), gguf.folder(write(tmp_path / "b.gguf"))
    assert first == second and gguf.folder(write(tmp_path / "c.gguf", seed=1)) != first
    before = (first / "config.json").read_bytes()
    (first / "config.json").write_text("{}")
    assert gguf.folder(tmp_path / "a.gguf") == first and (first / "config.json").read_bytes() == before


def test_what_a_killed_conversion_left_is_cleared_away(tmp_path):
    folder = gguf.folder(write(tmp_path / "a.gguf"))
    left = folder.parent / ".tmp-left"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    gguf.folder(write(tmp_path / "c.gguf", seed=1))
    assert not left.exists() and sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) == sorted(
        f.name for f in (folder, gguf.folder(tmp_path / "c.gguf"))
    )


REFUSED = {
    "another architecture": ({"general__architecture": (TEXT, "qwen2")}, "F32", "'qwen2'"),
    "a type that mlx does not read": ({}, "Q4_K", "Q4_K"),
    "experts": ({"llama__expert_count": (U32, 8)}, "F32", "8 experts"),
    "rotary scaling": ({"llama__rope__scaling__type": (TEXT, "yarn")}, "F32", "'yarn'"),
    "no layers": ({"llama__block_count": (U32, 0)}, "F32", "llama.block_count"),
    "another tokenizer": ({"tokenizer__ggml__model": (TEXT, "bert")}, "F32", "'bert'"),
    "another cut": ({"tokenizer__ggml__pre": (TEXT, "chameleon")}, "F32", "'chameleon'"),
}


@pytest.mark.parametrize("changes, kind, said", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_read_is_refused_by_name_in_one_line(tmp_path, changes, kind, said):
    with pytest.raises(NoModel) as caught:
        gguf.folder(write(tmp_path / "toy.gguf", kind, meta(**changes)))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    models = tmp_path / "cache" / "models"
    assert not models.exists() or not [p for p in models.iterdir() if p.is_dir()]


def test_a_tensor_that_is_none_of_a_llama_is_named(tmp_path):
    with pytest.raises(NoModel, match="'blk.0.ssm_in.weight'"):
        gguf.folder(write(tmp_path / "toy.gguf", extra=[("blk.0.ssm_in.weight", np.zeros((32, 32), np.float32))]))


def test_a_file_with_lying_lengths_or_cut_anywhere_is_refused(tmp_path):
    whole = write(tmp_path / "toy.gguf").read_bytes()
    lies = [whole[:n] for n in (0, 3, 8, 23, 40, 700, len(whole) // 2, len(whole) - 2000)]
    lies += [whole[:8] + struct.pack("<Q", 2**60) + whole[16:], whole[:16] + struct.pack("<Q", 2**40) + whole[24:]]
    lies += [whole[:24] + struct.pack("<Q", 2**62) + whole[32:], b"\0" * 200, b"GGUF" + b"\xff" * 200]
    for data in lies:
        path = tmp_path / "lie.gguf"
        path.write_bytes(data)
        with pytest.raises(NoModel, match="not a whole GGUF file"):
            gguf.header(path)


def test_llama_3_scaling_is_known_by_its_numbers_and_another_one_is_refused(tmp_path):
    size = WIDTH // HEADS // 2
    turns = 8192 / (2 * np.pi * 10000.0 ** (np.arange(size) / size))
    smooth = np.clip((turns - 1) / 3, 0, 1)
    divisors = (1 / ((1 - smooth) / 32 + smooth)).astype(np.float32)
    folder = gguf.folder(write(tmp_path / "a.gguf", extra=[("rope_freqs.weight", divisors)]))
    scaling = json.loads((folder / "config.json").read_text())["rope_scaling"]
    assert scaling["rope_type"] == "llama3" and scaling["factor"] == pytest.approx(
        32 if divisors.max() > 31 else divisors.max()
    )
    with pytest.raises(NoModel, match="rotary frequencies"):
        gguf.folder(write(tmp_path / "b.gguf", extra=[("rope_freqs.weight", divisors[::-1].copy())]))


def test_sentence_pieces_are_merged_by_their_scores(tmp_path):
    tokens = ["<unk>", "<s>", "</s>", "▁", "t", "h", "e", "c", "a", "▁t", "he", "▁the", "ca", "at", "cat"]
    tokens += [f"<0x{n:02X}>" for n in range(256)]
    scores = [0.0] * 3 + [-10.0] * 6 + [-1.0, -2.0, -3.0, -6.0, -4.0, -5.0] + [0.0] * 256
    kinds = [2, 3, 3] + [1] * 12 + [6] * 256
    changes = {"tokenizer__ggml__model": (TEXT, "llama"), "tokenizer__ggml__tokens": (LIST, (TEXT, tokens)),
               "tokenizer__ggml__scores": (LIST, (F32, scores)), "tokenizer__ggml__token_type": (LIST, (I32, kinds)),
               "tokenizer__ggml__eos_token_id": (U32, 2)}  # fmt: skip
    folder = gguf.folder(write(tmp_path / "a.gguf", values=meta(**changes)))
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert made.encode("the cat").tokens == ["▁the", "▁", "cat"]
    assert made.decode(made.encode("the cat é").ids) == "the cat é"
