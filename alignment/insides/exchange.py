"""A prompt and an answer as the tokens that a model is given."""

from __future__ import annotations

from ...interp.probes.reading import tokenizer_of
from ...model.text.prompts import prompt_rows
from ...model.transformer import HookedTransformer
from ..revision.targets import as_prompt


def exchange_ids(model: HookedTransformer, prompt: str, said: str) -> tuple[list[int], list[int]]:
    """Returns the tokens of a prompt, in chat form where the model has one, and of an answer.

    Raises ValueError for a model without a tokenizer.
    """
    tokenizer = tokenizer_of(model)
    chat = tokenizer.chat_template is not None
    asked = as_prompt(prompt if chat else f"{prompt}\n", chat)
    (ids,) = prompt_rows(asked, tokenizer, None, None)
    return list(ids), tokenizer.encode(said)
