"""`train`: from a model and a config to a dictionary on disk.

What is in the output folder: harvest/ (the shards, until the end), checkpoint.safetensors (until
the end), log.jsonl, config.json, and dictionary/, a SAELens folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...model.hooks.registry import select_names
from ...model.training.log import TrainingLog
from ...model.transformer import HookedTransformer
from ...model.weights.atomic import write_json
from ..activations import TextSource, harvest, open_text
from ..activations.documents import Text
from ..activations.store import ActivationStore
from ..dictionaries import Dictionary, load_dictionary
from ..dictionaries.formats.sae_lens import CONFIG
from .config import TrainConfig
from .trainer import CHECKPOINT, Trainer

HARVEST = "harvest"
DICTIONARY = "dictionary"

Progress = Callable[[str, int, int, dict[str, Any]], None]
"""Called with "harvest" or a dictionary's name, what is done of what there is, and a log line."""


@dataclass(frozen=True, eq=False)
class TrainResult:
    """A dictionary that was trained.

    Attributes:
        dictionary: Ready to use.
        path: The folder it was saved to.
        metrics: The last line of the log.
    """

    dictionary: Dictionary
    path: Path
    metrics: dict[str, Any]


def train(
    model: HookedTransformer,
    config: TrainConfig,
    *,
    text: Text = None,
    output: str | Path,
    resume: bool = True,
    keep_harvest: bool = False,
    progress: Progress | None = None,
) -> TrainResult:
    """Trains one dictionary.

    Runs the model over the training split of the text, keeps the activations in `output`, trains
    on them, and saves the dictionary. A run that was interrupted, however it ended, goes on from
    its last shard or checkpoint, with the bits of a run that was not.

    Args:
        text: As `bitlens.interp.activations.open_text`; None takes the default corpus.
        output: The folder of this run; made here.
        resume: False begins anew.
        keep_harvest: Whether the activations stay on disk at the end.
        progress: Called while it works.

    Raises:
        ValueError: a model over several ranks, a folder of another run, text that is too short.
        KeyError: a hook that the model does not have.
        TrainingDiverged: a loss that explodes.
        OSError: the disk is full.
    """
    (result,) = train_all(
        model,
        {"": config},
        text=text,
        output=output,
        resume=resume,
        keep_harvest=keep_harvest,
        progress=progress,
    )
    return result


def train_all(
    model: HookedTransformer,
    configs: dict[str, TrainConfig],
    *,
    text: Text = None,
    output: str | Path,
    resume: bool = True,
    keep_harvest: bool = False,
    progress: Progress | None = None,
) -> list[TrainResult]:
    """Trains several dictionaries, by the name of their folders, from one harvest.

    They may differ in hooks, widths and all else but the text: its length, contexts and what is
    left out of it. Arguments and errors are those of `train`.
    """
    if model.group is not None:
        raise ValueError("train: over several ranks there are no gradients; load without a group")
    folder, source = Path(output), open_text(text)
    _check_shared(list(configs.values()))
    if not resume:
        _clear(folder, configs)
    folder.mkdir(parents=True, exist_ok=True)
    finished = [_finished(config, folder / name) for name, config in configs.items()]
    if all(finished):
        return [result for result in finished if result is not None]
    harvest_for(model, configs, text=source, output=folder, progress=progress)
    store = ActivationStore(folder / HARVEST)
    metadata = _metadata(model, source, store)
    results = [
        _train_one(config, store, folder / name, name, metadata, progress)
        for name, config in configs.items()
    ]
    if not keep_harvest:
        shutil.rmtree(folder / HARVEST)
        for name in configs:
            (folder / name / CHECKPOINT).unlink(missing_ok=True)
    return results


def harvest_for(
    model: HookedTransformer,
    configs: dict[str, TrainConfig],
    *,
    text: Text | TextSource = None,
    output: str | Path,
    rank: int = 0,
    n_ranks: int = 1,
    progress: Progress | None = None,
) -> None:
    """Writes the activations that `train_all` reads, or this rank's share of them.

    Raises KeyError for a hook that the model does not have, and otherwise as `train` does.
    """
    _check_shared(list(configs.values()))
    hooks = sorted({h for c in configs.values() for h in (c.hook_name, c.target_hook)})
    first = next(iter(configs.values()))

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("harvest", done, total, {})

    harvest(
        model,
        first.harvest_config(tuple(select_names(hooks, model.hook_names))),
        text if isinstance(text, TextSource) else open_text(text),
        Path(output) / HARVEST,
        rank=rank,
        n_ranks=n_ranks,
        progress=report,
    )


def _train_one(
    config: TrainConfig,
    store: ActivationStore,
    folder: Path,
    name: str,
    metadata: dict[str, Any],
    progress: Progress | None,
) -> TrainResult:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config.to_dict())
    trainer = Trainer(config, store, folder)

    def report(line: dict[str, Any]) -> None:
        if progress is not None:
            progress(name or "training", line["step"], config.n_steps, line)

    trainer.run(report)
    dictionary = trainer.dictionary(
        {**metadata, "context_size": config.context_size, "training": config.to_dict()}
    )
    dictionary.save_model(folder / DICTIONARY)
    return TrainResult(dictionary, folder / DICTIONARY, TrainingLog(folder).last())


def _finished(config: TrainConfig, folder: Path) -> TrainResult | None:
    """The result of a run that has ended, if this is its folder."""
    path = folder / DICTIONARY
    if not (path / CONFIG).is_file():
        return None
    dictionary = load_dictionary(path)
    if dictionary.cfg.metadata.get("training") != json.loads(json.dumps(config.to_dict())):
        raise ValueError(
            f"{path} holds a dictionary of another config: name another output folder, or "
            "resume=False to begin anew"
        )
    return TrainResult(dictionary, path, TrainingLog(folder).last())


def _check_shared(configs: Sequence[TrainConfig]) -> None:
    if not configs:
        raise ValueError("configs: no dictionary to train")
    hooks = ("",)
    for config in configs[1:]:
        if config.harvest_config(hooks) != configs[0].harvest_config(hooks):
            raise ValueError(
                "dictionaries of one harvest share unique_tokens (or n_tokens), context_size, "
                "across_documents, exclude_outliers and act_dtype"
            )


def _metadata(
    model: HookedTransformer, source: TextSource, store: ActivationStore
) -> dict[str, Any]:
    return {
        "model_name": Path(model.name).name,
        "model_fingerprint": model.fingerprint(),
        "model_class_name": "HookedTransformer",
        "prepend_bos": model.tokenizer is not None and model.tokenizer.prepends_bos,
        "dataset_path": source.name,
        "text_sha256": source.digest,
        "harvest": {
            "n_rows": store.n_rows,
            "n_excluded": store.n_excluded,
            "max_norm": store.description["max_norm"],
            "policy": store.description["policy"],
            "packing": store.description["packing"],
        },
    }


def _clear(folder: Path, configs: dict[str, TrainConfig]) -> None:
    shutil.rmtree(folder / HARVEST, ignore_errors=True)
    for name in configs:
        shutil.rmtree(folder / name / DICTIONARY, ignore_errors=True)
        for file in (CHECKPOINT, "log.jsonl"):
            (folder / name / file).unlink(missing_ok=True)
