"""The stepwise policy: PyTorch in bf16, rounded where transformers' eager models round.

Every torch operation on bf16 tensors rounds its result, so most of `TorchOps` already does what
transformers does once `policy.compute` is bf16. Here are the operations where transformers leaves
bf16 or comes back to it elsewhere (transformers 5.23, models/*/modeling_*.py).
"""

from __future__ import annotations

import torch
from torch import nn

from ...policies import STEPWISE
from ..config import ModelConfig
from ..config_error import ConfigError
from .torch_ops import TorchOps


class HuggingFaceOps(TorchOps):
    """`TorchOps` with the norms and the softmax in fp32, rounded to bf16 at their end."""

    _rounds_normalized: bool

    def adopt(self, config: ModelConfig) -> None:
        self._rounds_normalized = rounds_normalized(config)

    def vector(self, vector: torch.Tensor) -> torch.Tensor:
        """Keeps the vector's dtype: bf16, or fp32 where it is 1 + w."""
        return nn.Parameter(vector.to(self.device))

    def rms_scale(self, x: torch.Tensor, eps: float) -> torch.Tensor:
        """fp32, as transformers' norms have it."""
        return (x.float().square().mean(-1, keepdim=True) + eps).sqrt()

    def normalize(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Rounded before the weight is applied, which rounds once more; fp32 for Gemma."""
        normalized = x.float() / scale
        return self._round(normalized) if self._rounds_normalized else normalized

    def attention_pattern(self, scores_THK: torch.Tensor) -> torch.Tensor:
        return self._round(super().attention_pattern(scores_THK.float()))


def rounds_normalized(config: ModelConfig) -> bool:
    """Whether a norm rounds x / scale before it multiplies by the weight.

    `LlamaRMSNorm` does, whose weight is bf16; `Gemma3RMSNorm` multiplies by 1 + w in fp32 and
    rounds once. Raises ConfigError for an architecture whose rounding points are not stated.
    """
    if config.is_capped or config.sandwich_norms != config.multiplies_by_offset:
        what = config.architecture + (" with soft caps" if config.is_capped else "")
        raise ConfigError(
            f'dtype = "{STEPWISE}": where transformers rounds in {what} is not stated, '
            "only for llama, mistral, qwen2, qwen3 and gemma3 as transformers has them, without "
            'soft caps; load with dtype="bf16"'
        )
    return not config.multiplies_by_offset
