"""The meaning that a transformers model's code gave its config, as a pass shows it.

Tensor names: B batch, P positions, K keys, h d_head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...precision.meaning import Quantities, Quantity
from ..config import LayerConfig, ModelConfig
from ..ops.meaning import (
    BASE_ERROR,
    SCALED_FREQUENCIES,
    U32,
    UNTIED,
    add,
    config_quantities,
    frequency_error,
    positions_text,
    rope_quantities,
)
from ..rope.scaling import Frequencies, rotary_frequencies
from .transformers_calls import SDPA, Call
from .transformers_sites import rotary_buffer
from .transformers_structure import modules_by_address
from .transformers_units import Watch

Arguments = Mapping[str, Any]
"""An attention module's own, by name."""

_SDPA_ARGUMENTS = (
    "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"
)  # fmt: skip


def observed_quantities(
    model: Any, config: ModelConfig, watch: Watch, n_positions: int
) -> Quantities:
    """Returns the config's quantities, but for those that the model's modules hold otherwise and
    those that its attention modules, or torch's sdpa within them, were called with otherwise."""
    found = {name: dict(of) for name, of in config_quantities(config, n_positions).items()}
    modules = modules_by_address(model)
    coarse = 2.0**-8 if model.dtype is torch.bfloat16 else 2 * U32
    scale = getattr(modules["embed"], "embed_scale", 1.0)
    add(found, "embed", {"embedding scale": Quantity(float(scale), coarse)})
    for address in found["norm epsilon"]:
        eps = getattr(modules[address], "variance_epsilon", getattr(modules[address], "eps", None))
        if eps is not None:
            add(found, address, {"norm epsilon": Quantity(float(eps), 2 * U32)})
    if config.tie_embeddings and not _is_tied(model):
        add(found, "unembed", {"unembedding": Quantity(UNTIED)})
    for i, layer in enumerate(model.model.layers):
        a, scaling = f"blocks.{i}.attn", getattr(layer.self_attn, "scaling", None)
        if scaling is not None:
            add(found, f"{a}.attention", {"attention scale": Quantity(float(scaling), 4 * U32)})
        arguments = watch.arguments.get(a, {})
        _add_arguments(found, a, config.layers[i], arguments, model.model.rotary_emb)
        call = watch.calls.get(a)
        if call is not None and call.name == SDPA:
            add(found, f"{a}.attention", _sdpa(call, config.layers[i].window))
    return found


def _is_tied(model: Any) -> bool:
    head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
    return head is embedding or torch.equal(head, embedding)


def _add_arguments(
    found: dict[str, dict[str, Quantity]],
    a: str,
    layer: LayerConfig,
    arguments: Arguments,
    rotary: Any,
) -> None:
    tables = arguments.get("position_embeddings")
    if isinstance(tables, tuple) and len(tables) == 2:
        positions = _positions(arguments, tables[0])
        quantities = _rope(layer, *tables, rotary, positions)
        for address in (f"{a}.rope_q", f"{a}.rope_k"):
            for name in ("RoPE base", "RoPE frequencies"):
                found.get(name, {}).pop(address, None)
            add(found, address, quantities)
    mask = arguments.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.ndim == 4:
        seen = mask[0, 0] if mask.dtype is torch.bool else mask[0, 0] == 0
        add(found, f"{a}.attention", _mask(seen.cpu(), layer.window))


def _sdpa(call: Call, window: int | None) -> dict[str, Quantity]:
    """The scale and the mask that it was given."""
    given = dict(zip(_SDPA_ARGUMENTS, call.args, strict=False)) | dict(call.kwargs)
    scale = given.get("scale")
    used = call.queries.shape[-1] ** -0.5 if scale is None else float(scale)
    found = {"attention scale": Quantity(used, 4 * U32)}
    n, n_keys, mask = call.queries.shape[2], call.keys.shape[2], given.get("attn_mask")
    if isinstance(mask, torch.Tensor):
        shown = mask.broadcast_to(*mask.shape[:-2], n, n_keys)[(0,) * (mask.ndim - 2)]
        seen = shown if shown.dtype is torch.bool else shown == 0
    else:
        seen = torch.ones(n, n_keys, dtype=torch.bool)
        seen = seen.tril() if given.get("is_causal") else seen
    return found | ({} if n_keys == 1 else _mask(seen.cpu(), window))


def _positions(arguments: Arguments, cos_BPh: torch.Tensor) -> torch.Tensor:
    given = arguments.get("position_ids")
    if isinstance(given, torch.Tensor) and given.ndim == 2:
        return given[0].cpu()
    return torch.arange(cos_BPh.shape[1])


