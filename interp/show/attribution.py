"""Direct logit attribution: which component wrote the answer.

Tensor names: S components, L layers, H heads.
"""

from __future__ import annotations

import torch

from ...model.transformer import HookedTransformer
from ...precision import notebook
from .drawing import Drawing
from .heat import heat_table

_SHOWN = 12


def attribution(
    model: HookedTransformer,
    prompt: str,
    answer: str,
    wrong: str | None = None,
    *,
    position: int = -1,
) -> Drawing:
    """Returns what the embedding, every sublayer and every head add to a token's logit.

    Each component's part of the residual stream, divided by the final norm's scale, times the
    token's column of the unembedding. The components add up to the logit, but for roundings; the
    heads are parts of their sublayers.

    Args:
        answer: One token, such as " France".
        wrong: Attribute the difference to this token's logit instead; None attributes the logit.
        position: After which token.

    Raises ValueError for text that is not one token.
    """
    with torch.no_grad():
        names = _needed(model.config.n_layers)
        _, cache = model.run_with_cache(prompt, names_filter=names, return_type=None)
        one = (position, position + 1 or None)
        stack, labels = cache.decompose_resid(pos_slice=one, return_labels=True)
        heads = cache.stack_head_results(pos_slice=one)
        parts_S, heads_S = (
            cache.logit_attrs(each, answer, wrong, pos_slice=one).flatten()
            for each in (stack, heads)
        )
    total = float(parts_S.sum())
    what = f"{answer!r}" if wrong is None else f"{answer!r} over {wrong!r}"
    order = parts_S.abs().argsort(descending=True, stable=True)[:_SHOWN].tolist()
    n_heads = len(heads_S) // model.config.n_layers
    grid = heads_S.view(-1, n_heads)
    return Drawing(
        f"Direct attribution of {what}: {total:.3f}",
        notebook.line(f"The {len(order)} largest of {len(labels)} components", "soft")
        + heat_table(parts_S[order][:, None], [labels[i] for i in order], ["adds"])
        + notebook.line("Heads, by layer", "soft")
        + heat_table(grid, None, [f"head {i}" for i in range(n_heads)]),
    )


def _needed(n_layers: int) -> list[str]:
    inside = ("hook_attn_out", "hook_mlp_out", "attn.hook_z")
    names = [f"blocks.{i}.{name}" for i in range(n_layers) for name in inside]
    last = f"blocks.{n_layers - 1}.hook_resid_post"
    return ["hook_embed", *names, last, "ln_final.hook_scale"]
