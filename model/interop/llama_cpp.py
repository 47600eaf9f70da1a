"""llama.cpp, by the wheel `xllamacpp`: log-probabilities of the tokens that follow given ones.

Its server says how probable each token was only of tokens that it generated. So each position that
is asked for is one request: the tokens up to there, and one token more with all of the vocabulary
beside it.

Tensor names: P positions, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..sources.gguf_format import MAGIC
from ..weights.checkpoint import BLOCKS, Checkpoint, Format

LEAST = float(np.finfo(np.float32).min)
"""The log-probability it gives a token whose probability is 0 in fp32."""


def require_llama_cpp() -> Any:
    """Returns xllamacpp. Raises RuntimeError naming the extra where it is not installed."""
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        raise RuntimeError("this needs llama.cpp: pip install 'bitlens[llama-cpp]'") from error
    return xllamacpp


def llama_cpp(
    path: Path, positions_P: Sequence[int], *, said: int, threads: int, wide: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from tokens int64 to log-probabilities fp32 [P, V] after some of them.

    Args:
        path: A GGUF file.
        positions_P: The tokens after which, by their places.
        said: A token that is text by itself, to be generated.
        wide: Whether keys and values are kept in fp32 and attention is not fused; otherwise all
            is as llama.cpp has it by default.
    """
    library = require_llama_cpp()
    found = library.CommonParams()
    found.model.path = str(path)
    found.n_ctx = max(positions_P) + 8
    found.n_parallel = 1
    found.warmup = False
    found.verbosity = 0
    found.cpuparams.n_threads = found.cpuparams_batch.n_threads = threads
    if wide:
        found.cache_type_k = found.cache_type_v = library.ggml_type.GGML_TYPE_F32
        found.flash_attn_type = library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = library.Server(found)

    def run(tokens: np.ndarray) -> np.ndarray:
        return np.stack(
            [_next_token(server, tokens[: at + 1].tolist(), said) for at in positions_P]
        )

    return run


def gguf_path(checkpoint: Checkpoint) -> Path:
    """Returns the file that a checkpoint was read from. Raises ValueError where it is no GGUF."""
    path = Path(checkpoint.name)
    if not path.is_file() or not _is_gguf(path):
        raise ValueError(
            f"{checkpoint.name}: llama.cpp reads GGUF files; make one by its convert_hf_to_gguf.py "
            "and give that"
        )
    return path


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def roundings(checkpoint: Checkpoint) -> str:
    """Returns what llama.cpp rounds beyond fp32 on its CPU, by default, in words.

    ggml multiplies a matrix by activations of the type that its kernel takes (`vec_dot_type`).
    """
    stored = Counter(kind for kind, n_dims in _formats(gguf_path(checkpoint)) if n_dims == 2)
    matrices: dict[str, list[str]] = {}
    for kind, n in stored.items():
        if kind in BLOCKS or kind in _ACTIVATIONS:
            target = _ACTIVATIONS.get(kind, "8 bits, a block at a time,")
            matrices.setdefault(target, []).append(f"{n} {kind.name}")
    said = [
        f"activations to {target} before products with {' and '.join(found)} matrices"
        for target, found in matrices.items()
    ]
    return f"llama.cpp rounds {', '.join([*said, 'keys and values to fp16'])}"


_ACTIVATIONS: Mapping[Format, str] = {Format.F16: "fp16", Format.BF16: "bf16"}


def _formats(path: Path) -> list[tuple[Format, int]]:
    from ..sources.gguf_shards import read_model

    return [(info.format, len(info.shape)) for info in read_model(path).tensors.values()]


def _next_token(server: Any, tokens: list[int], said: int) -> np.ndarray:
    """Returns the log-probabilities of the token after `tokens`, fp32 [V]."""
    request = {"prompt": tokens, "max_tokens": 1, "logprobs": 1 << 30, "temperature": 0.0}
    found = server.handle_completions(request | {"logit_bias": [[said, 1e9]]})
    listed = found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    row = np.full(len(listed), np.nan, np.float32)
    row[[each["id"] for each in listed]] = [each["logprob"] for each in listed]
    if np.isnan(row).any() or row.min() <= LEAST:
        raise ValueError(f"llama.cpp listed {len(row)} tokens, not each with a probability above 0")
    return row
