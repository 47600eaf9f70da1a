"""Every operation of a transformer in terms of its precision contract (precision/addresses.py).

Tensor names: T ragged rows, H heads, G key/value heads, h d_head, d d_model, n outputs of a linear,
k its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, TypeVar

import torch

from ..._core import numerics_version
from ...precision.addresses import Site
from ...precision.contract import PrecisionContract
from ...precision.contracts import bitlens_contract
from ..batch import RaggedBatch
from ..cache.kv_cache import LayerCache
from ..config import ModelConfig
from ..rope.scaling import RopeScaling, rotary_frequencies
from .interface import Ops
from .packed import PackedWeight
from .policy import Policy

T = TypeVar("T")
Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class SiteKind:
    """One kind of operation, as every address that has it is put in terms of its contract.

    Attributes:
        name: The contract's operation where it is that alone; else what it is to a transformer.
        op: The contract's operation, whose axes say how inputs are sampled and shrunk. A product
            with a scale and a sum of two are dot products of length one and two.
        addresses: The last parts of its addresses.
        bind: Called with the policy and the operation's own arguments; returns contract inputs.
        operands: Called with the operation's own arguments; returns the activations among them.
        view: Takes what it returns; returns that shaped as the contract's output.
        restore: The inverse of `view`, in the form of a result.
    """

    name: str
    op: str
    addresses: tuple[str, ...]
    bind: Callable[..., dict[str, Any]]
    operands: Callable[..., Tensors]
    view: Callable[[Any], torch.Tensor]
    restore: Callable[[torch.Tensor, Any], Any]


def operation_at(address: str) -> str:
    """The kind of operation at an address that is one."""
    return _AT[address.rpartition(".")[2]].name


def op_site(ops: Ops, config: ModelConfig, address: str) -> Site:
    """The site of one of the addresses of a model that runs on `ops`.

    Binding raises NotImplementedError for a model spread over a group, ValueError for attention of
    several sequences (an oracle takes one) and for an operation of which a hook edited the inside.
    """
    kind = _AT[address.rpartition(".")[2]]
    policy = ops.policy
    op = "unembed" if address == "unembed" else kind.op
    on_stream = kind.name in ("embedding", "add") and policy.residual is torch.float32
    contract = _contract(op, "fp32" if on_stream else policy.name, not ops.differentiable)
    if kind.name == "rms_norm" and config.multiplies_by_offset:
        contract = replace(contract, casts=("output",))
    site = Site(
        address,
        contract,
        f"bitlens {ops.arithmetic} {numerics_version}",
        bind=partial(kind.bind, policy),
        operands=kind.operands,
        view=kind.view,
        restore=kind.restore,
    )
    return site if ops.device.type == "cpu" else judged_on_cpu(site, ops.device)


def judged_on_cpu(site: Site, device: torch.device) -> Site:
    """Returns the site of an operation that runs on a device, with all that contracts are given on
    the CPU; what is restored goes back."""

    def near(fn: Callable[..., T]) -> Callable[..., T]:
        def called(*args: Any, **kwargs: Any) -> T:
            return fn(*map(_near, args), **{name: _near(x) for name, x in kwargs.items()})

        return called

    def bind(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: _near(x) for name, x in near(site.bind)(*args, **kwargs).items()}

    def operands(*args: Any, **kwargs: Any) -> Tensors:
        assert site.operands is not None
        return tuple(map(_near, near(site.operands)(*args, **kwargs)))

    def restore(y: torch.Tensor, like: Any) -> Any:
        return site.restore(y.to(device), like)

    return replace(site, bind=bind, operands=operands, view=near(site.view), restore=restore)


def _near(x: Any) -> Any:
    return x.cpu() if isinstance(x, torch.Tensor) else x


@cache
def _contract(op: str, policy: str, native: bool) -> PrecisionContract:
    if policy == "fp64":
        op = "matmul" if op == "unembed" else op
        return PrecisionContract(op, storage="fp64", compute="fp64", accumulate="fp64")
    contract = bitlens_contract(op, policy)
    # The torch backend sums in whatever order torch does.
    return contract if native else replace(contract, order="any")


# Shapes


def rows(x: torch.Tensor) -> torch.Tensor:
    """[..., n] as [T, n]."""
    return x.reshape(-1, x.shape[-1])


def _terms(x: torch.Tensor) -> torch.Tensor:
    """[..., d] as [T, d, 1]: every element the result of a dot product of its own."""
    return rows(x)[..., None]


def _heads(x_THh: torch.Tensor) -> torch.Tensor:
    return x_THh.transpose(0, 1)


def as_rows(y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The inverse of `rows`, in the form of `like`."""
    return y.reshape(like.shape).to(like.dtype)


