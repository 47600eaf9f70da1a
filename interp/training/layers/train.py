"""`train_layers`: from a model and a config to transcoders of every layer on disk.

What is in the output folder: calibration.safetensors, checkpoint.json and the folder it names
(until the end), log.jsonl, config.json, and transcoders/: a SAELens folder a layer, or
circuit-tracer's folder of a cross-layer transcoder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....model.hooks.registry import select_names
from ....model.training.log import TrainingLog
from ....model.transformer import HookedTransformer
from ....model.weights.atomic import write_json
from ...activations import TextSource, open_text
from ...activations.documents import Text
from ...activations.read import hook_widths
from ...dictionaries import (
    CrossLayerTranscoder,
    Dictionary,
    load_cross_layer,
    load_dictionaries,
)
from ...dictionaries.formats.circuit_tracer import CONFIG, CROSS_LAYER
from ...dictionaries.formats.flat_yaml import read_flat_yaml
from .calibration import CALIBRATION
from .checkpoint import LayersCheckpoint
from .config import LayersTrainConfig
from .finish import to_cross_layer, to_dictionaries
from .stream import RowStream
from .trainer import LayersTrainer

TRANSCODERS = "transcoders"
_CONFIG = "config.json"
_DONE = "result.json"

Transcoders = dict[str, Dictionary] | CrossLayerTranscoder
Progress = Callable[[int, int, dict[str, Any]], None]
"""Called with a step, the number of steps, and a line of the log."""


@dataclass(frozen=True, eq=False)
class LayersTrainResult:
    """Transcoders that were trained.

    Attributes:
        transcoders: Ready to use: by the hook that each reads, or one cross-layer transcoder.
        path: The folder they were saved to.
        metrics: The last line of the log.
    """

    transcoders: Transcoders
    path: Path
    metrics: dict[str, Any]


def train_layers(
    model: HookedTransformer,
    config: LayersTrainConfig,
    *,
    text: Text = None,
    output: str | Path,
    resume: bool = True,
    progress: Progress | None = None,
) -> LayersTrainResult:
    """Trains transcoders of every layer, the model running beside them; no activation is stored.

    A run that was interrupted, however it ended, goes on from its last checkpoint, with the bits
    of a run that was not.

    Args:
        text: As `bitlens.interp.activations.open_text`; None takes the default corpus.
        output: The folder of this run; made here.
        resume: False begins anew.
        progress: Called with every line of the log.

    Raises:
        ValueError: a model over several ranks, a folder of another run, text that is too short.
        KeyError: a hook that the model does not have.
        TrainingDiverged: a loss that explodes.
        OSError: the disk is full.
    """
    if model.group is not None:
        raise ValueError("train: over several ranks there are no gradients; load without a group")
    folder, source = Path(output), open_text(text)
    stream = RowStream(model, source, config)
    _check_hooks(model, stream)
    if not resume:
        _clear(folder, config)
    folder.mkdir(parents=True, exist_ok=True)
    description = _description(model, source, config)
    if (folder / _DONE).is_file():
        return _finished(folder, config, description)
    _claim(folder, description)
    trainer = LayersTrainer(config, stream, folder)

    def report(line: dict[str, Any]) -> None:
        if progress is not None:
            progress(line["step"], config.n_steps, line)

    trainer.run(report)
    save_transcoders(trainer, folder / TRANSCODERS)
    write_json(folder / _DONE, {"weights_sha256": trainer.digest()})
    trainer.end()
    return _finished(folder, config, description)


def save_transcoders(trainer: LayersTrainer, path: Path) -> None:
    """Writes the transcoders as they are after the steps so far."""
    shutil.rmtree(path, ignore_errors=True)
    config, model = trainer.config, trainer.stream.model
    metadata = _description(model, trainer.stream.source, config)
    metadata["n_tokens"], metadata["n_excluded"] = trainer.n_tokens, trainer.n_excluded
    parts = trainer.layers, trainer.outputs["b_dec"], trainer.calibration
    if config.max_reach == 1:
        for hook, each in to_dictionaries(config, *parts, metadata).items():
            each.save_model(path / hook)
    else:
        name = metadata["model_name"]
        to_cross_layer(config, *parts, name, metadata).save_model(path)


def load_transcoders(path: Path) -> Transcoders:
    """Returns what `save_transcoders` wrote, or a folder of circuit-tracer's holds: a dictionary a
    layer, or a cross-layer transcoder.

    Raises FileNotFoundError and DictionaryError as the loaders do.
    """
    config = path / CONFIG
    if config.is_file() and read_flat_yaml(config).get("model_kind") == CROSS_LAYER:
        return load_cross_layer(path)
    return load_dictionaries(path)


def _check_hooks(model: HookedTransformer, stream: RowStream) -> None:
    names = [*stream.inputs, *stream.outputs]
    select_names(names, model.hook_names)
    for name, width in hook_widths(model, names).items():
        if width != model.config.d_model:
            raise ValueError(f"{name} is {width} wide; transcoders of layers read d_model")


def _description(
    model: HookedTransformer, source: TextSource, config: LayersTrainConfig
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model_name": Path(model.name).name,
        "model_fingerprint": model.fingerprint(),
        "policy": model.ops.policy.name,
        "prepend_bos": model.tokenizer is not None and model.tokenizer.prepends_bos,
        "context_size": config.context_size,
        "dataset_path": source.name,
        "text_sha256": source.digest,
        "training": json.loads(json.dumps(config.to_dict())),
    }
    return found


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Writes config.json, or checks that the folder is of this run."""
    path = folder / _CONFIG
    if not path.exists():
        write_json(path, description)
    _check_same(path, description)


def _check_same(path: Path, description: dict[str, Any]) -> None:
    found = json.loads(path.read_text())
    for name, value in description.items():
        if found.get(name) != value:
            raise ValueError(
                f"{path} is of a run with {name} = {found.get(name)!r}, not {value!r}: name "
                "another output folder, or resume=False to begin anew"
            )


def _finished(
    folder: Path, config: LayersTrainConfig, description: dict[str, Any]
) -> LayersTrainResult:
    _check_same(folder / _CONFIG, description)
    path = folder / TRANSCODERS
    return LayersTrainResult(load_transcoders(path), path, TrainingLog(folder).last())


def _clear(folder: Path, config: LayersTrainConfig) -> None:
    LayersCheckpoint(folder, config).remove()
    shutil.rmtree(folder / TRANSCODERS, ignore_errors=True)
    for name in (_CONFIG, _DONE, CALIBRATION, "log.jsonl"):
        (folder / name).unlink(missing_ok=True)
