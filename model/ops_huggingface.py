"""The policy hf_bf16: PyTorch in bf16, rounded where transformers' eager Llama family rounds.

Every torch operation on bf16 tensors rounds its result, so most of `TorchOps` already does what
transformers does once `policy.compute` is bf16. Here are the operations where transformers leaves
bf16 or comes back to it elsewhere (transformers 5.23, models/llama/modeling_llama.py).
"""

from __future__ import annotations

import torch

from .config import ConfigError, ModelConfig
from .ops_torch import TorchOps


class HuggingFaceOps(TorchOps):
    """`TorchOps` with the norms and the softmax in fp32, rounded to bf16 at their end."""

    def rms_scale(self, x: torch.Tensor, eps: float) -> torch.Tensor:
        """fp32, as `LlamaRMSNorm` has it."""
        return (x.float().square().mean(-1, keepdim=True) + eps).sqrt()

    def normalize(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Rounded before the weight is applied, which rounds once more."""
        return self._round(x.float() / scale)

    def attention_pattern(self, scores_THK: torch.Tensor) -> torch.Tensor:
        return self._round(super().attention_pattern(scores_THK.float()))


def require_known_rounding(config: ModelConfig) -> None:
    """Raises ConfigError where transformers rounds norms in another way, and for soft caps."""
    if config.sandwich_norms:
        raise ConfigError(
            f'dtype = "hf_bf16": the rounding points of {config.architecture} are not known, only '
            'those of llama, mistral, qwen2 and qwen3; load with dtype="bf16"'
        )
    if config.attn_logit_softcap or config.final_logit_softcap:
        raise ConfigError(
            'dtype = "hf_bf16": the rounding points of soft caps are not known; load with '
            'dtype="bf16"'
        )
