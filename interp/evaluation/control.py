"""A control: a dictionary of random directions that is as sparse as a trained one."""

from __future__ import annotations

import torch

from ..dictionaries import Dictionary, kernels


def random_dictionary(
    dictionary: Dictionary, seed: int, *, rows: torch.Tensor | None = None
) -> Dictionary:
    """Returns a dictionary of the same architecture, size and L0 whose features mean nothing.

    Directions are random unit vectors. An SAE's encoder is its decoder's transpose, so that each
    feature measures the direction that it writes; a transcoder's are drawn apart, and its skip map
    is 0. `b_dec` is the original's, so the control starts from the same mean. What a trained
    dictionary is better by is in its directions.

    Args:
        rows: Activations [N, d_in] of the hook. Top-k architectures need none. Others need some:
            each feature's bias is set so that it is active in as many of them as the original's.

    Raises:
        ValueError: an architecture that needs rows, without them.
    """
    cfg = dictionary.cfg
    if rows is None and not cfg.selects_top_k:
        raise ValueError(
            f"random_dictionary: {cfg.architecture} needs rows of {cfg.hook_name}, on which its "
            "features are made as frequent as the original's"
        )
    generator = torch.Generator().manual_seed(seed)
    W_dec = _unit_rows(cfg.d_sae, cfg.d_out, generator)
    W_enc = _unit_rows(cfg.d_sae, cfg.d_in, generator) if cfg.is_transcoder else W_dec
    zeros = torch.zeros(cfg.d_sae, dtype=torch.float32, device="cpu")
    tensors = {"W_enc": W_enc.T.contiguous(), "W_dec": W_dec, "b_dec": dictionary.b_dec.detach()}
    bias = zeros if cfg.selects_top_k or rows is None else _biases(dictionary, W_enc, rows)
    if cfg.architecture == "gated":
        tensors |= {"b_gate": bias, "b_mag": bias, "r_mag": zeros}
    else:
        tensors["b_enc"] = bias
    if cfg.has_threshold:
        tensors["threshold"] = zeros
    if cfg.has_skip:
        tensors["W_skip"] = torch.zeros(cfg.d_out, cfg.d_in, dtype=torch.float32, device="cpu")
    return Dictionary(cfg, {name: x.clone() for name, x in tensors.items()})


def _biases(dictionary: Dictionary, W_enc: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Biases with which a random feature is positive as often as the original's is active."""
    rows = rows.detach().reshape(-1, dictionary.cfg.d_in).float()
    active = torch.bincount(
        dictionary.encode_sparse(rows).indices.long(), minlength=dictionary.cfg.d_sae
    )
    x = rows - dictionary.b_dec.detach() if dictionary.cfg.apply_b_dec_to_input else rows
    biases = torch.empty(dictionary.cfg.d_sae, dtype=torch.float32, device="cpu")
    for at in range(0, dictionary.cfg.d_sae, 1024):  # whose pre-activations are sorted at once
        descending = kernels.dense(x, W_enc[at : at + 1024], None).sort(0, descending=True).values
        # As high as the first one that stays silent; above all where the original is silent.
        n = active[at : at + 1024].clamp(max=len(rows) - 1)
        biases[at : at + 1024] = -descending.gather(0, n[None])[0]
    return biases


def _unit_rows(n: int, d: int, generator: torch.Generator) -> torch.Tensor:
    rows = torch.randn(n, d, generator=generator, dtype=torch.float32, device="cpu")
    kernels.unit_rows_(rows)
    return rows
