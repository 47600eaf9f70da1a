"""Drawings of what people look at first, each an object that a notebook shows.

    from bitlens.interp import show
    show.pattern(cache["pattern", 5], model.to_str_tokens(prompt))
    show.logit_lens(model, prompt)
    show.attribution(model, prompt, " France", " Italy")
    show.heatmap(patched, rows=tokens, columns=layers)
    show.tokens(model.to_str_tokens(prompt), losses)

They are HTML without a script, in the notebook's own colours; `save` writes them to a file.
"""

from .attention import pattern
from .attribution import attribution
from .drawing import Drawing
from .heat import heatmap
from .lens import logit_lens
from .strip import tokens

__all__ = ["Drawing", "attribution", "heatmap", "logit_lens", "pattern", "tokens"]