def _mask(seen_PK: torch.Tensor, window: int | None) -> dict[str, Quantity]:
    """The window that a mask is causal with, by its last row; or where it is not causal."""
    n, n_keys = seen_PK.shape
    distance = torch.arange(n_keys - n, n_keys)[:, None] - torch.arange(n_keys)
    widest = int(distance[seen_PK].max()) + 1 if bool(seen_PK.any()) else 0
    causal = distance >= 0
    if torch.equal(seen_PK, causal & (distance < widest)):
        reaches_all = widest >= n_keys
        same = reaches_all and (window is None or window >= n_keys)
        return {} if same else {"attention window": Quantity(None if reaches_all else widest)}
    expected = causal if window is None else causal & (distance < window)
    wrong = (seen_PK != expected).nonzero()[0].tolist()
    verb = "sees" if bool(seen_PK[tuple(wrong)]) else "does not see"
    return {"attention mask": Quantity(f"one where query {wrong[0]} {verb} key {wrong[1]}")}


def _rope(
    layer: LayerConfig,
    cos_BPh: torch.Tensor,
    sin_BPh: torch.Tensor,
    rotary: Any,
    positions_P: torch.Tensor,
) -> dict[str, Quantity]:
    """The config's frequencies where the tables are of these; else those they are of."""
    shown = {"positions": Quantity(positions_text(positions_P.tolist()))}
    cos, sin = (t[0, :, : t.shape[-1] // 2].detach() for t in (cos_BPh, sin_BPh))
    n, half = cos.shape
    declared = rotary_frequencies(layer.rope_theta, 2 * half, layer.rope_scaling, n)
    off = frequency_error(layer) if layer.rope_scaling is None else SCALED_FREQUENCIES
    where = _gap(declared, off, positions_P, cos, sin)
    if where is None:
        return rope_quantities(layer, 2 * half, n) | shown
    buffer = rotary_buffer(rotary, layer.window)
    held = tuple(buffer.double().tolist())
    factor = float(torch.hypot(cos.double(), sin.double()).mean())
    if len(held) == half:
        of = Frequencies(held, factor)
        if _gap(of, 4 * U32, positions_P, cos, sin) is None:
            return _named(of, stored_rounding(buffer)) | shown
    text = f"none that gives cos {float(cos[where]):.4g} at {where[0]}, pair {where[1]}"
    return shown | {"RoPE frequencies": Quantity(text)}


def _gap(
    of: Frequencies, off: float, positions_P: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[int, int] | None:
    """Where the tables are farther from these frequencies' than rounding explains; None: nowhere.

    `off` is the frequencies' own relative error; angles, cos and sin are formed in fp32, then
    stored in the tables' dtype.
    """
    inv_freq = torch.tensor(of.inv_freq, dtype=torch.float64)
    angle = positions_P.double()[:, None] * inv_freq
    stored = torch.finfo(cos.dtype).eps / 2
    allowed = of.attention_factor * (angle * (off + 2 * U32) + 8 * U32 + 1.01 * stored)
    gaps = (
        (table.double() - f(angle) * of.attention_factor).abs()
        for table, f in ((cos, torch.cos), (sin, torch.sin))
    )
    beyond = torch.maximum(*gaps) - allowed
    at = int(beyond.argmax())
    wrong = not bool((beyond <= 0).all())
    return (at // beyond.shape[1], at % beyond.shape[1]) if wrong else None


def stored_rounding(x: torch.Tensor) -> float:
    """The spacing of the 16-bit format whose numbers these all are, as `.to(dtype)` leaves them,
    there and back; 0 where they are of none."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(x.to(dtype).to(x.dtype), x):
            return torch.finfo(dtype).eps
    return 0.0


def _named(of: Frequencies, stored: float) -> dict[str, Quantity]:
    """With a base where the frequencies are powers of one. Those that `.to(dtype)` has rounded are
    that much off: a matter of precision, not of meaning."""
    inv_freq, half = of.inv_freq, len(of.inv_freq)
    found = {
        "RoPE attention factor": Quantity(of.attention_factor, 2.0**-8),
        "RoPE frequencies": Quantity(inv_freq, max(BASE_ERROR, stored), unless="RoPE base"),
    }
    if half > 1 and 0 < inv_freq[-1] < 1:
        base = inv_freq[-1] ** (-half / (half - 1))
        powers = [base ** (-j / half) for j in range(half)]
        if all(abs(f - p) <= BASE_ERROR * p for f, p in zip(inv_freq, powers, strict=True)):
            return found | {"RoPE base": Quantity(base, BASE_ERROR)}
    return found
