"""A GGUF file as a folder that mlx-lm loads: names, rotary rows, configuration, tokenizer, chat template.

Knows the Llama architecture in the types that mlx reads. Does not know where a file comes from, nor other
architectures: those are refused by name. No GGUF package is needed: the header is read here, and checked against the
file's own length before mlx, which trusts it, is let near it.
Format: github.com/ggml-org/ggml, docs/gguf.md. Rows of q and k: llama.cpp's convert_hf_to_gguf.py, `permute`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.files import check_sums, locked, sums, sync_folder
from lib.models.blas import fast_blas
from lib.models.model import Json, NoModel
from lib.weights import cache, sum_of

VERSION = 1  # of this conversion: another one makes another folder
SEAL = "CONVERTED"
# Numbers of a block and its bytes, of the types that mlx reads; what it cannot is known by name alone.
# A block of Q4_0 is a float16 scale and 32 halves of a byte, of Q4_1 a minimum too, of Q8_0 32 bytes behind the scale.
BLOCKS = {"F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q8_0": (32, 34)}
TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
CONTROL, USER_DEFINED = 3, 4  # kinds of tokens that are never cut
MODULES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
# How text is cut before byte pairs are merged, by the name that a file gives; ByteLevel alone cuts as GPT-2 does.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DIGITS = ("smollm", "starcoder", "refact", "command-r")  # every digit is a token, the rest as GPT-2
CUTS = {"default": GPT2, "gpt-2": GPT2, "llama-bpe": LLAMA3, "llama3": LLAMA3, "llama-v3": LLAMA3}


@dataclass(frozen=True)
class Tensor:
    """What the header says of a tensor."""

    name: str
    shape: tuple[int, ...]  # the fastest dimension first, as GGUF writes it
    type: str


@dataclass(frozen=True)
class Header:
    """The metadata and the tensors of a file, before any weight is read."""

    values: Json
    tensors: tuple[Tensor, ...]

    def get(self, name: str, default: Any = None) -> Any:
        """A value of the architecture, such as `block_count`."""
        return self.values.get(f"{self.values.get('general.architecture')}.{name}", default)


class _Reader:
    """Little-endian values out of bytes; whatever lies past the end is a ValueError."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def one(self, form: str) -> Any:
        """The next value, by its format of `struct`."""
        size = struct.calcsize(form)
        if self.at + size > len(self.data):
            raise ValueError("it ends in the middle of its header")
        [value] = struct.unpack_from(form, self.data, self.at)
        self.at += size
        return value

    def count(self, least: int) -> int:
        """A number of things of at least so many bytes each: more than the file holds is a lie."""
        # Before anything is set aside for them: a header may promise 2**60 values.
        n = self.one("<Q")
        if n * least > len(self.data) - self.at:
            raise ValueError(f"its header promises {n} values, more than the file holds")
        return n

    def text(self) -> str:
        """The next string: its length in bytes (64 bit), then UTF-8; what is none becomes U+FFFD."""
        n = self.count(1)
        self.at += n
        return str(self.data[self.at - n : self.at], "utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        """A value of a kind by its number in the format; an array is a list. Raises ValueError."""
        if kind in SCALARS:
            return self.one(SCALARS[kind])
        if kind == STRING:
            return self.text()
        # A bound, because each array within an array is a call within a call: a forged header could end the process.
        if kind != ARRAY or depth > 2:
            raise ValueError(f"its header holds a value of an unknown kind ({kind})")
        inner = self.one("<I")
        least = struct.calcsize(SCALARS[inner]) if inner in SCALARS else 8
        return [self.value(inner, depth + 1) for _ in range(self.count(least))]


def header(path: Path) -> Header:
    """Metadata and tensors of a GGUF file. Raises NoModel on a file that is none, or that lies about its lengths."""
    import mmap

    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            with memoryview(mapped) as data:
                return _header(data)
    except (OSError, ValueError) as error:
        raise NoModel(f"{path}: not a whole GGUF file ({error}); fetch it again") from error


def _header(data: memoryview) -> Header:
    """Metadata and tensors out of a file's bytes, every place checked. Raises ValueError."""
    read = _Reader(data)
    if read.one("<I") != 0x46554747:
        raise ValueError("it does not begin with GGUF")
    version = read.one("<I")
    # Version 1 counted in 32 bits. Of a big-endian file, which 3 allows, the number reads as 50331648.
    if version not in (2, 3):
        raise ValueError(f"its version is {version}, expected 2 or 3")
    # The least that one can take: of a tensor the length of its name, sides, type and offset; of a value name and kind.
    tensors, values = read.count(24), {}
    for _ in range(read.count(12)):
        name = read.text()
        values[name] = read.value(read.one("<I"))
    described = [_tensor(read) for _ in range(tensors)]
    step = values.get("general.alignment", 32)
    if not isinstance(step, int) or step < 1:
        raise ValueError(f"its alignment is {step!r}")
    start = -(-read.at // step) * step  # the data begins at the next multiple after the header
    for tensor, offset in described:
        block, size = BLOCKS.get(tensor.type, (1, 0))
        count = math.prod(tensor.shape)
        # mlx maps the file and reads where the header points: past the end that is a crash of the whole process.
        if count % block or start + offset + count // block * size > len(data):
            raise ValueError(f"tensor {tensor.name[:60]!r} lies beyond its end")
    return Header(values, tuple(tensor for tensor, _ in described))


def _tensor(read: _Reader) -> tuple[Tensor, int]:
    """One tensor of the header, and how far behind the header its data begins, in bytes."""
    name, sides = read.text(), read.one("<I")
    if not 1 <= sides <= 4:
        raise ValueError(f"tensor {name[:60]!r} has {sides} dimensions")
    shape = tuple(read.one("<Q") for _ in range(sides))
    kind = read.one("<I")
    return Tensor(name, shape, TYPES.get(kind, f"number {kind}")), read.one("<Q")


def check(path: Path) -> Header:
    """The header of a file that can be converted. Raises NoModel naming what cannot: architecture, type, rotary form."""
    head = header(path)
    fault = _fault(head)
    if fault:
        raise NoModel(f"{path}: {fault}")
    return head


def _fault(head: Header) -> str:
    """Why a file cannot be converted, "" where it can."""
    kind = head.values.get("general.architecture")
    if kind != "llama":
        return f"its architecture is {str(kind)[:40]!r}; GGUF files are read for 'llama' alone, others as MLX models"
    types = sorted({tensor.type for tensor in head.tensors} - BLOCKS.keys())
    if types:
        return (
            f"its tensors are of type {', '.join(types)}; mlx reads {', '.join(BLOCKS)}: take such a file of the model"
        )
    if head.get("expert_count"):
        return f"it is a mixture of {head.get('expert_count')} experts, which is not read from GGUF; take an MLX model"
    need = ("embedding_length", "feed_forward_length", "block_count", "attention.head_count")
    missing = [name for name in need if not isinstance(head.get(name), int) or head.get(name) < 1]
    if missing:
        return f"its header has no usable llama.{missing[0]}"
    if head.get("embedding_length") % head.get("attention.head_count"):
        return "its width is no multiple of its heads"
    scaling = head.get("rope.scaling.type")
    if scaling not in (None, "none", "linear"):
        return f"its rotary scaling is {scaling!r}, which is not read from GGUF; take an MLX model"
    return ""


def folder(path: Path) -> Path:
    """The model of a GGUF file as a folder for `mlx_lm.load`, made in the cache where it is not there. Raises NoModel.

    The folder is named by the file's sha256, so that the same weights under two names are one, and it appears whole
    or not at all. One that was altered is made again.
    """
    try:
        target = cache() / "models" / f"{sum_of(path)[:16]}-{VERSION}"
    except OSError as error:
        raise NoModel(f"{path}: cannot be read ({error.strerror or error})") from error
    # Without a lock first: nearly every call finds it made.
    if _whole(target):
        return target
    head = check(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / ".lock"):  # the second of two processes finds the folder of the first
            for unfinished in target.parent.glob(".tmp-*"):  # of a call that was killed
                shutil.rmtree(unfinished)
            if not _whole(target):
                _make(path, head, target)
    except OSError as error:
        raise NoModel(f"{target.parent} cannot be written ({error.strerror or error}); make room, or set NOTCH_CACHE "
                      "to another folder") from error  # fmt: skip
    return target


def _make(path: Path, head: Header, target: Path) -> None:
    """Convert beside the target and give the finished folder its name."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-", ignore_cleanup_errors=True) as name:
        temp = Path(name)
        convert(path, head, temp)
        (temp / SEAL).write_text(sums(temp, [p.name for p in temp.iterdir()]), encoding="utf-8")
        for part in temp.iterdir():
            with open(part, "rb") as file:
                # Before the folder has its name: else a power cut could leave a whole folder of empty files.
                os.fsync(file.fileno())
        os.chmod(temp, 0o755)  # a temporary folder is its owner's alone, and a cache may be shared
        shutil.rmtree(target, ignore_errors=True)  # one that was altered
        os.rename(temp, target)
        sync_folder(target.parent)


def _whole(target: Path) -> bool:
    """Whether a converted folder is there as it was made."""
    # By the time of the youngest file: one that is written to meanwhile has its sums worked out again.
    return (target / SEAL).exists() and _sound(target, max(p.stat().st_mtime_ns for p in target.iterdir()))


@lru_cache
def _sound(target: Path, changed: int) -> bool:
    """Its sums are worked out once for a process and a time of change."""
    return not check_sums(target, (target / SEAL).read_text(encoding="utf-8"), SEAL)


def convert(path: Path, head: Header, out: Path) -> None:
    """Write weights, configuration, tokenizer and template of a GGUF file into a folder. Raises NoModel."""
    fast_blas()
    import mlx.core as mx

    try:
        tensors = mx.load(str(path), format="gguf")
    except RuntimeError as error:
        raise NoModel(f"{path}: mlx cannot read it ({error})") from error
    # Not a weight: it is worked into the configuration, from which mlx-lm makes it again.
    scaling = _scaling(path, head, tensors.pop("rope_freqs.weight", None))
    weights = dict(_renamed(path, tensors, head))
    if {"model.embed_tokens.weight", "model.norm.weight"} - weights.keys():
        raise NoModel(f"{path}: it holds no whole model (token_embd or output_norm is missing)")
    mx.save_safetensors(str(out / "model.safetensors"), weights, {"format": "mlx"})
    _write(out / "config.json", config(head, weights) | scaling)
    tokenizer(head, out, path)
    template = head.values.get("tokenizer.chat_template")
    if template:
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")


def _write(path: Path, values: Json) -> None:
    path.write_text(json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _renamed(path: Path, tensors: Mapping[str, Any], head: Header) -> Iterator[tuple[str, Any]]:
    """Tensors under mlx-lm's names, rows of q and k put in order. Raises NoModel on a tensor of another architecture."""
    # Only q and k are turned by the rotary embedding, so only their rows were reordered.
    heads = head.get("attention.head_count")
    groups = {"attn_q": heads, "attn_k": head.get("attention.head_count_kv") or heads}
    for name, value in tensors.items():
        inner = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(\w+)", name)
        module, _, part = name.rpartition(".")
        if inner and inner[2] in MODULES:
            if inner[2] in groups:
                value = rotary_rows(value, groups[inner[2]])
            yield f"model.layers.{inner[1]}.{MODULES[inner[2]]}.{inner[3]}", value
        elif module in WHOLE:
            yield f"{WHOLE[module]}.{part}", value
        else:
            raise NoModel(f"{path}: tensor {name[:80]!r} is none of the Llama architecture")


def rotary_rows(value: Any, heads: int) -> Any:
    """Rows of q or k in the order of the usual layout: (heads * size, ...) -> the same shape.

    llama.cpp interleaves the two halves that the rotary embedding turns against each other; scales and biases of
    quantised rows go with their rows.
    """
    rows = value.shape[0]
    # (heads, half, 2) -> (heads, 2, half): the second of each pair goes behind all first ones.
    return value.reshape(heads, rows // heads // 2, 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def config(head: Header, weights: Mapping[str, Any]) -> Json:
    """mlx-lm's description of the model. What a file leaves out has the value that llama.cpp takes then."""
    heads = head.get("attention.head_count")
    values = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"],
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "hidden_size": head.get("embedding_length"), "intermediate_size": head.get("feed_forward_length"),
        "num_hidden_layers": head.get("block_count"), "num_attention_heads": heads,
        "num_key_value_heads": head.get("attention.head_count_kv") or heads,
        "head_dim": head.get("attention.key_length") or head.get("embedding_length") // heads,
        "rms_norm_eps": head.get("attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": head.get("rope.freq_base", 10000.0), "vocab_size": weights["model.embed_tokens.weight"].shape[0],
        "max_position_embeddings": head.get("context_length", 2048),
        "attention_bias": any(name.endswith("q_proj.bias") for name in weights),
        "mlp_bias": any(name.endswith("gate_proj.bias") for name in weights),
        "bos_token_id": head.values.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": _ends(head.values),
    }  # fmt: skip
    return values | _quantisation(weights)


def _scaling(path: Path, head: Header, divisors: Any) -> Json:
    """The rotary scaling, in mlx-lm's words. Of Llama 3 a file holds only what each frequency is divided by: the factor
    is the largest of them, and what follows from it must give the others. Raises NoModel where it does not."""
    if divisors is None:
        if head.get("rope.scaling.type") != "linear":
            return {}
        return {"rope_scaling": {"type": "linear", "factor": head.get("rope.scaling.factor", 1.0)}}
    import numpy as np

    divisors = np.array(divisors, dtype=np.float64)  # (half of a head,)
    # Llama 3.1: low frequencies are divided by the factor, high ones stay, those between go over smoothly.
    factor, low, high, before = float(divisors.max()), 1.0, 4.0, 8192
    base = head.get("rope.freq_base", 10000.0)
    turns = before / (2 * np.pi * base ** (np.arange(len(divisors)) / len(divisors)))  # within the old context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    if not np.allclose(1 / ((1 - smooth) / factor + smooth), divisors, rtol=1e-3):
        raise NoModel(f"{path}: its rotary frequencies are scaled in a way that is not known; take an MLX model")
    return {"rope_scaling": {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                             "original_max_position_embeddings": before}}  # fmt: skip


def _ends(values: Json) -> list[int]:
    """Tokens that end a reply: of a chat model the end of a turn is often another than the end of a text."""
    ids = [values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    return list(dict.fromkeys(i for i in ids if isinstance(i, int)))


def _quantisation(weights: Mapping[str, Any]) -> Json:
    """Group size and bits: the commonest for all, the others by module; nothing where no tensor is quantised."""
    bits: dict[str, int] = {}
    for name in weights:
        module, _, part = name.rpartition(".")
        # n numbers of a row are n * bits / 32 words and n / 32 groups with a scale each, so the ratio is the bits.
        if part == "scales":
            bits[module] = weights[f"{module}.weight"].shape[1] // weights[name].shape[1]
    if not bits:
        return {}
    # Sorted first: of two that are equally common always the smaller, in whichever order the tensors stand.
    usual = max(sorted(set(bits.values())), key=list(bits.values()).count)
    others = {module: {"group_size": 32, "bits": b} for module, b in bits.items() if b != usual}
    return {"quantization": {"group_size": 32, "bits": usual, **others}}


def tokenizer(head: Header, out: Path, path: Path) -> None:
    """Write tokenizer.json and its configuration. Raises NoModel on a kind that is not known."""
    from tokenizers import AddedToken

    values = head.values
    kind, cut = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre", "default")
    tokens = values.get("tokenizer.ggml.tokens") or []
    if kind == "gpt2" and (cut in CUTS or cut in DIGITS):
        pieces = _byte_pairs(tokens, values.get("tokenizer.ggml.merges") or [], cut)
    elif kind == "llama" and values.get("tokenizer.ggml.scores"):
        pieces = _pieces(tokens, values["tokenizer.ggml.scores"], values.get("tokenizer.ggml.add_space_prefix", True))
    else:
        raise NoModel(f"{path}: its tokenizer is {str(kind)[:40]!r} ({str(cut)[:40]!r}), which is not read from GGUF; "
                      "take an MLX model")  # fmt: skip
    # Roles and ends of turns are control tokens: they are never cut, and a reply is shown without them.
    kinds = values.get("tokenizer.ggml.token_type") or []
    added: dict[int, list[AddedToken]] = {CONTROL: [], USER_DEFINED: []}
    for token, kind in zip(tokens, kinds, strict=False):
        if kind in added:
            added[kind].append(AddedToken(token, special=kind == CONTROL, normalized=False))
    pieces.add_special_tokens(added[CONTROL])
    pieces.add_tokens(added[USER_DEFINED])
    pieces.save(str(out / "tokenizer.json"))
    # Not cleaned up: transformers would take spaces before punctuation out of what the model wrote.
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
             "model_max_length": head.get("context_length", 2048)}  # fmt: skip
    for key, name in {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}.items():
        token_id = values.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(token_id, int) and 0 <= token_id < len(tokens):
            about[key] = tokens[token_id]
    _write(out / "tokenizer_config.json", about)


def _byte_pairs(tokens: list[str], merges: list[str], cut: str) -> Any:
    """Byte-level BPE, as GPT-2, Llama 3 and SmolLM have it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    pairs = [merge.partition(" ")[::2] for merge in merges]
    vocab = {token: i for i, token in enumerate(tokens)}
    # Llama 3 takes a word that is a token as it is, also where no merge leads there.
    pieces = Tokenizer(models.BPE(vocab=vocab, merges=pairs, ignore_merges=CUTS.get(cut) == LLAMA3))
    if cut in DIGITS:
        first: Any = pre_tokenizers.Digits(individual_digits=True)
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        first = pre_tokenizers.Split(Regex(CUTS[cut]), "isolated")
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces.pre_tokenizer = pre_tokenizers.Sequence([first, bytes_])
    pieces.decoder = decoders.ByteLevel()
    return pieces


def _pieces(tokens: list[str], scores: list[float], prefix: bool) -> Any:
    """SentencePiece's BPE, as Llama 2 and Mistral have it: a pair is merged the earlier the higher its piece scores."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers.tokenization_utils_base import generate_merges

    vocab = {token: i for i, token in enumerate(tokens)}
    # The file has a score for each piece and no merges; they follow: a pair merges where its whole is a piece.
    merges = generate_merges(vocab, dict(zip(tokens, scores, strict=True)))
    pieces = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token=tokens[0], fuse_unk=True, byte_fallback=True))
    space: list[Any] = [normalizers.Replace(" ", "▁")]
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:  # a text begins with a space of its own, which is taken off again
        space.insert(0, normalizers.Prepend("▁"))
        parts.append(decoders.Strip(" ", 1, 0))
    pieces.normalizer, pieces.decoder = normalizers.Sequence(space), decoders.Sequence(parts)
    return pieces
