"""Train a tiny planner from nothing and export it for mlx_lm: `python -m lib.train.pretrain --size tiny-m`.

Knows torch, which is a dependency of this script alone: on a CPU it trains 2 to 3 times faster than mlx. Writes
weights in MLX format (8 bit), the tokenizer, and what was measured while training. Does not know the ruler, except
that no line of the corpus may come near one of its tasks (`--ruler`).
Architecture: Llama with tied embeddings. Optimiser: Muon for the matrices, AdamW for the rest (Jordan 2024).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import time
from pathlib import Path

from lib.agent import prompt
from lib.agent.bank import LeakGuard
from lib.files import RULER
from lib.train.corpus import MIXTURE, Example, Writer

SIZES = {
    "tiny-s": {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 448},
    "tiny-m": {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 448},
}
VOCABULARY = 3072
LONGEST = 640  # tokens; longer examples are left out
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
END = "<|end|>"
GLUE = ('{"title": "', '", "questions": ["', '", "', '"]}', '{"question": "', '"}')
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
HELD_OUT = ("knit-garment", "visa-application", "buy-bicycle")  # families kept out of training, to measure with


class Guard:
    """Leaves out examples in which any line, asked or answered, comes near a task or a gold answer of the ruler."""

    def __init__(self, tasks: list[str], golds: list[str] = []) -> None:  # noqa: B006
        self.guard = LeakGuard(tasks, golds)
        self.refused = 0

    def allows(self, example: Example) -> bool:
        for message in example.messages[1:]:
            # Short texts of a reply stand between quotes; those of a message stand on lines, after a label or number.
            for text in re.split(r'["\n]', message["content"]):
                if self.guard.find(re.sub(r"^(\d+\. |[A-Z][a-z ]+: )", "", text)):
                    self.refused += 1
                    return False
        return True


def train_tokenizer(examples: list[Example], folder: Path):
    """Byte-level BPE in which every paragraph of `prompt` is one token. Writes the tokenizer files."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    special = [END, *ROLES]
    whole = [*prompt.paragraphs(), *GLUE]
    strip = re.compile("|".join(re.escape(p) for p in sorted(whole, key=len, reverse=True)))
    texts = (strip.sub(" ", e.text) for e in examples)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(special) - len(whole),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    tok.add_tokens([AddedToken(p, normalized=False) for p in whole])
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "model_max_length": 1024,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return tok


def encode(tok, example: Example) -> tuple[list[int], list[float]]:
    """Token ids and loss weights: 1 on what the assistant says, 0.1 on what the user says, 0 on the system."""
    ids: list[int] = []
    weights: list[float] = []
    for message in example.messages:
        role = message["role"]
        body = tok.encode(message["content"]).ids
        ids += [tok.token_to_id(f"<|{role}|>"), *body]
        share = {"assistant": 1.0, "user": 0.1, "system": 0.0}[role]
        weights += [0.0, *[share] * len(body)]
        if role == "assistant":
            ids.append(tok.token_to_id(END))
            weights.append(1.0)
    return ids, weights


def batches(rows: list, budget: int, rng: random.Random):
    """Batches of rows of like length, at most `budget` tokens with padding, in random order."""
    import numpy as np

    rows = sorted(rows, key=lambda r: (len(r[0]), rng.random()))
    groups, group = [], []
    for row in rows:
        if group and (len(group) + 1) * len(row[0]) > budget:
            groups.append(group)
            group = []
        group.append(row)
    groups.append(group)
    rng.shuffle(groups)
    for group in groups:
        longest = max(len(r[0]) for r in group)
        ids = np.zeros((len(group), longest), dtype=np.int64)
        weights = np.zeros((len(group), longest), dtype=np.float32)
        for i, (x, w) in enumerate(group):
            ids[i, : len(x)], weights[i, : len(x)] = x, w
        yield ids, weights


