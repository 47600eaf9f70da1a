"""A dictionary's operations by address, in terms of their precision contracts.

"encode" is the product that decides which features are active (of a gated SAE, without its two
biases; before a rescaling by decoder norms), "decode" the sum of decoder rows.

Shapes: N rows, F features, d width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch

from ..._core import numerics_version
from ...precision.addresses import Site
from ...precision.contracts import bitlens_contract
from .encoder import Weights
from .features import Features

ADDRESSES = ("encode", "decode")


class Decodes(Weights, Protocol):
    """A dictionary, as far as its sites need it."""

    def decoder_rows(self) -> torch.Tensor: ...


def site_of(dictionary: Decodes, address: str) -> Site:
    """Returns the site at one of `ADDRESSES`.

    Its contract is that of fp32 products: in leaves of 256 for "encode"; in any order for "decode",
    whose leaves count active features alone.
    """
    contract = bitlens_contract("matmul", "fp32")
    if address == "decode":
        contract = replace(contract, order="any")

    def bind_encode(x_Nd: torch.Tensor) -> dict[str, Any]:
        inputs = {"a": x_Nd.detach(), "b": dictionary.W_enc.detach().float()}
        gated = dictionary.cfg.architecture == "gated"
        return inputs if gated else inputs | {"bias": dictionary.b_enc.detach()}

    def bind_decode(features: Features) -> dict[str, Any]:
        acts_NF = features.dense().reshape(features.n_rows, -1)
        return {"a": acts_NF, "b": dictionary.decoder_rows(), "bias": dictionary.b_dec.detach()}

    bind = bind_encode if address == "encode" else bind_decode
    return Site(
        address,
        contract,
        f"bitlens dictionary {numerics_version}",
        bind=bind,
        operands=lambda given: (bind(given)["a"],),
        view=lambda y: y,
        restore=lambda y, like: y.to(like.dtype),
    )
