"""A bitlens model as SAELens 6 wants one: its activation store, its evaluator, SAEs spliced in.

    from bitlens.model.interop.sae_lens_model import SAELensModel
    model = SAELensModel(bitlens.load("smollm2-135m-instruct"))
    store = ActivationsStore.from_sae(model, sae, dataset)
    logits, cache = model.run_with_cache_with_saes(tokens, saes=[sae])

An SAE runs as a hook function at its hook point: what it returns goes on through the same kernels,
and everything else keeps its bits. SAEs have parameters that require gradients, so a run with one
in it makes a graph from there on, unless it is under torch.no_grad(). Where a model computes no
gradients (several ranks, a stepwise policy) such a run raises and says so.

Shapes: B batch, P positions.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch

from ..hooks.gradient_hook import watch_gradient
from ..hooks.registry import HookFunction, HookPoint, Hooks, select_names
from ..hooks.spliced_model import SplicedModel
from ..text.prompts import Text
from ..text.tokenizer import Tokenizer
from ..transformer import HookedTransformer

_ONE_RUN = RLock()
"""Held by a run with SAEs in: SAELens's objects keep the hooks inside them, whoever asked."""


@dataclass(frozen=True)
class SpecialTokens:
    """The part of a tokenizer that SAELens reads."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    sep_token_id: int | None = None


class SAELensModel(SplicedModel):
    """The methods of SAELens's `HookedSAETransformer` on a bitlens model.

    Hook points inside a spliced SAE are called `<the hook it writes>.hook_sae_input`,
    `hook_sae_acts_pre`, `hook_sae_acts_post`, `hook_sae_recons`, `hook_sae_error` (which fires with
    an error term only) and `hook_sae_output`. Everything not defined here is the model's own. Runs
    in several threads wait for each other; `add_sae` and `saes` change the adapter for all of them.

    Attributes:
        acts_to_saes: SAEs and transcoders by the hook that they read.
    """

    def __init__(self, model: HookedTransformer) -> None:
        super().__init__(model)
        self.acts_to_saes: dict[str, Any] = {}
        self._error_terms: dict[str, bool] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "W_E":
            # SAELens's store asks for its device at every batch, and would unpack the matrix.
            raise AttributeError(
                "W_E is not on the adapter: take the model's own, `model.model.W_E`"
            )
        return super().__getattr__(name)

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
        """Splices an SAE or transcoder in until `reset_saes`, instead of one that reads its hook.

        Raises:
            KeyError: a hook the model does not have, with near matches.
            ValueError: a transcoder that writes before it reads, or where another one writes.
        """
        names = self.model.hook_names
        (read,) = select_names(sae.cfg.metadata.hook_name, names)
        (written,) = select_names(_written(sae), names)
        if names.index(written) < names.index(read):
            raise ValueError(f"a transcoder from {read} to {written}, which comes before it")
        for other, each in self.acts_to_saes.items():
            if other != read and _written(each) == written:
                raise ValueError(f"{written} is written by what reads {other} already")
        self.acts_to_saes[read] = sae
        self._error_terms[read] = sae.use_error_term if use_error_term is None else use_error_term

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
    def inner_names(self) -> list[str]:
        """The hook points inside the SAEs."""
        return [
            f"{_written(sae)}.{name}"
            for sae in self.acts_to_saes.values()
            for name in sae.hook_dict
        ]

    def inner_has_gradient(self, name: str) -> bool:
        """Returns whether gradients flow through it: SAELens takes the error as a constant."""
        return not name.endswith("hook_sae_error")

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
        with _ONE_RUN, self.saes(saes, **attach):
            return run(tokens, **options)

    @contextmanager
    def spliced(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> Iterator[None]:
        """Splices the SAEs in, with functions inside them, for the length of a block."""
        of_hook = {_written(sae): sae for sae in self.acts_to_saes.values()}
        inner = [(str(name), fn) for name, fn in fwd_hooks]
        # Behind the others, so that the gradient is that of what goes on.
        inner += [(str(name), _gradient_of(str(name), fn)) for name, fn in bwd_hooks]
        with _ONE_RUN, ExitStack() as stack:
            for name, fn in inner:
                at, _, end = name.rpartition(".")
                stack.enter_context(of_hook[at].hooks([(end, fn)]))
            stack.enter_context(self.model.hooks(self._splices()))
            yield

    def _splices(self) -> list[tuple[str, HookFunction]]:
        """The SAEs as hooks, and those of transcoders that only read, which come last."""
        writers: list[tuple[str, HookFunction]] = []
        readers: list[tuple[str, HookFunction]] = []
        for read, sae in self.acts_to_saes.items():
            if _written(sae) == read:
                writers.append((read, self._splice(read)))
            else:
                reader, writer = self._transcode(read)
                writers.append((_written(sae), writer))
                readers.append((read, reader))
        return writers + readers

    def _splice(self, name: str) -> HookFunction:
        sae, error_term = self.acts_to_saes[name], self._error_terms[name]

        def fn(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
            with _error_term(sae, error_term):
                y: torch.Tensor = sae(tensor.to(sae.dtype))
            return y.to(tensor.dtype)

        return fn

    def _transcode(self, name: str) -> tuple[HookFunction, HookFunction]:
        """What a transcoder does where it reads, and where it writes."""
        transcoder, error_term = self.acts_to_saes[name], self._error_terms[name]
        held: list[torch.Tensor] = []

        def read(tensor: torch.Tensor, *, hook: HookPoint) -> None:
            held[:] = [tensor.to(transcoder.dtype, copy=True)]

        read.runs_last = True  # type: ignore[attr-defined]

        def write(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
            x = held.pop()
            y: torch.Tensor = transcoder(x)
            if error_term:
                with torch.no_grad(), _without_hooks(transcoder):
                    missed = tensor - transcoder(x)
                y = y + transcoder.hook_sae_error(missed)
            y = transcoder.hook_sae_output(y)
            return y.to(tensor.dtype)

        return read, write


def _written(sae: Any) -> str:
    """The hook that an SAE or transcoder writes."""
    metadata = sae.cfg.metadata
    return str(metadata.hook_name_out or metadata.hook_name)


def _gradient_of(name: str, fn: HookFunction) -> HookFunction:
    """A function of an activation that has `fn` called with its gradient."""
    point = HookPoint(name)

    def watched(tensor: torch.Tensor, *, hook: Any) -> torch.Tensor:
        return watch_gradient(tensor, [fn], point) if torch.is_grad_enabled() else tensor

    return watched


@contextmanager
def _without_hooks(sae: Any) -> Iterator[None]:
    """Silences the hook points inside, as SAELens does for the error term."""
    with importlib.import_module("sae_lens.saes.sae")._disable_hooks(sae):
        yield


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
