"""`load_dictionary`: from a name to a dictionary that runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...model.hooks.widths import hook_width
from ...names import did_you_mean, near_files
from ..shipped import shipped_folder
from .config import DictionaryError
from .dictionary import Dictionary
from .formats import layout_of, read
from .formats.circuit_tracer import CONFIG as SET_CONFIG
from .formats.circuit_tracer import layer_files
from .hub import HubDictionary

if TYPE_CHECKING:
    from ...model.transformer import HookedTransformer

SHIPPED = ("smollm2-135m-instruct/blocks.15.hook_resid_post",)
_IN_CLONE = Path("data", "smollm2_dictionary", "bitlens_smollm2_dictionary")


def load_dictionary(
    source: str | Path,
    *,
    model: HookedTransformer | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    strict: bool = True,
) -> Dictionary:
    """Loads a dictionary.

    Args:
        source: A folder of SAELens, sparsify, Gemma Scope, Gemma Scope 2 or Llama Scope; a layer's
            file of circuit-tracer's transcoder sets; one of these on the Hugging Face hub,
            "hf://org/name/folder" or "hf://org/name@revision/folder"; one of SAELens's ids,
            "release:sae_id", of Gemma Scope, Llama Scope and Qwen 3's transcoders; or the alias of
            one that bitlens brings: "smollm2-135m-instruct/blocks.15.hook_resid_post".
        model: The model to use it on, whose hooks and fingerprint it must fit.
        device: Where its weights go.
        dtype: Of its matrices; None keeps what is stored. Biases and thresholds stay fp32.
        strict: Whether a dictionary trained on a model of another fingerprint raises, or warns.

    Raises:
        FileNotFoundError: no such folder, or a shipped dictionary that is not installed.
        FetchError: one on the hub that cannot be fetched.
        DictionaryError: a damaged or unsupported one, or one that does not fit the model.
    """
    path = find_dictionary(source)
    cfg, tensors = read(path)
    try:
        dictionary = Dictionary(cfg, tensors)
    except DictionaryError as error:
        raise DictionaryError(f"{path}: {error}") from error
    dictionary.folder = path
    if model is not None:
        check_fits(dictionary, model, strict=strict)
    if dtype is not None:
        dictionary = dictionary.to(dtype)
    return dictionary.to(device)


def load_dictionaries(
    source: str | Path, *, model: HookedTransformer | None = None
) -> dict[str, Dictionary]:
    """Loads every dictionary below a folder, or a set of transcoders; returns them by the hook that
    each reads.

    Raises as `load_dictionary` does; DictionaryError, too, for two of one hook.
    """
    root = find_dictionary(source, single=False)
    if (root / SET_CONFIG).is_file():
        paths = layer_files(root)
    else:
        below = [root, *sorted(path for path in root.rglob("*") if path.is_dir())]
        paths = [path for path in below if layout_of(path) is not None]
    if not paths:
        raise FileNotFoundError(f"{root}: no folder below it holds a dictionary")
    found: dict[str, Dictionary] = {}
    for path in paths:
        dictionary = load_dictionary(path, model=model)
        if dictionary.cfg.hook_name in found:
            raise DictionaryError(f"{root} holds two dictionaries of {dictionary.cfg.hook_name}")
        found[dictionary.cfg.hook_name] = dictionary
    return found


def find_dictionary(source: str | Path, *, single: bool = True) -> Path:
    """Returns the folder or file that a source names, fetched from the hub if need be.

    Raises FileNotFoundError naming what exists, or what to install; FetchError.
    """
    path = Path(source)
    if path.is_dir() or (single and path.is_file()):
        return path
    if str(source) in SHIPPED:
        return shipped_folder("dictionary", path.name, _IN_CLONE)
    if isinstance(source, str) and (on_hub := HubDictionary.parse(source)) is not None:
        return on_hub.fetch(single=single)
    what = "dictionary" if single else "folder of dictionaries"
    near = did_you_mean(str(source), SHIPPED) or near_files(path)
    raise FileNotFoundError(
        f"{source}: no such {what}{near}; expected a folder, hf://org/name/folder, release:sae_id "
        f"of Gemma Scope, Llama Scope or Qwen 3's transcoders, or {SHIPPED[0]!r}"
    )


def check_fits(dictionary: Dictionary, model: HookedTransformer, *, strict: bool = True) -> None:
    """Raises DictionaryError where a dictionary does not fit a model.

    Hooks and widths must be the model's. So must the fingerprint, if the dictionary carries one:
    with `strict` another one raises, without it warns.
    """
    check_hooks(dictionary, model)
    cfg = dictionary.cfg
    expected = cfg.metadata.get("model_fingerprint")
    if expected is not None and expected != model.fingerprint():
        message = (
            f"the dictionary of {cfg.hook_name} was trained on "
            f"{cfg.metadata.get('model_name', 'a model')} with fingerprint {expected[:12]}...; "
            f"{model.name} has {model.fingerprint()[:12]}...: other weights have other features"
        )
        if strict:
            raise DictionaryError(message + " (strict=False loads it all the same)")
        warnings.warn(message, stacklevel=3)


def check_hooks(dictionary: Dictionary, model: HookedTransformer) -> None:
    """Raises DictionaryError where a model lacks a hook of a dictionary, or has it in another
    width."""
    cfg = dictionary.cfg
    for name, width in ((cfg.hook_name, cfg.d_in), (cfg.hook_name_out, cfg.d_out)):
        if name not in model.hook_dict:
            raise DictionaryError(f"the dictionary's hook {name} is none of {model.name}'s")
        found = hook_width(model.config, name)
        if found != width:
            raise DictionaryError(
                f"{name} is {found} wide in {model.name}; the dictionary expects {width}"
            )
