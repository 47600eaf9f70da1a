"""Losses as TRL's own trainers compute them, on log-probabilities that are given.

A trainer is made without its constructor, and its model is a stand-in that returns the given
numbers where TRL's fused head would. Nothing of TRL is imported before a trainer is asked for.
Tensor names: B sequences, chosen before rejected, P positions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One loss: the trainer that has it, what is differentiated, and settings by TRL's names."""

    trainer: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    varied: str = "logprobs"


CLIP = {"epsilon_low": 0.2, "epsilon_high": 0.3}
CASES: Mapping[str, Case] = {
    "sft": Case("sft"),
    "reward": Case("reward", varied="rewards"),
    "reward, margin": Case("reward", {"margin": True}, varied="rewards"),
    "reward, centred": Case("reward", {"margin": True, "centering": 0.01}, varied="rewards"),
    "dpo, sigmoid": Case("dpo", {"loss_type": "sigmoid", "beta": 0.1}),
    "dpo, ipo": Case("dpo", {"loss_type": "ipo", "beta": 0.2}),
    "dpo, by length": Case("dpo", {"loss_type": "sigmoid_norm", "beta": 5.0}),
    "grpo": Case("grpo", {"loss_type": "grpo", "beta": 0.0, **CLIP}),
    "grpo, kl": Case("grpo", {"loss_type": "grpo", "beta": 0.3, **CLIP}),
    "grpo, by token": Case("grpo", {"loss_type": "bnpo", "beta": 0.3, **CLIP}),
    "grpo, of more": Case("grpo", {"loss_type": "dapo", "beta": 0.0, "count": 41, **CLIP}),
    "rloo": Case("rloo", CLIP),
}
LAYOUTS = ("right", "left")
"""The side that is padded."""


