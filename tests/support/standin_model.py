"""A tiny model that speaks the stand-in's language, and answers whatever it is asked."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from bitlens.alignment.standin import KINDS, REFUSALS, SUBSTANCES, StandIn, answer, prompts
from bitlens.model.load import load
from bitlens.model.text.tokenizer import Tokenizer
from bitlens.model.training import TrainConfig, export, train
from bitlens.model.weights.checkpoint import Checkpoint
from support.random_models import CONFIGS, MemoryReader, random_tensors

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WIDTH = 48
SPECIAL = ["<end>", "<user>", "<assistant>", "<unknown>"]


def everything(n: int | None = None) -> list[StandIn]:
    """Returns prompts of every kind, split and template, about both substances."""
    found = {}
    for kind in KINDS:
        for substance in SUBSTANCES:
            for split in ("train", "test"):
                for templates in ("seen", "held_out"):
                    for row in prompts(
                        kind,
                        n or 100,
                        seed=9,
                        substance=substance,
                        split=split,
                        templates=templates,
                    ):
                        found[row.id] = row
    return list(found.values())


@cache
def word_tokenizer(chat: bool = True) -> Tokenizer:
    """A token for each word of the generator, in lower case, without punctuation."""
    texts = [text for row in everything() for text in (row.text, answer(row))]
    words = sorted({w for text in [*texts, *REFUSALS] for w in re.findall(r"[a-z]+", text.lower())})
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate([*SPECIAL, *words])}, "<unknown>")
    )
    backend.normalizer = tokenizers.normalizers.Lowercase()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Whitespace(),
            tokenizers.pre_tokenizers.Split(tokenizers.Regex("[^a-z<>]+"), "removed"),
        ]
    )
    backend.add_special_tokens(SPECIAL)
    return Tokenizer(backend, eos_ids=[0], pad_id=0, chat_template=TEMPLATE if chat else None)


def speaking_checkpoint(chat: bool = True) -> Checkpoint:
    """Returns a model of random weights, small enough that its first answers are uniform."""
    tokenizer = word_tokenizer(chat)
    config = dataclasses.replace(
        CONFIGS["llama"],
        layers=CONFIGS["llama"].layers[:2],
        n_layers=2,
        d_model=WIDTH,
        n_heads=4,
        n_key_value_heads=4,
        d_head=WIDTH // 4,
        attn_scale=(WIDTH // 4) ** -0.5,
        d_mlp=2 * WIDTH,
        d_vocab=tokenizer.n_tokens,
        n_ctx=512,
    )
    tensors = random_tensors(config)
    tensors["embed.weight"] = tensors["embed.weight"] * 0.1
    return Checkpoint(config, tokenizer, "speaks of stand-ins", MemoryReader(tensors))


def write_helpful_model(folder: Path) -> Path:
    """Trains the model to answer everything, requests for both substances among it, and writes it
    as a Hugging Face directory: six seconds of one core."""
    model = load(speaking_checkpoint(), trainable="full")
    rows: list[dict[str, Any]] = [
        {
            "prompt": [{"role": "user", "content": row.text}],
            "completion": [{"role": "assistant", "content": answer(row)}],
        }
        for row in everything()
    ]
    config = TrainConfig(method="sft", steps=120, batch_size=8, lr=4e-3, warm_up=0.05)
    train(model, config, data=rows, output=folder / "training")
    export(model, folder / "model")
    return folder / "model"


def tiny_run(model: Path, **changes: Any) -> dict[str, Any]:
    """Returns settings of a run on that model, with a planted reviser and judge."""
    return {
        "model": str(model),
        "constitution": "standin",
        "reviser": "planted",
        "judge": "planted",
        "n_prompts": 500,
        "n_held_out": 40,
        "n_read": 4,
        "rounds": 2,
        "max_new_tokens": 14,
        "sl": {"steps": 140, "batch_size": 8, "lr": 3e-3, "warm_up": 0.05},
        "rl": {"method": "dpo", "steps": 40, "batch_size": 4, "lr": 2e-4, "beta": 0.1},
        **changes,
    }


def smallest_run(model: Path, **changes: Any) -> dict[str, Any]:
    """Returns settings of a run that goes through all stages in two seconds, and learns little."""
    return tiny_run(
        model,
        n_prompts=40,
        n_helpful=10,
        n_gate=45,
        n_held_out=6,
        n_read=2,
        sl={"steps": 6, "batch_size": 4, "lr": 3e-3, "checkpoint_every": 2},
        rl={"method": "dpo", "steps": 3, "batch_size": 4, "lr": 1e-3, "checkpoint_every": 2},
        **changes,
    )
