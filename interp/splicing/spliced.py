"""The model inside a `splice` block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...model.hooks.registry import HookRegistry, Hooks
from ...model.hooks.spliced_model import SplicedModel
from ...model.transformer import HookedTransformer
from ..dictionaries import Dictionary
from .at_hook import DictionaryAtHook
from .inner_hooks import inner_has_gradient


class Spliced(SplicedModel):
    """A model with dictionaries in it, for the length of a `splice` block.

    Its methods are the model's. Those that run it know the hook points inside the dictionaries,
    too: `<hook that is written>.hook_sae_input`, `hook_sae_acts_pre` (not of gated SAEs),
    `hook_sae_acts_post`, `hook_sae_recons`, `hook_sae_error` and `hook_sae_output`. Functions may
    read them all, and edit acts_post and output.

    Attributes:
        model: The model, in which the same dictionaries run.
    """

    def __init__(
        self, model: HookedTransformer, places: Sequence[DictionaryAtHook], inner: HookRegistry
    ) -> None:
        super().__init__(model)
        self._places = tuple(places)
        self._inner = inner
        self._ended = False

    @property
    def dictionaries(self) -> dict[str, Dictionary]:
        """The dictionaries by the hook that each writes."""
        return {at.dictionary.cfg.hook_name_out: at.dictionary for at in self._places}

    @property
    def n_encoded(self) -> dict[str, int]:
        """Rows that each dictionary has encoded in this block, by the hook that it writes."""
        return {at.dictionary.cfg.hook_name_out: at.n_encoded for at in self._places}

    @property
    def inner_names(self) -> list[str]:
        """The hook points inside the dictionaries."""
        return list(self._inner.points)

    def inner_has_gradient(self, name: str) -> bool:
        """Returns whether gradients flow through an inner hook point."""
        return inner_has_gradient(name)

    @contextmanager
    def spliced(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> Iterator[None]:
        """Installs functions at inner hook points; the dictionaries are in already.

        Raises ValueError once the `splice` block has ended.
        """
        if self._ended:
            raise ValueError("this splice has ended; run the model inside its `with` block")
        with self._inner.added(fwd_hooks, bwd_hooks):
            yield

    _stand = spliced  # the model itself runs them, too

    def end(self) -> None:
        """Ends it: from now on its methods that run the model raise."""
        self._ended = True
