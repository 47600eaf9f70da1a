"""The architecture that models written for other compilers share: Llama, and Qwen 2's biases."""

from __future__ import annotations

import numpy as np

from ..config import ModelConfig
from ..rope.scaling import rotary_frequencies
from ..weights.checkpoint import Checkpoint


def require_plain(checkpoint: Checkpoint) -> None:
    """Raises ValueError naming what a model has that a plain Llama has not."""
    config = checkpoint.config
    extras = {
        "windows": any(layer.window is not None for layer in config.layers),
        "soft caps": config.is_capped,
        "norms of queries and keys": config.qk_norm,
        "sandwich norms": config.sandwich_norms,
        "an offset of its norms": config.multiplies_by_offset,
        "a scaled embedding": config.embed_scale != 1.0,
        f"the activation {config.act_fn}": config.act_fn != "silu",
        "RoPE that differs between layers": len({layer.rope for layer in config.layers}) > 1,
    }
    found = [name for name, has in extras.items() if has]
    if found:
        raise ValueError(
            f"{checkpoint.name}: this platform runs plain Llamas and Qwen 2; the model has "
            f"{', '.join(found)}"
        )


def rotation(config: ModelConfig, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns cos and sin, fp32 [n, d_head], computed as transformers does: angles in fp32."""
    layer = config.layers[0]
    found = rotary_frequencies(layer.rope_theta, config.d_head, layer.rope_scaling, n)
    inv_freq = np.asarray(found.inv_freq, dtype=np.float32)
    angles = np.arange(n, dtype=np.float32)[:, None] * inv_freq[None]
    angles = np.concatenate([angles, angles], axis=-1)
    factor = np.float32(found.attention_factor)
    return np.cos(angles) * factor, np.sin(angles) * factor


def dense(checkpoint: Checkpoint, name: str) -> np.ndarray:
    """Returns a weight in fp32: vectors and the embedding as stored, matrices as [in, out]."""
    if len(checkpoint.reader.shapes[name]) == 1:
        return checkpoint.vector(name).float().numpy()
    array = checkpoint.matrix(name).dequantize().float().numpy()
    return array if name == "embed.weight" else np.ascontiguousarray(array.T)
