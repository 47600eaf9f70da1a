"""The most that training a SAE holds, beside the bound that it states."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path

import torch
from safetensors.torch import save_file

from ...interp.activations.harvesting import INDEX, SHARD_TOKENS, shard_name
from ...interp.activations.store import ActivationStore
from ...interp.training import TrainConfig, training_bytes
from ...interp.training.trainer import Trainer

HOOK = "x"


class DictionaryMemory:
    """A trainer on random rows."""

    def train(
        self, d: int, d_sae: int, k: int, batch: int, n_rows: int, architecture: str
    ) -> dict[str, float]:
        """Bytes that three steps and a checkpoint added to this process at their peak, and the
        bound."""
        config = TrainConfig(
            architecture=architecture,
            hook_name=HOOK,
            d_sae=d_sae,
            k=k,
            l0_target=float(k),
            n_tokens=3 * batch,
            batch_size=batch,
            dead_after_tokens=1,  # AuxK takes part
        )
        with tempfile.TemporaryDirectory() as folder:
            store = _random_store(Path(folder) / "harvest", d, n_rows)
            before = _held()
            with _Watch() as watch:
                Trainer(config, store, Path(folder)).run()
        bound = training_bytes(config, {HOOK: d})
        return {"held": watch.most - before, "bound": float(bound)}


def _random_store(folder: Path, d: int, n_rows: int) -> ActivationStore:
    folder.mkdir()
    shard = min(SHARD_TOKENS, n_rows)
    names = [shard_name(i) for i in range(n_rows // shard)]
    for i, name in enumerate(names):
        x = torch.randn(shard, d, generator=torch.Generator().manual_seed(i))
        save_file({HOOK: x}, folder / name, {"n_tokens": str(shard), "n_excluded": "0"})
    (folder / "harvest.json").write_text(json.dumps({"hook_names": [HOOK], "widths": {HOOK: d}}))
    (folder / INDEX).write_text(json.dumps({"shards": names}))
    return ActivationStore(folder)


def _held() -> float:
    """Bytes that are resident and in use: not those of past results, which the system may take."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: float(size.split()[0]) for name, size in (line.split(":") for line in lines)}
    return (sizes["Rss"] - sizes["LazyFree"]) * 1024


class _Watch:
    """Looks every few milliseconds, in a thread."""

    def __init__(self) -> None:
        self.most = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.most = max(self.most, _held())

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
