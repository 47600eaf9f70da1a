"""A random Llama, dictionaries at every kind of place in it, and tokens for both."""

from __future__ import annotations

import torch
from bitlens.interp.dictionaries import Dictionary
from bitlens.interp.splicing import splice
from bitlens.model.transformer import HookedTransformer
from support.random_dictionaries import random_dictionary
from support.random_models import random_model

RESID = "blocks.1.hook_resid_post"
MLP = ("blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out")
PLACES: dict[str, tuple[str, str | None, str]] = {
    "resid_pre": ("blocks.1.hook_resid_pre", None, "standard"),
    "resid_mid": ("blocks.2.hook_resid_mid", None, "jumprelu"),
    "resid_post": (RESID, None, "topk"),
    "attn_out": ("blocks.0.hook_attn_out", None, "gated"),
    "z": ("blocks.1.attn.hook_z", None, "topk"),
    "mlp": (*MLP, "topk_transcoder"),
    "mlp_inside": ("blocks.0.ln2.hook_normalized", "blocks.0.mlp.hook_out", "skip_transcoder"),
}
TOKENS = torch.tensor([[7, 3, 1, 4, 1, 5, 9, 2]])
MODELS = {dtype: random_model("llama", dtype=dtype) for dtype in ("fp32", "bf16")}
MODEL = MODELS["fp32"]
CLEAN = MODEL(TOKENS)


def placed(name: str, model: HookedTransformer = MODEL) -> Dictionary:
    """A random dictionary at one of PLACES."""
    read, written, architecture = PLACES[name]
    return random_dictionary(model, read, written, architecture)


SAE = placed("resid_post")
TRANSCODER = placed("mlp")


def acts_of(model: HookedTransformer, dictionary: Dictionary, tokens: torch.Tensor) -> torch.Tensor:
    """The dictionary's activations on these tokens, [B, P, F]."""
    with splice(model, dictionary) as spliced:
        name = f"{dictionary.cfg.hook_name_out}.hook_sae_acts_post"
        acts: torch.Tensor = spliced.run_with_cache(tokens, name)[1][name]
        return acts


def active_feature(position: int, dictionary: Dictionary = SAE) -> int:
    """The feature that is most active at a position of TOKENS."""
    return int(acts_of(MODEL, dictionary, TOKENS)[0, position].argmax())