def build(size: dict[str, int]):
    """The Llama of `size` as a torch module whose parameters have mlx_lm's names."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    h, heads, ffn = size["hidden_size"], size["num_attention_heads"], size["intermediate_size"]
    d = h // heads
    freq = 1.0 / (10000.0 ** (torch.arange(0, d, 2).float() / d))
    angle = torch.outer(torch.arange(LONGEST).float(), freq)
    cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()

    def rotate(x):
        n = x.shape[-2]
        half = torch.cat([-x[..., d // 2 :], x[..., : d // 2]], -1)
        return x * cos[:n] + half * sin[:n]

    def linear(i: int, o: int) -> nn.Linear:
        return nn.Linear(i, o, bias=False)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.k_proj, self.v_proj, self.o_proj = (linear(h, h) for _ in range(4))

        def forward(self, x):
            b, n, _ = x.shape
            q, k, v = (p(x).view(b, n, heads, d).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
            y = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
            return self.o_proj(y.transpose(1, 2).reshape(b, n, h))

    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = linear(h, ffn), linear(h, ffn), linear(ffn, h)

        def forward(self, x):
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self_attn, self.mlp = Attention(), MLP()
            self.input_layernorm = nn.RMSNorm(h, eps=1e-5)
            self.post_attention_layernorm = nn.RMSNorm(h, eps=1e-5)

        def forward(self, x):
            x = x + self.self_attn(self.input_layernorm(x))
            return x + self.mlp(self.post_attention_layernorm(x))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(VOCABULARY, h)
            self.layers = nn.ModuleList(Block() for _ in range(size["num_hidden_layers"]))
            self.norm = nn.RMSNorm(h, eps=1e-5)

        def forward(self, ids, wanted=None):
            x = self.embed_tokens(ids)
            for layer in self.layers:
                x = layer(x)
            x = self.norm(x)
            # Only positions that carry loss meet the vocabulary: half of the logits are never computed.
            return F.linear(x if wanted is None else x[wanted], self.embed_tokens.weight)

    model = Model()
    for name, p in model.named_parameters():
        if p.ndim == 2:
            scale = 0.02 if "embed" in name else 0.5 / math.sqrt(p.shape[1])
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                scale /= math.sqrt(2 * size["num_hidden_layers"])
            nn.init.normal_(p, std=scale)
    return model


def muon_step(matrices: list, state: dict, lr: float, decay: float = 0.01) -> None:
    """One step of Muon (Jordan 2024): Nesterov momentum, made orthogonal by five Newton-Schulz rounds, in float32.

    torch.optim.Muon does the rounds in bfloat16, which a CPU without those instructions runs 100 times slower.
    """
    import torch

    with torch.no_grad():
        for p in matrices:
            m = state.setdefault(p, torch.zeros_like(p)).mul_(0.95).add_(p.grad)
            u = p.grad + 0.95 * m
            tall = u.shape[0] > u.shape[1]
            x = (u.T if tall else u) / (u.norm() + 1e-7)
            for _ in range(5):
                a = x @ x.T
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            u = x.T if tall else x
            scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
            p.mul_(1 - lr * decay).add_(u, alpha=-lr * scale)


def loss_of(model, ids, weights):
    """Weighted mean cross entropy of the next token."""
    import torch
    import torch.nn.functional as F

    ids, weights = torch.from_numpy(ids), torch.from_numpy(weights)[:, 1:]
    wanted = weights > 0
    logits = model(ids[:, :-1], wanted)
    each = F.cross_entropy(logits.float(), ids[:, 1:][wanted], reduction="none")
    return (each * weights[wanted]).sum() / weights.sum()


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--size", choices=SIZES, required=True)
    ap.add_argument("--out", type=Path, required=True, help="folder for the MLX model")
    ap.add_argument("--tokenizer", type=Path, help="folder with a tokenizer to use again (both sizes share one)")
    ap.add_argument("--start", type=Path, help="go on from a trained model; a larger one gives evenly chosen layers")
    ap.add_argument("--tokens", type=float, default=0, help="millions of tokens to train on; 0: go by --minutes")
    ap.add_argument("--minutes", type=float, default=60.0, help="wall time to train, if no --tokens are given")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--budget", type=int, default=4096, help="tokens a batch")
    ap.add_argument("--lr", type=float, default=0.02, help="Muon's learning rate; AdamW takes 0.15 of it")
    ap.add_argument("--ruler", type=Path, default=RULER, help="whose texts no example may come near")
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    ap.add_argument("--no-compile", dest="compile", action="store_false", help="without a C++ compiler")
    args = ap.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    guard = Guard(_rows(args.ruler / "cases.jsonl", "task"), _rows(args.ruler / "gold.jsonl", "questions"))
    from lib.models.knowledge import families

    seen = {f.family for f in families()} - set(HELD_OUT)
    writer = Writer(args.seed, only=seen)
    if args.tokenizer:
        from tokenizers import Tokenizer

        tok = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
        args.out.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (args.out / name).write_text((args.tokenizer / name).read_text())
    else:
        tok = train_tokenizer(list(Writer(args.seed + 1, only=seen).examples(12000)), args.out)
    held = Writer(777, invent=0.0, only=set(HELD_OUT) & {f.family for f in families()} or None)
    valid, fresh = (
        [row for e in w.examples(n) if len((row := encode(tok, e))[0]) <= LONGEST]
        for w, n in ((held, 120), (Writer(778, only=seen), 200))
    )
    model = build(SIZES[args.size])
    if args.start:
        inherit(model, args.start)
    fast = torch.compile(model, dynamic=True) if args.compile else model
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    momentum: dict = {}
    adam = torch.optim.AdamW(rest, lr=0.15 * args.lr, betas=(0.9, 0.95), weight_decay=0.0)
    rng = random.Random(args.seed)
    began, tokens, step, history = time.time(), 0, 0, []
    kinds: dict[str, int] = {}
    things: set[str] = set()
    done = False
    while not done:
        rows = []
        while len(rows) < 1600:
            e = writer.example()
            spent = tokens / (1e6 * args.tokens) if args.tokens else (time.time() - began) / (60 * args.minutes)
            # The first tenth leans on restating: copying is the hard part and wants to be learnt first.
            if (
                not args.start
                and spent < 0.1
                and e.kind not in ("restate", "ask", "next")
                and writer.rng.random() < 0.8
            ):
                continue
            if not guard.allows(e):
                continue
            row = encode(tok, e)
            if len(row[0]) <= LONGEST:
                rows.append(row)
                kinds[e.kind] = kinds.get(e.kind, 0) + 1
                things.add(e.messages[-2]["content"].split("\n")[0])
        for ids, weights in batches(rows, args.budget, rng):
            spent = tokens / (1e6 * args.tokens) if args.tokens else (time.time() - began) / (60 * args.minutes)
            if spent >= 1:
                done = True
                break
            rate = min(1.0, step / 60) * (1.0 if spent < 0.45 else max(0.02, (1 - spent) / 0.55))
            adam.param_groups[0]["lr"] = 0.15 * args.lr * rate
            loss = loss_of(fast, ids, weights)
            model.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            muon_step(matrices, momentum, args.lr * rate)
            step += 1
            tokens += int((ids > 0).sum())
            if step % 50 == 0:
                took = time.time() - began
                print(
                    f"step {step} loss {loss.item():.3f} tokens {tokens / 1e6:.2f}M {tokens / took:.0f} tok/s "
                    f"{took / 60:.1f} min",
                    flush=True,
                )
        with torch.no_grad():
            scores = []
            for part in (fresh, valid):
                parts = [
                    (loss_of(model, i, w).item(), float(w.sum())) for i, w in batches(part, 8192, random.Random(0))
                ]
                scores.append(sum(a * b for a, b in parts) / sum(b for _, b in parts))
        history.append([round((time.time() - began) / 60, 1), tokens, *[round(s, 4) for s in scores]])
        print("valid: new examples {:.3f}, families never seen {:.3f}".format(*tuple(scores)), flush=True)
        save(model, args, tok)
    facts = {
        "size": args.size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": args.seed,
        "tokens_seen": tokens,
        "steps": step,
        "minutes": round((time.time() - began) / 60, 1),
        "examples": sum(kinds.values()),
        "kinds": kinds,
        "different_task_lines": len(things),
        "refused_near_ruler": guard.refused,
        "families_held_out": HELD_OUT,
        "mixture": {k: v[0] for k, v in MIXTURE.items()},
        "history": history,
        "torch": torch.__version__,
        "threads": args.threads,
    }
    earlier = args.start / "training.json" if args.start else None
    told = json.loads(earlier.read_text()).get("stages", []) if earlier and earlier.exists() else []
    same = ("size", "seed", "tokens_seen", "steps", "minutes", "examples", "different_task_lines", "threads")
    facts["stages"] = [
        *told,
        {**{k: facts[k] for k in same}, "lr": args.lr, "valid": history[-1][2:] if history else []},
    ]
    (args.out / "training.json").write_text(json.dumps(facts, indent=1))


def inherit(model, source: Path) -> None:
    """Take over a larger model's weights, first and last layer included; the training that follows heals the gaps."""
    from safetensors.torch import load_file

    theirs = {k.removeprefix("model."): v for k, v in load_file(str(source / "model.safetensors")).items()}
    count, have = len(model.layers), 1 + max(int(k.split(".")[1]) for k in theirs if k.startswith("layers."))
    chosen = [round(i * (have - 1) / (count - 1)) for i in range(count)]
    state = {k: v for k, v in theirs.items() if not k.startswith("layers.")}
    for new, old in enumerate(chosen):
        start = f"layers.{old}."
        state |= {f"layers.{new}.{k.removeprefix(start)}": v for k, v in theirs.items() if k.startswith(start)}
    model.load_state_dict(state)


def _rows(path: Path, key: str) -> list[str]:
    """One field of every row of a file of the ruler, as texts."""
    values = [json.loads(line)[key] for line in path.read_text(encoding="utf-8").splitlines()]
    return [t for v in values for t in ([v] if isinstance(v, str) else v)]


def save(model, args: argparse.Namespace, tok) -> None:
    """Full-precision weights with mlx_lm's names; `lib.train.export` quantises them."""
    from safetensors.torch import save_file

    size = SIZES[args.size]
    tensors = {f"model.{n}": p.detach().contiguous() for n, p in model.named_parameters()}
    config = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "num_key_value_heads": size["num_attention_heads"],
        "tie_word_embeddings": True,
        "max_position_embeddings": LONGEST,
        "eos_token_id": tok.token_to_id(END),
        **size,
    }
    save_file(tensors, str(args.out / "model.safetensors"), metadata={"format": "mlx"})
    (args.out / "config.json").write_text(json.dumps(config, indent=1))


if __name__ == "__main__":
    main()
