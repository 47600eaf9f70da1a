"""The hookable transformer.

Tensor names: T ragged rows, B batch, P padded positions, V vocabulary, d d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import nn

from . import generation
from .cache.kv_cache import KVCache
from .cache.prefix_key import edit_key
from .config import ModelConfig
from .forward_pass import ForwardPass
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
from .layers import Embedding, Linear
from .ops.copies import ModelCopies
from .ops.interface import Ops
from .parallel import Group
from .runners.entering import ReturnType
from .runners.interface import RunnerFactory
from .runners.unfused import UnfusedRunner
from .sampling.sample import RowSampler
from .text.prompts import Tokens
from .text.tokenizer import Tokenizer
from .weights.checkpoint import Checkpoint
from .weights.fingerprint import fingerprint

if TYPE_CHECKING:
    from ..precision.addresses import Site
    from ..precision.meaning import Quantities
    from .weights.trained import TrainedWeights


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
        trained: Its weights as they are trained, None unless loaded with `trainable`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        ops: Ops,
        make_runner: RunnerFactory = UnfusedRunner,
        packed: Mapping[str, Any] | None = None,
    ) -> None:
        """Reads the checkpoint's tensors one by one; raises CheckpointError on a damaged one.

        `make_runner` decides how blocks run that nobody watches; `packed` matrices, by name, are
        taken in place of the checkpoint's.
        """
        super().__init__()
        self.forward_pass = ForwardPass(checkpoint, ops, make_runner, packed)
        self._make_runner = make_runner
        self.config: ModelConfig = checkpoint.config
        self.tokenizer: Tokenizer | None = checkpoint.tokenizer
        self.name = checkpoint.name
        self.ops = ops
        self.group: Group | None = ops.group
        self.trained: TrainedWeights | None = None
        self._n_parameters = checkpoint.n_parameters()
        self._fingerprint = fingerprint(checkpoint) if checkpoint.volatile else None
        # What is in memory is its owner's, who may change it or let it go.
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
        loaded from: about a second for 135 million weights. Of weights under training it is that of
        the moment.
        """
        if self.trained is not None:
            return self.trained.digest()
        if self._fingerprint is None and self._checkpoint is not None:
            self._fingerprint = fingerprint(self._checkpoint)
        assert self._fingerprint is not None
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
        start_at_layer: int | None = None,
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
            start_at_layer: Begin at this block, with the residual stream [B, P, d] before it in
                place of `tokens`, in the dtype that `stop_at_layer` returns.
            stop_at_layer: Return the residual stream [B, P, d] before this block instead.
            loss_per_token: Make the loss [B, P - 1], each next token's own, 0 at padding.
            prepend_bos: Whether texts start with the BOS token; None does as the model was trained.

        Raises:
            ValueError: naming the argument that is wrong.
        """
        return self.forward_pass.run(
            tokens,
            attention_mask,
            kv_cache,
            return_type,
            stop_at_layer,
            start_at_layer=start_at_layer,
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

    def forward_captures(self, tokens: Tokens, kv_cache: KVCache, captures: Captures) -> None:
        """Fills `captures` of hooks within the blocks, and ends there: `kv_cache` does not count
        these tokens, whose upper layers it lacks."""
        self.forward_pass.captured(tokens, kv_cache, captures)

    @property
    def vocab_start(self) -> int:
        """The first token of `forward_last_slice`: 0 without a group."""
        return self.forward_pass.vocab_start

    @property
    def sampler(self) -> RowSampler | None:
        """Draws tokens where the logits are, if that is not the CPU."""
        return self.ops.sampler

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
        start_at_layer: int | None = None,
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
            start_at_layer, stop_at_layer: As `forward`; None and predicates then keep what lies
                between.
            remove_batch_dim: Take the batch axis off what is kept, for a batch of one.
            device: Where to keep it.
            incl_bwd: Also call backward() on the loss, which `return_type` must ask for, and keep
                the gradients of the same hooks as name + "_grad".

        Raises:
            KeyError: a name that is no hook, with near matches.
            ValueError: `incl_bwd` without a loss, or where no gradients are computed.
        """
        ends = self.forward_pass.start(start_at_layer), self.forward_pass.stop(stop_at_layer)
        names = select_names(names_filter, self.hook_names)
        if names_filter is None or callable(names_filter):
            names = [name for name in names if self.forward_pass.reaches(name, *ends)]
        captures = Captures(frozenset(names), pos_slice)
        kept = CapturedGradients(names if incl_bwd else (), pos_slice)
        if incl_bwd:
            kept.check_loss(return_type, loss_per_token, stop_at_layer)
        result = self.forward_pass.run(
            tokens,
            attention_mask,
            kv_cache,
            return_type,
            stop_at_layer,
            start_at_layer=start_at_layer,
            captures=captures,
            hooks=self.forward_pass.registry.resolve(bwd_hooks=kept.hooks),
            loss_per_token=loss_per_token,
            prepend_bos=prepend_bos,
        )
        if incl_bwd:
            kept.backward(result)
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
        """`forward` with hooks of this call alone; `options` are its other arguments.

        No other pass sees them, in this thread or another. `bwd_hooks` are called with gradients,
        when backward() comes to them, after this call as well. `reset_hooks_end=False` installs
        the hooks on the model instead, as `add_hook` does.

        Raises:
            ValueError: `bwd_hooks` where no gradients are computed.
        """
        if bwd_hooks and not torch.is_grad_enabled():
            raise ValueError("bwd_hooks: gradients are switched off here (torch.no_grad)")
        hooks = self.forward_pass.registry.resolve(fwd_hooks, bwd_hooks)
        if reset_hooks_end:
            return self.forward_pass.run(tokens, hooks=hooks, **options)
        self.forward_pass.registry.install(hooks)
        return self(tokens, **options)

    generate = generation.generate

    @property
    def is_watched(self) -> bool:
        """Whether hook functions or overrides run inside a pass that begins here and now."""
        return bool(self.forward_pass.registry.now() or self.forward_pass.overrides.installed)

    def edit_key(self) -> str | None:
        """Returns what hooks and overrides make of a pass that begins here and now, as
        `cache/prefix_key.py` names it: "" without any, None where nobody can tell."""
        return edit_key(
            self.forward_pass.registry.now().forward, self.forward_pass.overrides.installed
        )

    def logprobs(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None = None,
        *,
        scored: torch.Tensor | None = None,
        temperature: float = 1.0,
        prepend_bos: bool | None = None,
    ) -> torch.Tensor:
        """Returns ln p of each token given those before it, fp32 [B, P] (fp64 under that policy).

        The bits are those that `generate` reports for the tokens it samples at this temperature,
        before filters. Logits are made some rows at a time, unless their hooks are asked for.

        Args:
            tokens, attention_mask, prepend_bos: As `forward`.
            scored: bool [B, P], the tokens that are wanted, of each sequence none before its
                second; None for all of these. The others have 0.
            temperature: As `bitlens.model.training.token_logprob`.

        Raises:
            ValueError: naming the argument that is wrong.
        """
        # Here, since most passes ask for logits: importing bitlens stays light.
        from .scores import logprobs

        options = scored, temperature, prepend_bos
        return logprobs(self.forward_pass, tokens, attention_mask, *options)

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

        It runs in every pass that begins from now on, in any thread, before hooks of `with` blocks
        and of calls. With `dir="bwd"` it is called with the gradient, and may edit it as it may an
        activation.
        """
        self.forward_pass.registry.add(name, fn, dir)

    def reset_hooks(self, direction: Direction | Literal["both"] = "both") -> None:
        """Removes what `add_hook` installed, of a direction; with both, clears every `hook.ctx`.

        Hooks of `with` blocks leave with their block.
        """
        self.forward_pass.registry.clear(direction)

    @contextmanager
    def hooks(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> Iterator[Self]:
        """Installs hooks for the passes that begin inside a `with` block, after those installed.

        They are this thread's, or asyncio task's: others run without them. Backward hooks belong
        to the passes begun inside it, wherever backward() is called.
        """
        with self.forward_pass.registry.added(fwd_hooks, bwd_hooks):
            yield self

    @property
    def op_addresses(self) -> list[str]:
        """Every operation of a pass, in order."""
        return list(self.forward_pass.overrides.addresses)

    def override(self, address: str, fn: Override) -> AbstractContextManager[None]:
        """Calls `fn(original, *args, **kwargs)` in place of one operation in a `with` block.

        It is this thread's, or asyncio task's. A later override of the same address wraps the
        earlier one. Where a hook is edited,
        `original` is the part of the operation that follows the edit (`norm_weight`,
        `attention_values`).
        """
        return self.forward_pass.overrides.added(address, fn)

    def derived_quantities(self, tokens: torch.Tensor, /) -> Quantities:
        """Returns what this model takes from its config and another might take otherwise.

        By name and address (precision/meaning.py).
        """
        from .ops.meaning import config_quantities  # with all of bitlens.precision

        return config_quantities(self.config, tokens.shape[-1])

    def site(self, address: str) -> Site:
        """One operation in terms of its precision contract (docs/precision.md).

        Raises KeyError with near matches for an address that is none.
        """
        from .ops.sites import op_site

        self.forward_pass.overrides.check(address)
        return op_site(self.ops, self.config, address)
