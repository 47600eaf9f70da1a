"""A bitlens model as SAELens 6 wants one: its activation store, its evaluator, SAEs spliced in.

    from bitlens.model.interop.sae_lens_model import SAELensModel
    model = SAELensModel(bitlens.load("smollm2-135m-instruct"))
    store = ActivationsStore.from_sae(model, sae, dataset)
    logits, cache = model.run_with_cache_with_saes(tokens, saes=[sae])

An SAE runs as a hook function at its hook point: what it returns goes on through the same kernels,
and everything else keeps its bits. SAEs have parameters, so on the native backend, which computes
no gradients, runs are without them, functions on hooks included. Shapes: B batch, P positions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ..hooks.activation_cache import ActivationCache
from ..hooks.captures import PosSlice, select_columns
from ..hooks.registry import HookFunction, HookPoint, Hooks, NamesFilter, select_names
from ..text.prompts import Text
from ..text.tokenizer import Tokenizer
from ..transformer import HookedTransformer


@dataclass(frozen=True)
class SpecialTokens:
    """What SAELens reads off a tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    sep_token_id: int | None = None


class SAELensModel:
    """The methods of SAELens's `HookedSAETransformer` on a bitlens model.

    Hook points inside a spliced SAE are called `<its hook>.hook_sae_input`, `hook_sae_acts_pre`,
    `hook_sae_acts_post`, `hook_sae_recons`, `hook_sae_error` and `hook_sae_output`. Everything not
    defined here is the model's own.
    """

    def __init__(self, model: HookedTransformer) -> None:
        self.model = model
        self.acts_to_saes: dict[str, Any] = {}
        self._error_terms: dict[str, bool] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "model":
            raise AttributeError(name)
        if name == "W_E":
            # SAELens's store asks for its device at every batch, and would unpack the matrix.
            raise AttributeError(
                "W_E is not on the adapter: take the model's own, `model.model.W_E`"
            )
        return getattr(self.model, name)

    @property
    def tokenizer(self) -> SpecialTokens | None:
        """The special tokens of the model's tokenizer."""
        tokenizer: Tokenizer | None = self.model.tokenizer
        if tokenizer is None:
            return None
        eos_id = tokenizer.eos_ids[0] if tokenizer.eos_ids else None
        return SpecialTokens(tokenizer.bos_id, eos_id, tokenizer.pad_id)

    def to_tokens(
        self,
        text: Text,
        prepend_bos: bool | None = None,
        truncate: bool = True,
        move_to_device: bool = True,
    ) -> torch.Tensor:
        """Token ids int64 [B, P], with `truncate` at most the context's length."""
        tokens = self.model.to_tokens(text, prepend_bos)
        tokens = tokens[:, : self.model.config.n_ctx] if truncate else tokens
        return tokens if move_to_device else tokens.cpu()

    # Attaching

    def add_sae(self, sae: Any, use_error_term: bool | None = None) -> None:
        """Splices an SAE in at its hook until `reset_saes`, instead of one that is there.

        Raises:
            KeyError: a hook the model does not have, with near matches.
            ValueError: a transcoder, whose output goes elsewhere than its input comes from.
        """
        metadata = sae.cfg.metadata
        if metadata.hook_name_out not in (None, metadata.hook_name):
            raise ValueError(
                f"a transcoder from {metadata.hook_name} to {metadata.hook_name_out}: only SAEs, "
                "which write where they read, can be spliced in"
            )
        (name,) = select_names(metadata.hook_name, self.model.hook_names)
        self.acts_to_saes[name] = sae
        self._error_terms[name] = sae.use_error_term if use_error_term is None else use_error_term

    def reset_saes(self, act_names: str | Sequence[str] | None = None) -> None:
        """Takes SAEs off these hooks, or off all. Raises KeyError where there is none."""
        names = [act_names] if isinstance(act_names, str) else act_names
        for name in list(self.acts_to_saes) if names is None else names:
            del self.acts_to_saes[name], self._error_terms[name]

    @contextmanager
    def saes(
        self, saes: Any = (), reset_saes_end: bool = True, use_error_term: bool | None = None
    ) -> Iterator[SAELensModel]:
        """Splices one SAE or several in for the length of a `with` block."""
        before = dict(self.acts_to_saes), dict(self._error_terms)
        try:
            for sae in saes if isinstance(saes, Sequence) else [saes]:
                self.add_sae(sae, use_error_term)
            yield self
        finally:
            if reset_saes_end:
                self.acts_to_saes, self._error_terms = before

    # Running

    @property
    def hook_names(self) -> list[str]:
        """The model's hooks, then those inside the SAEs."""
        inner = [f"{at}.{name}" for at, sae in self.acts_to_saes.items() for name in sae.hook_dict]
        return self.model.hook_names + inner

    def __call__(self, tokens: Any, **options: Any) -> Any:
        """`HookedTransformer.forward` with the SAEs in."""
        return self.run_with_hooks(tokens, **options)

    def run_with_hooks(self, tokens: Any, fwd_hooks: Hooks = (), **options: Any) -> Any:
        """`HookedTransformer.run_with_hooks` with the SAEs in; hooks may stand inside them."""
        with self._spliced(fwd_hooks) as outer:
            return self.model.run_with_hooks(tokens, outer, **options)

    def run_with_cache(
        self,
        tokens: Any,
        names_filter: NamesFilter = None,
        pos_slice: PosSlice = None,
        remove_batch_dim: bool = False,
        **options: Any,
    ) -> tuple[Any, ActivationCache]:
        """`HookedTransformer.run_with_cache` with the SAEs in, and what is inside them."""
        wanted = select_names(names_filter, self.hook_names)
        outer = [name for name in wanted if name in self.model.hook_dict]
        inner = [name for name in wanted if name not in self.model.hook_dict]
        found: dict[str, torch.Tensor] = {}

        def keep(name: str) -> HookFunction:
            def fn(tensor: torch.Tensor, *, hook: HookPoint) -> None:
                columns = select_columns(pos_slice, tensor.shape[1])
                found[name] = tensor.detach() if columns is None else tensor.detach()[:, columns]

            return fn

        keepers = [(name, keep(name)) for name in inner]
        with self._spliced(keepers) as splices, self.model.hooks(splices):
            result, cache = self.model.run_with_cache(tokens, outer, pos_slice, **options)
        cache = ActivationCache({**cache, **found}, self.model)
        return result, cache.remove_batch_dim() if remove_batch_dim else cache

    def run_with_saes(self, tokens: Any, saes: Any = (), **options: Any) -> Any:
        """`__call__` with these SAEs in."""
        return self._with_saes(self.__call__, tokens, saes, options)

    def run_with_hooks_with_saes(self, tokens: Any, saes: Any = (), **options: Any) -> Any:
        """`run_with_hooks` with these SAEs in."""
        return self._with_saes(self.run_with_hooks, tokens, saes, options)

    def run_with_cache_with_saes(self, tokens: Any, saes: Any = (), **options: Any) -> Any:
        """`run_with_cache` with these SAEs in."""
        return self._with_saes(self.run_with_cache, tokens, saes, options)

    def _with_saes(
        self, run: Callable[..., Any], tokens: Any, saes: Any, options: dict[str, Any]
    ) -> Any:
        attach = {
            name: options.pop(name)
            for name in ("reset_saes_end", "use_error_term")
            if name in options
        }
        with self.saes(saes, **attach):
            return run(tokens, **options)

    @contextmanager
    def _spliced(self, fwd_hooks: Hooks) -> Iterator[Hooks]:
        """Installs the hooks that stand inside SAEs; yields the SAEs as hooks, then the others.

        Raises KeyError for a name there is not, and ValueError for a filter that matches nothing.
        """
        outer: list[tuple[str, HookFunction]] = []
        with ExitStack() as stack:
            for name, fn in fwd_hooks:
                matches = select_names(name, self.hook_names)
                if not matches:
                    raise ValueError("fwd_hooks: a name filter matches no hook")
                for match in matches:
                    at, _, inner = match.rpartition(".")
                    if match in self.model.hook_dict:
                        outer.append((match, fn))
                    else:
                        stack.enter_context(self.acts_to_saes[at].hooks([(inner, fn)]))
            splices = [(name, self._splice(name)) for name in self.acts_to_saes]
            graph = torch.is_grad_enabled() and self.model.ops.differentiable
            stack.enter_context(torch.set_grad_enabled(graph))
            yield splices + outer

    def _splice(self, name: str) -> HookFunction:
        sae, error_term = self.acts_to_saes[name], self._error_terms[name]

        def fn(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
            with _error_term(sae, error_term):
                y: torch.Tensor = sae(tensor.to(sae.dtype))
            return y.to(tensor.dtype)

        return fn


@contextmanager
def _error_term(sae: Any, on: bool) -> Iterator[None]:
    """Whether the SAE's own forward adds what its reconstruction misses."""
    before = sae.use_error_term
    with warnings.catch_warnings():
        # SAELens deprecates setting it, in favour of the `add_sae` which this stands in for.
        warnings.simplefilter("ignore", DeprecationWarning)
        sae.use_error_term = on
        try:
            yield
        finally:
            sae.use_error_term = before
