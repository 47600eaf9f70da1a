"""One pass of a model: tokens in, the residual stream through the blocks, logits out.

Tensor names: T ragged rows, B batch, P padded positions, V vocabulary, d d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from .autocast import without_autocast
from .batch import RaggedBatch
from .build import ModuleBuilder
from .cache.kv_cache import KVCache
from .cache.prefix_key import edit_key
from .config import ModelConfig
from .gradients import check_differentiable, gradient_ops
from .hooks.captures import Captures
from .hooks.overrides import OverrideRegistry, op_addresses
from .hooks.registry import (
    FINAL_NAMES,
    NO_HOOKS,
    HookRegistry,
    InstalledHooks,
    depth,
    hook_names,
    in_graph,
    layer_of,
)
from .layers import SoftCap
from .loss import next_token_loss, next_token_losses
from .ops.interface import Ops
from .parallel import Group, agreement
from .run import Run, Watch
from .runners.entering import ReturnType, check_entering
from .runners.interface import RunnerFactory
from .runners.recompute import may_recompute, run_recomputed
from .text.prompts import Tokens, check_ids, token_batch
from .text.tokenizer import Tokenizer
from .weights.checkpoint import Checkpoint

Watched = tuple[Captures, InstalledHooks]
"""What one call keeps, and its own hooks."""


class ForwardPass:
    """The modules of a model, what is installed on them, and one pass through them.

    `HookedTransformer`'s public methods run on it.

    Attributes:
        recomputes: Whether backward computes each block again instead of keeping its activations.
        trains: Whether weights are trained: every pass is recorded, but for torch.no_grad().
        runner: Runs the blocks that nobody watches.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        ops: Ops,
        make_runner: RunnerFactory,
        packed: Mapping[str, Any] | None = None,
    ) -> None:
        """Reads the checkpoint's tensors one by one, but for `packed` matrices, by name.

        Raises CheckpointError on a damaged one.
        """
        config = checkpoint.config
        self.config: ModelConfig = config
        self.tokenizer: Tokenizer | None = checkpoint.tokenizer
        self.ops = ops
        self.registry = HookRegistry(hook_names(config))
        self.overrides = OverrideRegistry(op_addresses(config))
        self.recomputes = self.trains = False
        builder = ModuleBuilder(checkpoint, ops, packed)
        self.embed = builder.embedding()
        self.blocks = tuple(builder.block(i) for i in range(config.n_layers))
        self.ln_final = builder.norm("ln_final")
        self.unembed = builder.unembedding(self.embed)
        cap = config.final_logit_softcap
        self.soft_cap = None if cap is None else SoftCap(ops, cap)
        self.runner = make_runner(self.blocks, ops)

    @property
    def group(self) -> Group | None:
        """The ranks that the matrices are spread over, None if they are whole."""
        return self.ops.group

    def run(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None = None,
        kv_cache: KVCache | None = None,
        return_type: ReturnType = "logits",
        stop_at_layer: int | None = None,
        *,
        start_at_layer: int | None = None,
        captures: Captures | None = None,
        hooks: InstalledHooks = NO_HOOKS,
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
    ) -> Any:
        """Returns what `HookedTransformer.forward` does.

        `captures`, filled on the way, and `hooks` are this call's own.
        """
        if return_type not in ("logits", "loss", "both", None):
            raise ValueError(f"return_type = {return_type!r}: expected logits, loss, both or None")
        watched = captures or Captures(), hooks
        with without_autocast(self.ops.device):
            return self._run(
                tokens,
                attention_mask,
                kv_cache,
                return_type,
                (start_at_layer, stop_at_layer),
                watched,
                loss_per_token,
                prepend_bos,
            )

    def _run(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None,
        kv_cache: KVCache | None,
        return_type: ReturnType,
        at_layers: tuple[int | None, int | None],
        watched: Watched,
        loss_per_token: bool,
        prepend_bos: bool | None,
    ) -> Any:
        start_at_layer, stop_at_layer = at_layers
        start, stop = self.start(start_at_layer), self.stop(stop_at_layer)
        if start_at_layer is not None:
            check_entering(tokens, kv_cache, return_type, self.config, self.ops.policy.residual)
        if stop_at_layer is not None and kv_cache is not None:
            raise ValueError("stop_at_layer: would leave the upper layers of kv_cache unwritten")
        entering = tokens if start_at_layer is not None else None
        tokens_T, run = self._start(
            torch.zeros_like(entering[..., 0], dtype=torch.int64)
            if isinstance(entering, torch.Tensor)
            else tokens,
            attention_mask,
            kv_cache,
            watched,
            (return_type, start, stop, loss_per_token, entering),
            prepend_bos,
        )
        for name in run.watch.names if at_layers != (None, None) else ():
            if not self.reaches(name, start, stop):
                raise ValueError(
                    f"start_at_layer = {start_at_layer}, stop_at_layer = {stop_at_layer}: {name} "
                    "would never fire"
                )
        if isinstance(entering, torch.Tensor):
            resid_Td = self._entered(entering, run)
        else:
            resid_Td = self._embedded(tokens_T, run)
        resid_Td = self._residual(resid_Td, run, max(start, 0), stop)
        if stop_at_layer is not None:
            return run.batch.pad(resid_Td)
        loss = next_token_losses if loss_per_token else next_token_loss
        result = self._result(resid_Td, tokens_T, run, return_type, loss)
        run.cache.advance(run.batch)
        return result

    def rows(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None,
        call: tuple[Any, ...],
        prepend_bos: bool | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, Run]:
        """Returns the real tokens, their residual stream [T, d] after the last block, and the pass,
        on whose other arguments, the `call`, ranks agree."""
        watched = Captures(), NO_HOOKS
        tokens_T, run = self._start(tokens, attention_mask, None, watched, call, prepend_bos)
        resid_Td = self._residual(self._embedded(tokens_T, run), run, 0, self.config.n_layers)
        return tokens_T, resid_Td, run

    def last(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None,
        kv_cache: KVCache | None,
        captures: Captures | None,
    ) -> torch.Tensor:
        """Logits [B, V] of each sequence's last token."""
        return self._last(tokens, attention_mask, kv_cache, captures, self._unembedded)

    def last_slice(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None,
        kv_cache: KVCache | None,
        captures: Captures | None,
    ) -> torch.Tensor:
        """This rank's part of them, from `vocab_start` on."""
        return self._last(tokens, attention_mask, kv_cache, captures, self._unembedded_slice)

    def captured(self, tokens: Tokens, kv_cache: KVCache, captures: Captures) -> None:
        """Fills `captures`, which are within the blocks, by a pass that ends once they are there.

        The upper layers of its tokens' pages stay unwritten, so `kv_cache` does not count them.
        """
        end = depth(captures.names, self.config.n_layers)
        watched, call = (captures, NO_HOOKS), ("captures", end)
        with without_autocast(self.ops.device):
            tokens_T, run = self._start(tokens, None, kv_cache, watched, call)
            self._residual(self._embedded(tokens_T, run), run, 0, end)

    @property
    def vocab_start(self) -> int:
        """The first token of `last_slice`."""
        start: int = self.ops.own_columns(self.unembed.weight).start
        return start

    def start(self, start_at_layer: int | None) -> int:
        """The block at which a pass begins, -1 for the embedding. Raises as `stop`."""
        return -1 if start_at_layer is None else self._layer("start_at_layer", start_at_layer)

    def stop(self, stop_at_layer: int | None) -> int:
        """The block before which a pass ends, n_layers + 1 for after the unembedding.

        Raises ValueError for one there is not.
        """
        if stop_at_layer is None:
            return self.config.n_layers + 1
        return self._layer("stop_at_layer", stop_at_layer)

    def _layer(self, argument: str, layer: int) -> int:
        n = self.config.n_layers
        if not -n <= layer <= n:
            raise ValueError(f"{argument} = {layer}: the model has {n} layers")
        return layer + n if layer < 0 else layer

    def reaches(self, name: str, start: int, stop: int) -> bool:
        """Whether a pass from block `start` to before block `stop` fires this hook."""
        layer = layer_of(name)
        if layer is None:
            layer = -1 if name in ("hook_tokens", "hook_embed") else self.config.n_layers
        return start <= layer < stop

    def _last(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None,
        kv_cache: KVCache | None,
        captures: Captures | None,
        unembed: Callable[[torch.Tensor, Run], torch.Tensor],
    ) -> torch.Tensor:
        """Returns what `unembed` makes of each sequence's last row, normalized."""
        with without_autocast(self.ops.device):
            return self._last_rows(tokens, attention_mask, kv_cache, captures, unembed)

    def _last_rows(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None,
        kv_cache: KVCache | None,
        captures: Captures | None,
        unembed: Callable[[torch.Tensor, Run], torch.Tensor],
    ) -> torch.Tensor:
        watched = captures or Captures(), NO_HOOKS
        tokens_T, run = self._start(tokens, attention_mask, kv_cache, watched, (unembed.__name__,))
        resid_Td = self._residual(self._embedded(tokens_T, run), run, 0, self.config.n_layers)
        batch = run.batch
        if batch.n_rows == batch.size:  # a token each: every row is a last one
            logits = unembed(self._normalized(resid_Td, run), run)
        elif run.wants("unembed.hook_out"):
            logits = unembed(self._normalized(resid_Td, run), run)[batch.last_rows_B]
        elif run.wants(*FINAL_NAMES):
            logits = unembed(self._normalized(resid_Td, run)[batch.last_rows_B], run)
        else:
            logits = unembed(self._normalized(resid_Td[batch.last_rows_B], run), run)
        run.cache.advance(run.batch)
        return logits

    def _start(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None,
        kv_cache: KVCache | None,
        watched: Watched,
        arguments: tuple[Any, ...],
        prepend_bos: bool | None = None,
    ) -> tuple[torch.Tensor, Run]:
        """Prepares the pass once all ranks agree on it, its other `arguments` included."""
        if self.group is None:
            return self._prepare(tokens, attention_mask, kv_cache, watched, prepend_bos)
        topics = ("the tokens", "the hooks and overrides", "the arguments")
        with agreement(self.group, "a forward pass", *topics) as statement:
            tokens_T, run = self._prepare(tokens, attention_mask, kv_cache, watched, prepend_bos)
            batch, watch = run.batch, run.watch
            statement.say(topics[0], tokens_T, batch.lengths, batch.offsets)
            statement.say(topics[1], sorted(watch.names), sorted(watch.overrides))
            statement.say(topics[2], *arguments, batch.past, batch.key_offsets)
        return tokens_T, run

    def _prepare(
        self,
        tokens: Tokens,
        attention_mask: torch.Tensor | None,
        kv_cache: KVCache | None,
        watched: Watched,
        prepend_bos: bool | None,
    ) -> tuple[torch.Tensor, Run]:
        """Checks the input; returns its real tokens and the pass's context."""
        tokens_BP, mask_BP = token_batch(tokens, attention_mask, self.tokenizer, prepend_bos)
        tokens_BP = tokens_BP.to(self.ops.device)
        continues = kv_cache is not None and any(kv_cache.lengths)
        if kv_cache is not None:
            kv_cache.check(self.config, tokens_BP.shape[0], self.ops.policy.activation)
        batch = RaggedBatch.from_tokens(
            tokens_BP,
            mask_BP,
            kv_cache.lengths if kv_cache is not None else None,
            kv_cache.key_offsets if kv_cache is not None and continues else None,
        )
        if batch.n_keys > self.config.n_ctx:
            raise ValueError(
                f"tokens: {batch.n_keys} positions, beyond the context of {self.config.n_ctx}"
            )
        tokens_T = batch.strip(tokens_BP)
        # One torch call: while decoding, the rest is cheaper in Python.
        check_ids(tokens_T.tolist(), self.config.d_vocab)
        if kv_cache is None:
            kv_cache = KVCache(
                self.config,
                batch.size,
                self.ops.policy.activation,
                self.ops.device,
                one_layer=True,
            )
        kv_cache.reserve(batch)
        ops, watch = self._watched(*watched, batch)
        kv_cache.edits.add(edit_key(watch.hooks, watch.overrides))
        return tokens_T, Run(ops, batch, kv_cache, watch, self.group)

    def _watched(
        self, captures: Captures, of_call: InstalledHooks, batch: RaggedBatch
    ) -> tuple[Ops, Watch]:
        """What is in place for a pass, and operations that record where that may ask for it."""
        hooks, overrides = self.registry.now(of_call), self.overrides.installed
        ops, backward = self.ops, NO_HOOKS.backward
        if torch.is_grad_enabled() and (hooks or overrides or self.trains):
            backward, ops = hooks.backward, gradient_ops(ops, batch)
        if backward:
            check_differentiable(ops, batch)
        runner = self.runner
        return ops, Watch(
            hooks.forward, self.registry.points, overrides, captures, runner.taps, backward,
            taps_ranges=runner.taps_ranges,
        )  # fmt: skip

    def _entered(self, resid_BPd: torch.Tensor, run: Run) -> torch.Tensor:
        """The caller's residual stream as rows, recorded from here on if it is in a graph."""
        if in_graph(resid_BPd):
            run.ops = gradient_ops(run.ops, run.batch)
            check_differentiable(run.ops, run.batch)
        resid_BPd = resid_BPd.to(self.ops.device)
        return run.ops.rearrange(resid_BPd, run.batch.strip, run.batch.pad)

    def _embedded(self, tokens_T: torch.Tensor, run: Run) -> torch.Tensor:
        """The embedding, where the residual stream begins."""
        if run.wants("hook_tokens"):
            tokens_T = run.hook("hook_tokens", tokens_T.clone())
            check_ids(tokens_T.tolist(), self.config.d_vocab)
        return run.hook("hook_embed", self.embed(tokens_T, run))

    def _residual(self, resid: torch.Tensor, run: Run, start: int, stop: int) -> torch.Tensor:
        """The residual stream after blocks start .. stop - 1, fused where unwatched."""
        layer, stop = start, min(stop, self.config.n_layers)
        while layer < stop:
            resid = run.hook(f"blocks.{layer}.hook_resid_pre", resid)
            end = run.watch.closed_until(layer, stop)
            if self.recomputes and may_recompute(layer, resid, run):
                resid = run_recomputed(self.blocks[layer], resid, run)
                layer += 1
            elif end > layer:
                resid = self.runner.run(layer, end, resid, run)
                layer = end
            else:
                resid = self.blocks[layer](resid, run)
                layer += 1
            resid = run.hook(f"blocks.{layer - 1}.hook_resid_post", resid)
        return resid

    def logits(self, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        """Returns the logits [T, V] of the last block's residual stream."""
        return self._unembedded(self._normalized(resid_Td, run), run)

    def _normalized(self, resid_Td: torch.Tensor, run: Run) -> torch.Tensor:
        """Returns the residual stream after the last norm."""
        return run.hook("unembed.hook_in", self.ln_final(resid_Td, run))

    def _unembedded(self, x_Td: torch.Tensor, run: Run) -> torch.Tensor:
        return self._capped(run.hook("unembed.hook_out", self.unembed(x_Td, run)), run)

    def _unembedded_slice(self, x_Td: torch.Tensor, run: Run) -> torch.Tensor:
        if self.group is None:
            return self._unembedded(x_Td, run)
        weight = self.unembed.weight
        if run.wants("unembed.hook_out") or any(map(run.is_overridden, ("unembed", "soft_cap"))):
            return self._unembedded(x_Td, run)[:, self.ops.own_columns(weight)]
        return self._capped(
            self.ops.linear_slice(x_Td, weight, out_dtype=self.ops.policy.logits), run
        )

    def _capped(self, logits: torch.Tensor, run: Run) -> torch.Tensor:
        """Whole logits or a slice of them, as the sampler reads them."""
        if self.soft_cap is None:
            return logits
        capped: torch.Tensor = self.soft_cap(logits, run)
        return capped

    def _result(
        self,
        resid_Td: torch.Tensor,
        tokens_T: torch.Tensor,
        run: Run,
        return_type: ReturnType,
        loss_of: Callable[[torch.Tensor, torch.Tensor, RaggedBatch], torch.Tensor],
    ) -> Any:
        if return_type is None and not run.wants(*FINAL_NAMES):
            return None
        logits_TV = self.logits(resid_Td, run)
        if return_type is None:
            return None
        if return_type == "logits":
            return run.batch.pad(logits_TV)
        loss = loss_of(logits_TV, tokens_T, run.batch)
        return loss if return_type == "loss" else (run.batch.pad(logits_TV), loss)
