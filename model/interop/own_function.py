"""Whether a transformers model in memory computes what its class and config say.

Tensor names: P positions, T rows, n outputs of a linear.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from ...precision.addresses import Site, UnobservedError
from ...precision.inputs import InputsError
from ...precision.meaning import meaning_differences
from ...precision.oracle import check
from ..config import ModelConfig
from ..ops.meaning import ConfigQuantities
from ..weights.checkpoint import CheckpointError
from .transformers_addresses import TransformersAddresses
from .transformers_structure import has_addresses, is_compiled

_POSITIONS, _COLUMNS = 8, 32


@torch.no_grad()
def require_own_function(model: Any, config: ModelConfig) -> None:
    """Raises CheckpointError where a pass over a few tokens computes something else, naming where.

    `config` is what bitlens read of its. Quantities derived from that are compared as meaning, then
    the operations outside the blocks and those of the first and last block are judged by their
    contracts, products by some columns.

    Not looked at are compiled models, models in training, which may draw random numbers, dtypes and
    architectures without addresses, and rotations by frequencies that `.to(dtype)` has rounded.
    """
    if not has_addresses(model) or model.training or any(map(is_compiled, model.modules())):
        return
    name = type(model).__name__
    peer = TransformersAddresses(model)
    tokens_P = torch.arange(_POSITIONS) % peer.config.d_vocab
    try:
        for difference in meaning_differences(ConfigQuantities(config), peer, tokens_P):
            raise CheckpointError(f"{name}: {difference}: that is not what its config says")
        _judge(peer, tokens_P, name)
    except UnobservedError as error:
        raise CheckpointError(f"{name}: {error}") from error


def _judge(peer: TransformersAddresses, tokens_P: torch.Tensor, name: str) -> None:
    ends = ("blocks.0.", f"blocks.{peer.config.n_layers - 1}.")
    with ExitStack() as stack:
        for address in peer.op_addresses:
            unknown = address.endswith(peer.unjudged)
            if (address.startswith("blocks.") and not address.startswith(ends)) or unknown:
                continue
            site = peer.site(address)
            stack.enter_context(peer.override(address, partial(_require_kept, site, name)))
        peer(tokens_P)


def _require_kept(
    site: Site, name: str, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    result = original(*args, **kwargs)
    inputs, y = site.bind(*args, **kwargs), site.view(result)
    if site.contract.op == "matmul" and y.ndim == 2:
        inputs["b"], y = inputs["b"][:, :_COLUMNS], y[:, :_COLUMNS]
        if inputs.get("bias") is not None:
            inputs["bias"] = inputs["bias"][:_COLUMNS]
    try:
        verdict = check(y, inputs, site.contract)
    except InputsError:  # an overflow, of which a contract says nothing
        return result
    if not verdict.ok:
        raise CheckpointError(
            f"{name}: its {site.address} computes something else than its class does: "
            f"{verdict.reason}; undo what changed it, or audit it as it is (bitlens.audit)"
        )
    return result
