"""The hookable transformer.

Tensor names: T ragged rows, B batch, P padded positions, V vocabulary, d d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, Self

import torch
from torch import nn

from ..precision.addresses import Site
from .config import ModelConfig
from .forward_pass import ForwardPass, ReturnType
from .generation import GenerateOutput, Stop, Stream, generate
from .hooks.activation_cache import ActivationCache
from .hooks.captured_gradients import CapturedGradients
from .hooks.captures import Captures, PosSlice
from .hooks.model_weights import ModelWeights
from .hooks.overrides import Override
from .hooks.registry import (
    Direction,
    HookFunction,
    HookPoint,
    Hooks,
    NamesFilter,
    select_names,
)
from .hooks.transformer_lens_config import TransformerLensConfig, transformer_lens_config
from .kv_cache import KVCache
from .layers import Embedding, Linear
from .ops.copies import ModelCopies
from .ops.interface import Ops
from .ops.sites import op_site
from .parallel import Group
from .runners.interface import RunnerFactory
from .runners.unfused import UnfusedRunner
from .text.prompts import Prompt, Tokens
from .text.tokenizer import Tokenizer
from .weights.checkpoint import Checkpoint
from .weights.fingerprint import fingerprint


class HookedTransformer(ModelWeights, ModelCopies):
    """A dense decoder-only transformer whose every intermediate can be read and edited.

    Made by `bitlens.load`. Blocks run fused unless something inside them is hooked, captured or
    overridden. Gradients flow to activations on either backend, where a hook asks for them, and to
    weights with the torch backend, where they are Parameters.

    Attributes:
        config: What the model is made of.
        tokenizer: None where the checkpoint has none.
        ops: The backend.
        name: Where the weights came from.
        group: The ranks this model is spread over, None if it is whole. All of them must make the
            same calls, with the same hooks; one that does not is an error on each.
    """

    def __init__(
        self, checkpoint: Checkpoint, ops: Ops, make_runner: RunnerFactory = UnfusedRunner
    ) -> None:
        """Reads the checkpoint's tensors one by one; raises CheckpointError on a damaged one.

        `make_runner` decides how blocks run that nobody watches.
        """
        super().__init__()
        self.forward_pass = ForwardPass(checkpoint, ops, make_runner)
        self.config: ModelConfig = checkpoint.config
        self.tokenizer: Tokenizer | None = checkpoint.tokenizer
        self.name = checkpoint.name
        self.ops = ops
        self.group: Group | None = ops.group
        self._n_parameters = checkpoint.n_parameters()
        self._fingerprint = fingerprint(checkpoint) if checkpoint.volatile else None
        self._checkpoint = None if checkpoint.volatile else checkpoint
        self.embed = self.forward_pass.embed
        self._blocks = self.forward_pass.blocks
        self.blocks = nn.ModuleList(self._blocks)
        self.ln_final = self.forward_pass.ln_final
        self.unembed = self.forward_pass.unembed
        self.soft_cap = self.forward_pass.soft_cap

    @property
    def cfg(self) -> TransformerLensConfig:
        """`config` under TransformerLens's attribute names."""
        return transformer_lens_config(self.config, self.ops, self.tokenizer, self.name)

    def n_parameters(self) -> int:
        """Weights in the checkpoint, tied ones counted once."""
        return self._n_parameters

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the model's config and widened tensors (`weights/fingerprint.py`).

        Backend, policy and ranks do not change it. Computed once, from the files the model was
        loaded from: about a second for 135 million weights.
        """
        if self._fingerprint is None:
            assert self._checkpoint is not None
            self._fingerprint, self._checkpoint = fingerprint(self._checkpoint), None
        return self._fingerprint

    def storage(self) -> dict[str, int]:
        """Bytes of the resident matrices by storage format."""
        total: dict[str, int] = {}
        weights = [m.weight for m in self.modules() if isinstance(m, Linear | Embedding)]
        for weight in {id(weight): weight for weight in weights}.values():
            kind, n_bytes = self.ops.storage(weight)
            total[kind] = total.get(kind, 0) + n_bytes
        return total

    def weight_bytes(self) -> int:
        """Bytes of the resident matrices."""
        return sum(self.storage().values())

    # Running

    def forward(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None = None,
        kv_cache: KVCache | None = None,
        return_type: ReturnType = "logits",
        *,
        stop_at_layer: int | None = None,
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
    ) -> Any:
        """Runs the model.

        Args:
            tokens: int64 [B, P] or [P], a text, or a list of texts (padded and masked here).
            attention_mask: [B, P], 1 at real tokens; padding on the left or on the right.
            kv_cache: Continues these sequences and appends to them; `tokens` are the new ones.
            return_type: "logits" [B, P, V] (zeros on padding), "loss" (mean next-token cross
                entropy over real tokens), "both" as a pair, or None.
            stop_at_layer: Return the residual stream [B, P, d] before this block instead.
            loss_per_token: Make the loss [B, P - 1], each next token's own, 0 at padding.
            prepend_bos: Whether texts start with the BOS token; None does as the model was trained.

        Raises:
            ValueError: naming the argument that is wrong.
        """
        if return_type not in ("logits", "loss", "both", None):
            raise ValueError(f"return_type = {return_type!r}: expected logits, loss, both or None")
        return self.forward_pass.run(
            tokens,
            attention_mask,
            kv_cache,
            return_type,
            stop_at_layer,
            Captures(),
            loss_per_token=loss_per_token,
            prepend_bos=prepend_bos,
        )

    def forward_last(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None = None,
        kv_cache: KVCache | None = None,
        captures: Captures | None = None,
    ) -> torch.Tensor:
        """Logits [B, V] of each sequence's last token; arguments as `forward`."""
        return self.forward_pass.last(tokens, attention_mask, kv_cache, captures)

    def forward_last_slice(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None = None,
        kv_cache: KVCache | None = None,
        captures: Captures | None = None,
    ) -> torch.Tensor:
        """Returns this rank's part of `forward_last`'s vocabulary, from `vocab_start` on.

        All of it without a group. Nothing is gathered unless unembed.hook_out or an override asks.
        """
        return self.forward_pass.last_slice(tokens, attention_mask, kv_cache, captures)

    @property
    def vocab_start(self) -> int:
        """The first token of `forward_last_slice`: 0 without a group."""
        return self.forward_pass.vocab_start

    def new_cache(self, batch_size: int = 1) -> KVCache:
        """An empty KV cache for `batch_size` sequences."""
        policy = self.ops.policy
        return KVCache(self.config, batch_size, policy.activation, self.ops.device)

    def run_with_cache(
        self,
        tokens: Tokens,
        names_filter: NamesFilter = None,
        pos_slice: PosSlice = None,
        stop_at_layer: int | None = None,
        return_type: ReturnType = "logits",
        *,
        attention_mask: torch.Tensor | None = None,
        kv_cache: KVCache | None = None,
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        remove_batch_dim: bool = False,
        device: torch.device | str | None = None,
        incl_bwd: bool = False,
    ) -> tuple[Any, ActivationCache]:
        """Runs the model and keeps activations; returns what `forward` does, and the cache.

        Args:
            names_filter: A name, a list of names or a predicate on names. None keeps what
                TransformerLens keeps by default, scores and patterns included.
            pos_slice: Keep these positions only (an int, a slice, a tuple of a slice's arguments,
                or a list); of scores and patterns, only these query rows are ever computed.
            stop_at_layer: As `forward`; None and predicates then keep what comes before.
            remove_batch_dim: Take the batch axis off what is kept, for a batch of one.
            device: Where to keep it.
            incl_bwd: Also call backward() on the loss, which `return_type` must ask for, and keep
                the gradients of the same hooks as name + "_grad".

        Raises:
            KeyError: a name that is no hook, with near matches.
            ValueError: `incl_bwd` without a loss, or where no gradients are computed.
        """
        stop = self.forward_pass.stop(stop_at_layer)
        names = select_names(names_filter, self.hook_names)
        if stop_at_layer is not None and (names_filter is None or callable(names_filter)):
            names = [name for name in names if not self.forward_pass.is_beyond(name, stop)]
        captures = Captures(frozenset(names), pos_slice)
        kept = CapturedGradients(names if incl_bwd else (), pos_slice)
        if incl_bwd:
            kept.check_loss(return_type, loss_per_token, stop_at_layer)
        with self.hooks(bwd_hooks=kept.hooks):
            result = self.forward_pass.run(
                tokens,
                attention_mask,
                kv_cache,
                return_type,
                stop_at_layer,
                captures,
                loss_per_token=loss_per_token,
                prepend_bos=prepend_bos,
            )
        if incl_bwd:
            result.backward()
        cache = ActivationCache({**captures.found, **kept.take()}, self)
        if remove_batch_dim:
            cache.remove_batch_dim()
        return result, cache if device is None else cache.to(device)

    def run_with_hooks(
        self,
        tokens: Tokens,
        fwd_hooks: Hooks = (),
        bwd_hooks: Hooks = (),
        *,
        reset_hooks_end: bool = True,
        **options: Any,
    ) -> Any:
        """`forward` with hooks installed for this call; `options` are its other arguments.

        `bwd_hooks` are called with gradients, when backward() comes to them, after this call as
        well. `reset_hooks_end=False` leaves the hooks installed.

        Raises:
            ValueError: `bwd_hooks` where no gradients are computed.
        """
        if bwd_hooks and not torch.is_grad_enabled():
            raise ValueError("bwd_hooks: gradients are switched off here (torch.no_grad)")
        if not reset_hooks_end:
            with self.hooks(fwd_hooks, bwd_hooks):
                pass  # a name that is none raises here, before any is left installed
            for name, fn in fwd_hooks:
                self.add_hook(name, fn)
            for name, fn in bwd_hooks:
                self.add_hook(name, fn, "bwd")
            return self(tokens, **options)
        with self.hooks(fwd_hooks, bwd_hooks):
            return self(tokens, **options)

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 64,
        min_new_tokens: int = 0,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        n: int = 1,
        stop: Stop = None,
        stream: Stream = None,
        capture: Sequence[str] | str = (),
        attention_mask: torch.Tensor | None = None,
        prepend_bos: bool | None = None,
        template_variables: Mapping[str, Any] | None = None,
    ) -> GenerateOutput:
        """Continues prompts. See `bitlens.model.generation.generate` for the arguments."""
        return generate(
            self,
            prompt,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            n=n,
            stop=stop,
            stream=stream,
            capture=capture,
            attention_mask=attention_mask,
            prepend_bos=prepend_bos,
            template_variables=template_variables,
        )

    # Gradients

    def gradient_checkpointing_enable(self) -> None:
        """From now on keeps only each block's input for backward, and computes the block again.

        Gradients keep their bits. Blocks with forward hooks or overrides inside keep their
        activations: those functions run once.
        """
        self.forward_pass.recomputes = True

    def gradient_checkpointing_disable(self) -> None:
        """From now on keeps every activation that backward needs."""
        self.forward_pass.recomputes = False

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Works like `nn.Module`'s. Raises ValueError on the native backend: it packs weights."""
        if requires_grad and not self.ops.differentiable:
            raise ValueError(
                'requires_grad_: packed weights have no gradients; load with backend="torch" '
                "(gradients of activations need no switch)"
            )
        return super().requires_grad_(requires_grad)

    # Hooks and overrides

    @property
    def hook_names(self) -> list[str]:
        """Every hook, in the order a pass reaches them; each fires or the request raises."""
        return list(self.forward_pass.registry.points)

    @property
    def hook_dict(self) -> dict[str, HookPoint]:
        """The hook points by name."""
        return dict(self.forward_pass.registry.points)

    def add_hook(
        self, name: str | Callable[[str], bool], fn: HookFunction, dir: Direction = "fwd"
    ) -> None:
        """Installs `fn(tensor, hook)` until `reset_hooks`, on a name or all a predicate accepts.

        With `dir="bwd"` it is called with the gradient, and may edit it as it may an activation.
        """
        self.forward_pass.registry.add(name, fn, dir)

    def reset_hooks(self, direction: Direction | Literal["both"] = "both") -> None:
        """Removes every hook function of a direction; with both, clears every `hook.ctx`, too."""
        self.forward_pass.registry.clear(direction)

    @contextmanager
    def hooks(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> Iterator[Self]:
        """Installs hooks for the length of a `with` block, on top of those already installed.

        Backward hooks belong to the passes begun inside it, wherever backward() is called.
        """
        with self.forward_pass.registry.added(fwd_hooks, bwd_hooks):
            yield self

    @property
    def op_addresses(self) -> list[str]:
        """Every operation of a pass, in order."""
        return list(self.forward_pass.overrides.addresses)

    def override(self, address: str, fn: Override) -> AbstractContextManager[None]:
        """Calls `fn(original, *args, **kwargs)` in place of one operation in a `with` block.

        A later override of the same address wraps the earlier one. Where a hook is edited,
        `original` is the part of the operation that follows the edit (`norm_weight`,
        `attention_values`).
        """
        return self.forward_pass.overrides.added(address, fn)

    def site(self, address: str) -> Site:
        """One operation in terms of its precision contract (docs/precision.md).

        Raises KeyError with near matches for an address that is none.
        """
        self.forward_pass.overrides.check(address)
        return op_site(self.ops, self.config, address)
