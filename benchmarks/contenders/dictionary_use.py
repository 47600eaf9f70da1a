"""A TopK SAE in use: rows encoded and decoded by bitlens, and by SAELens, with the same weights."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ... import set_num_threads
from .timing import Clock, seconds_per_call


def weights(d: int, d_sae: int) -> dict[str, torch.Tensor]:
    """Random weights of a TopK SAE, W_dec with rows of norm 1."""
    w_dec = torch.nn.functional.normalize(
        torch.randn(d_sae, d, generator=torch.Generator().manual_seed(0)), dim=1
    )
    return {
        "W_enc": w_dec.T.contiguous(),
        "W_dec": w_dec,
        "b_enc": torch.zeros(d_sae),
        "b_dec": torch.zeros(d),
    }


def rows(batch: int, d: int) -> torch.Tensor:
    """The same rows for everyone, fp32 [batch, d]."""
    return torch.randn(batch, d, generator=torch.Generator().manual_seed(1))


class BitlensDictionary:
    """Features are kept sparse between the two."""

    def __init__(self, threads: int, d: int, d_sae: int, k: int) -> None:
        from ...interp.dictionaries import Dictionary, DictionaryConfig

        torch.set_num_threads(threads)
        set_num_threads(threads)
        cfg = DictionaryConfig(
            architecture="topk", d_in=d, d_sae=d_sae, d_out=d, k=k, hook_name="x", hook_name_out="x"
        )
        self._sae, self._d = Dictionary(cfg, weights(d, d_sae)), d

    def both(self, batch: int, at_least: float, clock: Clock) -> dict[str, float]:
        """Seconds of encoding and decoding."""
        x = rows(batch, self._d)
        return _timed(lambda: self._sae.decode(self._sae.encode_sparse(x)), at_least, clock)

    def decode(self, batch: int, at_least: float, clock: Clock) -> dict[str, float]:
        """Seconds of decoding alone."""
        features = self._sae.encode_sparse(rows(batch, self._d))
        return _timed(lambda: self._sae.decode(features), at_least, clock)


class SAELensDictionary:
    """Its `TopKSAE`, whose features are a dense matrix."""

    def __init__(self, threads: int, d: int, d_sae: int, k: int) -> None:
        from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

        torch.set_num_threads(threads)
        self._sae, self._d = TopKSAE(TopKSAEConfig(d_in=d, d_sae=d_sae, k=k)), d
        self._sae.load_state_dict(weights(d, d_sae))

    def both(self, batch: int, at_least: float, clock: Clock) -> dict[str, float]:
        """Seconds of encoding and decoding."""
        x = rows(batch, self._d)
        return _timed(lambda: self._sae.decode(self._sae.encode(x)), at_least, clock)

    def decode(self, batch: int, at_least: float, clock: Clock) -> dict[str, float]:
        """Seconds of decoding alone."""
        with torch.no_grad():
            features = self._sae.encode(rows(batch, self._d))
        return _timed(lambda: self._sae.decode(features), at_least, clock)


def _timed(call: Callable[[], object], at_least: float, clock: Clock) -> dict[str, float]:
    with torch.no_grad():
        return {"seconds": seconds_per_call(call, at_least, clock)}
