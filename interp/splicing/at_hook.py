"""One dictionary at its hooks: what it reads there, and what it writes.

Tensor names: B batch, P positions, T ragged rows (real tokens), F features, i and o the widths of
what is read and written.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch

from ...model.hooks.registry import HookFunction, HookPoint, HookRegistry, in_graph
from ..dictionaries import Dictionary, Features
from .edit import Edit, edited_acts
from .graft import Graft
from .inner_hooks import ACTS_POST, ACTS_PRE, ERROR, INPUT, OUTPUT, RECONS, InnerHooks

_ALL = (INPUT, ACTS_PRE, ACTS_POST, RECONS, ERROR, OUTPUT)


class DictionaryAtHook:
    """A dictionary in its place.

    Attributes:
        n_encoded: Rows encoded so far.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        edits: Sequence[Edit],
        use_error_term: bool,
        inner: HookRegistry,
    ) -> None:
        self.dictionary = dictionary
        self.edits = tuple(edits)
        self.use_error_term = use_error_term
        self.n_encoded = 0
        self._inner = inner
        self._seen: list[set[int]] = [set() for _ in edits]
        self._counting = threading.Lock()
        # What a transcoder has read waits here for its other hook, pass by pass.
        self._read_by_thread = threading.local()

    def writer(self) -> tuple[str, HookFunction]:
        """Returns the function that writes, and its hook."""
        return self.dictionary.cfg.hook_name_out, self._write

    def reader(self) -> tuple[str, HookFunction] | None:
        """Returns the function that reads, and its hook; None where the writer reads, too."""
        name = self.dictionary.cfg.hook_name
        return None if name == self.dictionary.cfg.hook_name_out else (name, self._read)

    def check_all_applied(self) -> None:
        """Raises ValueError for an edit of positions that no run had."""
        if not self.n_encoded:
            return
        for edit, seen in zip(self.edits, self._seen, strict=True):
            if missing := edit.missing(seen):
                raise ValueError(
                    f"{edit}: no run in this block reached position {missing[0]} of "
                    f"{self.dictionary.cfg.hook_name_out}, so the edit was not made there"
                )

    def _read(self, tensor: torch.Tensor, *, hook: HookPoint) -> None:
        self._read_by_thread.rows = _rows(tensor, hook)

    # What other functions of the hook make of x reaches the model, so it reaches the transcoder.
    _read.runs_last = True  # type: ignore[attr-defined]

    def _write(self, tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor | None:
        assert hook.batch is not None
        y_To, shape = _rows(tensor, hook), tensor.shape[2:]
        x_Ti = y_To if self.reader() is None else self._read_by_thread.__dict__.pop("rows")
        places = [edit.places(hook.batch.positions_T) for edit in self.edits]
        inner = InnerHooks(self._inner, self.dictionary.cfg.hook_name_out, hook)
        if inner.wants(*_ALL) or self._in_graph(x_Ti, y_To):
            result = self._shown(x_Ti, y_To, places, inner, shape)
        else:
            result = self._sparse(x_Ti, y_To, places)
        with self._counting:
            self.n_encoded += len(x_Ti)
            for seen, place_T in zip(self._seen, places, strict=True):
                seen.update(place_T[place_T >= 0].tolist())
        if result is y_To:
            return None
        return hook.batch.pad(result.reshape(-1, *shape))

    def _in_graph(self, *rows: torch.Tensor) -> bool:
        values = [edit.value for edit in self.edits if isinstance(edit.value, torch.Tensor)]
        return in_graph(*rows, *values, *self.dictionary.parameters())

    def _sparse(
        self, x_Ti: torch.Tensor, y_To: torch.Tensor, places: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """What is written, where nobody looks inside: only rows with an edit become dense."""
        d = self.dictionary
        features = d.encode_sparse(x_Ti)
        chosen_T = torch.zeros(len(x_Ti), dtype=torch.bool, device=x_Ti.device)
        for place_T in places:
            chosen_T |= place_T >= 0
        acts_NF = _chosen(features, chosen_T).dense()
        edited_NF = edited_acts(self.edits, acts_NF, [place_T[chosen_T] for place_T in places])
        changed_N = (edited_NF != acts_NF).any(1)
        rows_N = chosen_T.nonzero()[:, 0][changed_N]
        if not self.use_error_term:
            result_To = d.decode(features, x_Ti)
            result_To[rows_N] = d.decode(edited_NF[changed_N], x_Ti[rows_N])
            return result_To.to(y_To.dtype)
        if not len(rows_N):
            return y_To
        recons_No = d.decode(edited_NF[changed_N], x_Ti[rows_N])
        change_No = recons_No - d.decode(acts_NF[changed_N], x_Ti[rows_N])
        result_To = y_To.clone()
        result_To[rows_N] = (y_To[rows_N].float() + change_No).to(y_To.dtype)
        return result_To

    def _shown(
        self,
        x_Ti: torch.Tensor,
        y_To: torch.Tensor,
        places: Sequence[torch.Tensor],
        inner: InnerHooks,
        shape: Sequence[int],
    ) -> torch.Tensor:
        """The same bits, with every step at its inner hook point and in the graph."""
        d = self.dictionary
        x_Ti = inner.show(INPUT, x_Ti)
        acts_TF = d.encode(x_Ti)
        if inner.wants(ACTS_PRE):
            inner.show(ACTS_PRE, d.pre_activations(x_Ti))
        edited_TF = inner.show(ACTS_POST, edited_acts(self.edits, acts_TF, places))
        recons_To = inner.show(RECONS, d.decode(edited_TF, x_Ti))
        original_To = d.decode(acts_TF, x_Ti)
        inner.show(ERROR, (y_To.float() - original_To).detach())
        if self.use_error_term:
            changed_T = (edited_TF != acts_TF).any(1)
            path_To = (y_To.float() + (recons_To - original_To)).to(y_To.dtype)
            result_To = torch.where(changed_T[:, None], path_To.detach(), y_To.detach())
            if in_graph(path_To):
                result_To = Graft.apply(result_To, path_To)  # type: ignore[no-untyped-call]
        else:
            result_To = recons_To.to(y_To.dtype)
        return inner.show(OUTPUT, result_To, shape)


def _rows(x_BP: torch.Tensor, hook: HookPoint) -> torch.Tensor:
    """The real tokens' rows, heads flattened."""
    assert hook.batch is not None
    return hook.batch.strip(x_BP).flatten(1)


def _chosen(features: Features, chosen_T: torch.Tensor) -> Features:
    """The features of some rows only."""
    counts_N = features.indptr.diff()[chosen_T]
    kept = chosen_T[features.rows()]
    indptr = torch.cat([counts_N.new_zeros(1), counts_N.cumsum(0)])
    shape = (len(counts_N), features.shape[-1])
    return Features(indptr, features.indices[kept], features.values[kept], shape)