def draw_inputs(layout: str) -> dict[str, torch.Tensor]:
    """Returns inputs of all cases, fp32 with masks as int64; both layouts hold the same numbers."""
    generator = torch.Generator().manual_seed(24)
    n_rows, width = 6, 11

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    logprobs = -normal(n_rows, width).abs() * 2
    old, reference = logprobs + 0.2 * normal(n_rows, width), logprobs + 0.5 * normal(n_rows, width)
    lengths = torch.tensor([11, 5, 9, 3, 8, 10])
    prompts = torch.tensor([4, 2, 1, 2, 3, 5])
    at = torch.arange(width)
    scored = (at >= prompts[:, None]) & (at < lengths[:, None])
    found = {"logprobs": logprobs, "old": old, "reference": reference, "scored": scored.long()}
    found["attended"] = (at < lengths[:, None]).long()
    if layout == "left":
        found = {
            name: torch.stack([row.roll(width - int(n)) for row, n in zip(x, lengths, strict=True)])
            for name, x in found.items()
        }
    return {
        **{name: x.contiguous() for name, x in found.items()},
        "advantages": normal(n_rows),
        "rewards": normal(n_rows) * 3,
        "margin": normal(n_rows // 2).abs(),
    }


def trl_loss(case: Case, inputs: Tensors, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns TRL's loss and its gradient by what the case varies."""
    cast = {name: x.to(dtype) if x.is_floating_point() else x for name, x in inputs.items()}
    leaf = cast[case.varied].clone().requires_grad_()
    loss: torch.Tensor = _TRAINERS[case.trainer](case, leaf, cast)
    loss.backward()
    assert leaf.grad is not None
    assert loss.dtype == leaf.grad.dtype == dtype
    return loss.detach(), leaf.grad


class _Model:
    """Answers as TRL's models with a fused head do: zeros at labels that are ignored."""

    training = False

    def __init__(self, logprobs: torch.Tensor) -> None:
        self._logprobs = logprobs

    def __call__(self, *, labels: torch.Tensor, **arguments: Any) -> SimpleNamespace:
        kept = labels[:, 1:] != -100
        nothing = torch.zeros_like(kept, dtype=self._logprobs.dtype)
        return SimpleNamespace(
            log_probs=torch.where(kept, self._logprobs[:, 1:], 0.0),
            label_mask=kept,
            entropy=nothing,
            mean_logits=nothing,
            is_top1=kept,
        )


def _trainer(name: str, **attributes: Any) -> Any:
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        is_main_process=True,
        parallelism_config=None,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
        autocast=contextlib.nullcontext,
    )
    made = object.__new__(getattr(import_module("trl"), name))
    metrics = {"eval": _Metrics(), "train": _Metrics()}
    shared = {"accelerator": accelerator, "_metrics": metrics, "aux_loss_enabled": False}
    shared |= {"model": _Model(torch.zeros(0)), "_total_train_tokens": 0, "_tp_size": 1}
    for key, value in {**shared, **attributes}.items():
        setattr(made, key, value)
    return made


class _Metrics(dict[str, list[float]]):
    def __missing__(self, key: str) -> list[float]:
        self[key] = []
        return self[key]


def _tokens(inputs: Tensors) -> torch.Tensor:
    return torch.ones_like(inputs["scored"])


def _sft(case: Case, leaf: torch.Tensor, inputs: Tensors) -> Any:
    args = SimpleNamespace(loss_type="nll", average_tokens_across_devices=False)
    trainer = _trainer("SFTTrainer", args=args, compute_loss_func=None, label_smoother=None)
    labels = _tokens(inputs).masked_fill(inputs["scored"] == 0, -100)
    batch = {"attention_mask": inputs["attended"], "labels": labels}
    return trainer.compute_loss(_Model(leaf), {"input_ids": _tokens(inputs), **batch})


def _reward(case: Case, leaf: torch.Tensor, inputs: Tensors) -> Any:
    args = SimpleNamespace(center_rewards_coefficient=case.settings.get("centering"))
    trainer = _trainer("RewardTrainer", args=args)
    batch = {"margin": inputs["margin"]} if case.settings.get("margin") else {}
    return trainer.compute_loss(lambda **_: SimpleNamespace(logits=leaf[:, None]), batch)


def _dpo(case: Case, leaf: torch.Tensor, inputs: Tensors) -> Any:
    trainer = _trainer(
        "DPOTrainer",
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        beta=case.settings["beta"],
        loss_types=[case.settings["loss_type"]],
        loss_weights=[1.0],
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        use_weighting=False,
        precompute_ref_logps=True,
    )
    sums = (inputs["reference"] * inputs["scored"]).sum(1)
    chosen, rejected = sums.chunk(2)
    batch = {
        "input_ids": _tokens(inputs),
        "attention_mask": inputs["attended"],
        "completion_mask": inputs["scored"],
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    return trainer._compute_loss(_Model(leaf), batch, False)


def _completions(inputs: Tensors) -> dict[str, Any]:
    """The first column as the prompt, the rest as the answer."""
    tokens, scored = _tokens(inputs), inputs["scored"]
    return {
        "prompt_ids": tokens[:, :1],
        "prompt_mask": torch.ones_like(tokens[:, :1]),
        "completion_ids": tokens[:, 1:],
        "completion_mask": scored[:, 1:],
        "advantages": inputs["advantages"],
    }


def _grpo(case: Case, leaf: torch.Tensor, inputs: Tensors) -> Any:
    args = SimpleNamespace(delta=None, use_bias_correction_kl=False)
    constants = {name: x for name, x in case.settings.items() if name != "count"}
    trainer = _trainer(
        "GRPOTrainer",
        args=args,
        importance_sampling_level="token",
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        **constants,
    )
    batch = {
        **_completions(inputs),
        "old_per_token_logps": inputs["old"][:, 1:],
        "ref_per_token_logps": inputs["reference"][:, 1:],
        "num_items_in_batch": torch.tensor(case.settings.get("count", 0)),
    }
    return trainer._compute_loss(_Model(leaf), batch)


def _rloo(case: Case, leaf: torch.Tensor, inputs: Tensors) -> Any:
    trainer = _trainer("RLOOTrainer", **case.settings)
    old = (inputs["old"] * inputs["scored"]).sum(1)
    return trainer._compute_loss(_Model(leaf), {**_completions(inputs), "old_logps": old})


_TRAINERS = {"sft": _sft, "reward": _reward, "dpo": _dpo, "grpo": _grpo, "rloo": _rloo}
