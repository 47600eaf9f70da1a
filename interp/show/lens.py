"""The logit lens, drawn."""

from __future__ import annotations

from ...model.transformer import HookedTransformer
from ...precision import notebook
from ..lenses import LogitLens, read_lens
from .drawing import Drawing


def logit_lens(
    model: HookedTransformer, prompt: str, *, every: int = 1, lens: LogitLens | None = None
) -> Drawing:
    """Returns what each layer would say after each token: the last layer on top, the darker, the
    more probable; bold where it is what the model says in the end.

    Args:
        every: Draw every so many layers; the last one is always drawn.
        lens: Another lens, a `JacobianLens` or `TunedLens`; None takes the plain one.

    Raises ValueError for a model without tokenizer.
    """
    if model.tokenizer is None:
        raise ValueError("logit_lens: this model was loaded without a tokenizer")
    lens = lens or LogitLens(model)
    found = read_lens(lens, prompt, n_tokens=1)
    last = len(found.tokens) - 1
    head = "".join(f"<th>{notebook.visible(token)}</th>" for token in model.to_str_tokens(prompt))
    body = []
    for layer in range(last, -1, -1):
        if layer != last and (last - layer) % every:
            continue
        ids = found.tokens[layer, :, 0]
        strings = model.tokenizer.token_strings(ids.tolist())
        same = (ids == found.tokens[last, :, 0]).tolist()
        cells = "".join(
            f'<td title="{p:.1%}" style="{notebook.heat(0.8 * p)}'
            f'{"; font-weight: 700" if bold else ""}">{notebook.visible(token)}</td>'
            for token, p, bold in zip(
                strings, found.probabilities[layer, :, 0].tolist(), same, strict=True
            )
        )
        body.append(f'<tr><th scope="row">{layer}</th>{cells}</tr>')
    return Drawing(
        lens.title,
        f'<div class="scroll"><table class="heat"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>",
    )