def _as_heads(y_HTh: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return y_HTh.transpose(0, 1).to(like.dtype).contiguous()


# The operations' own arguments (model/ops/interface.py) as the contract's inputs


def _bind_embedding(
    policy: Policy, tokens_T: torch.Tensor, weight: Any, scale: float
) -> dict[str, Any]:
    ids, at = torch.unique(tokens_T, return_inverse=True)
    if isinstance(weight, PackedWeight):
        found = torch.cat([weight.rows(i, i + 1) for i in ids.tolist()])
    else:
        found = _matrix(weight, policy)[ids]
    picked_Td = found.to(policy.weight)[at]
    factor = torch.tensor([[scale]], dtype=torch.float32, device=picked_Td.device)
    return {"a": picked_Td[..., None], "b": factor}


def _bind_linear(
    policy: Policy,
    x: torch.Tensor,
    weight: Any,
    bias: torch.Tensor | None = None,
    *,
    out_dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    inputs = {"a": x, "b": _matrix(weight, policy).T}
    return inputs if bias is None else inputs | {"bias": bias.detach()}


def _matrix(weight: Any, policy: Policy) -> torch.Tensor:
    """[n, k] as the kernel reads it; in the policy's format, which holds it exactly."""
    if isinstance(weight, PackedWeight):
        return weight.rows().to(policy.weight)
    if isinstance(weight, torch.Tensor):
        return weight.detach()
    raise NotImplementedError(
        f"a {type(weight).__name__} is spread over a group: load the model without one"
    )


def bind_add(x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """x + y as a dot product with ones."""
    terms = torch.stack([rows(x), rows(y)], dim=-1)
    return {"a": terms, "b": terms.new_ones(2, 1)}


def _bind_norm(
    policy: Policy, x: torch.Tensor, weight: torch.Tensor, eps: float | None = None
) -> dict[str, Any]:
    if eps is None:
        raise ValueError("a hook edited the inside of this norm: no whole one is left to bind")
    return {"x": rows(x), "weight": weight.detach(), "eps": eps}


def _bind_rope(
    policy: Policy,
    x_THh: torch.Tensor,
    positions_T: torch.Tensor,
    theta: float,
    scaling: RopeScaling | None = None,
) -> dict[str, Any]:
    if scaling is None:
        return {"x": _heads(x_THh), "positions": positions_T, "theta": theta}
    n_positions = int(positions_T.max()) + 1
    found = rotary_frequencies(theta, x_THh.shape[-1], scaling, n_positions)
    given = {"inv_freq": found.inv_freq, "attention_factor": found.attention_factor}
    return {"x": _heads(x_THh), "positions": positions_T, **given}


def _bind_attention(
    policy: Policy,
    q_THh: torch.Tensor,
    cache: LayerCache,
    batch: RaggedBatch,
    *,
    scale: float | None = None,
    cap: float | None = None,
    window: int | None,
) -> dict[str, Any]:
    if scale is None:
        raise ValueError("a hook edited the inside of this attention: no whole one is left to bind")
    if batch.size != 1:
        raise ValueError(f"attention of {batch.size} sequences: its contract takes one at a time")
    q, k, v = _attention_operands(q_THh, cache, batch)
    inputs = {"q": q, "k": k, "v": v, "scale": scale, "causal": True, "past": batch.past[0]}
    inputs |= {} if cap is None else {"cap": cap}
    return inputs if window is None else inputs | {"window": window}


def _attention_operands(
    q_THh: torch.Tensor, cache: LayerCache, batch: RaggedBatch, **options: Any
) -> Tensors:
    pairs = [cache.gather(b, total) for b, total in enumerate(batch.totals)]
    k, v = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return _heads(q_THh.detach()), _heads(k), _heads(v)


KINDS: Mapping[str, SiteKind] = {
    kind.name: kind
    for kind in (
        SiteKind(
            "embedding", "matmul", ("embed",), _bind_embedding, lambda *_: (), _terms, as_rows
        ),
        SiteKind(
            "linear",
            "matmul",
            ("unembed", "q", "k", "v", "o", "gate", "up", "down"),
            _bind_linear,
            lambda x, *_, **__: (rows(x.detach()),),
            rows,
            as_rows,
        ),
        SiteKind(
            "add",
            "matmul",
            ("resid_mid", "resid_post"),
            lambda _, x, y: bind_add(x, y),
            lambda x, y: (rows(x.detach()), rows(y.detach())),
            _terms,
            as_rows,
        ),
        SiteKind(
            "rms_norm",
            "rms_norm",
            ("ln_final", "ln1", "ln2", "ln1_post", "ln2_post", "q_norm", "k_norm"),
            _bind_norm,
            lambda x, *_: (rows(x.detach()),),
            rows,
            as_rows,
        ),
        SiteKind(
            "rope",
            "rope",
            ("rope_q", "rope_k"),
            _bind_rope,
            lambda x, *_: (_heads(x.detach()),),
            _heads,
            _as_heads,
        ),
        SiteKind(
            "attention",
            "attention",
            ("attention",),
            _bind_attention,
            _attention_operands,
            _heads,
            _as_heads,
        ),
        SiteKind(
            "soft_cap",
            "soft_cap",
            ("soft_cap",),
            lambda _, x, cap: {"x": rows(x), "cap": cap},
            lambda x, _: (rows(x.detach()),),
            rows,
            as_rows,
        ),
        SiteKind(
            "swiglu",
            "swiglu",
            ("act",),
            lambda _, kind, gate, up: {"gate": gate, "up": up, "activation": kind},
            lambda _, gate, up: (gate.detach(), up.detach()),
            rows,
            as_rows,
        ),
    )
}
"""Every kind of operation by name."""

_AT = {address: kind for kind in KINDS.values() for address in kind.addresses}
