"""The compiled core: kernels on tensors and numpy arrays (csrc/bindings.cpp).

Every array is checked before a kernel gets its address: on the CPU, of the type that is read or
written, without gaps, as large as sizes and strides say (they count elements). What is not raises
TypeError or ValueError. `dtype` is 0 (fp32) or 1 (bf16), `format` is a
`bitlens.model.weights.checkpoint.Format`.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy.typing as npt
import torch

Array: TypeAlias = torch.Tensor | npt.NDArray[Any] | None
"""None where nothing is given or wanted."""

numerics_version: str

def isa() -> str: ...
def set_isa(name: str) -> None: ...
def isa_setting() -> str: ...
def available_isas() -> list[str]: ...
def bf16_products() -> tuple[str, str, list[tuple[str, float, float]]]: ...
def choose_bf16_products(few: str, many: str) -> bool: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...

class HugePages:
    """Memory on huge pages where the system has them, with the buffer protocol."""

    def __init__(self, bytes: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class ResultPages:
    """Memory of one large result, with the buffer protocol; kept for the next of its size."""

    def __init__(self, bytes: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def kept_page_bytes() -> int: ...
def drop_kept_pages() -> None: ...
def packed_bytes(format: int, n: int, k: int) -> int: ...
def pack(format: int, rows: Array, n: int, k: int, panels: Array) -> None: ...
def unpack_rows(
    format: int, panels: Array, n: int, k: int, row0: int, rows: int, out: Array
) -> None: ...
def linear(
    x: Array,
    dtype: int,
    rows: int,
    x_stride: int,
    panels: Array,
    format: int,
    n: int,
    k: int,
    bias: Array,
    out: Array,
    out_dtype: int,
    out_stride: int,
) -> None: ...
def embedding(
    tokens: Array,
    count: int,
    panels: Array,
    format: int,
    n: int,
    k: int,
    scale: float,
    out: Array,
    dtype: int,
) -> None: ...
def rms_norm(
    x: Array,
    residual: Array,
    weight: Array,
    rows: int,
    heads: int,
    d: int,
    x_stride: int,
    eps: float,
    x_dtype: int,
    dtype: int,
    out: Array,
    out_stride: int,
    residual_out: Array,
    scale_out: Array,
    normalized_out: Array,
) -> None: ...

stepwise_rms_norm = rms_norm

def normalize(x: Array, scale: Array, rows: int, d: int, dtype: int, out: Array) -> None: ...
def norm_weight(
    normalized: Array, weight: Array, rows: int, d: int, out: Array, dtype: int
) -> None: ...
def add(x: Array, dtype: int, y: Array, y_dtype: int, count: int, out: Array) -> None: ...
def cast(x: Array, dtype: int, count: int, out: Array, out_dtype: int) -> None: ...
def scale_scores(x: Array, scale: float, count: int, dtype: int, out: Array) -> None: ...
def gated_act(
    kind: int,
    gate: Array,
    up: Array,
    rows: int,
    width: int,
    gate_stride: int,
    up_stride: int,
    dtype: int,
    out: Array,
    out_stride: int,
) -> None: ...

stepwise_gated_act = gated_act

def softmax(x: Array, rows: int, n: int, out: Array) -> None: ...
def logsumexp(x: Array, rows: int, n: int, out: Array) -> None: ...
def log_softmax(x: Array, rows: int, n: int, out: Array) -> None: ...
def cross_entropy(
    x: Array,
    dtype: int,
    targets: Array,
    rows: int,
    n: int,
    ignored: int,
    smoothing: float,
    losses: Array,
    mean: Array | None,
) -> None: ...
def exp(x: Array, count: int, out: Array) -> None: ...
def log(x: Array, count: int, out: Array) -> None: ...
def tanh(x: Array, count: int, out: Array) -> None: ...
def soft_cap(x: Array, count: int, cap: float, out: Array) -> None: ...
def rope_inv_freq(theta: float, d_head: int, out: Array) -> None: ...
def rope_table(
    inv_freq: Array,
    half: int,
    position: int,
    count: int,
    cos: Array,
    sin: Array,
    attention_factor: float = 1.0,
) -> None: ...
def exp_f64(x: float) -> float: ...
def log_f64(x: float) -> float: ...
def rope(
    x: Array,
    dtype: int,
    rows: int,
    heads: int,
    d_head: int,
    x_stride: int,
    positions: Array,
    cos: Array,
    sin: Array,
    n_positions: int,
    out: Array,
    out_stride: int,
) -> None: ...

stepwise_rope = rope

def kv_write(
    k: Array,
    v: Array,
    dtype: int,
    k_stride: int,
    v_stride: int,
    starts: Array,
    past: Array,
    batch: int,
    n_kv_heads: int,
    d_head: int,
    page_table: Array,
    max_pages: int,
    k_pages: Array,
    v_pages: Array,
) -> None: ...
def attention(
    q: Array,
    dtype: int,
    q_stride: int,
    n_heads: int,
    n_kv_heads: int,
    d_head: int,
    scale: float,
    cap: float,
    window: int,
    starts: Array,
    past: Array,
    batch: int,
    page_table: Array,
    max_pages: int,
    k_pages: Array,
    v_pages: Array,
    out: Array,
    out_stride: int,
    lse: Array,
) -> None: ...
def attention_scores(
    q: Array,
    dtype: int,
    q_stride: int,
    n_heads: int,
    n_kv_heads: int,
    d_head: int,
    scale: float,
    cap: float,
    window: int,
    starts: Array,
    past: Array,
    batch: int,
    page_table: Array,
    max_pages: int,
    k_pages: Array,
    row_indices: Array,
    n_rows: int,
    k_total: int,
    out: Array,
) -> None: ...
def attention_values(
    pattern: Array,
    k_total: int,
    n_heads: int,
    n_kv_heads: int,
    d_head: int,
    dtype: int,
    window: int,
    starts: Array,
    past: Array,
    batch: int,
    page_table: Array,
    max_pages: int,
    v_pages: Array,
    out: Array,
    out_stride: int,
) -> None: ...

TAPS: tuple[str, ...]

class Arrays:
    """Arrays that many calls read: looked at once, and kept alive."""

    def __init__(self, arrays: Sequence[Array]) -> None: ...

class TokenScorer:
    """Linear probes of several hooks, and where each of a number of sequences stands."""

    def __init__(self, sequences: int) -> None: ...
    def add(
        self,
        panels: Array,
        probes: int,
        k: int,
        bias: Array,
        rules: Array,
        weights: Array,
        thresholds: Array,
    ) -> None:
        """Appends the probes of a hook: rules [3, probes] are aggregate, window and tokens skipped,
        weights those of exponential averages, thresholds fp64."""

    def push(self, x: Sequence[Array], tokens: int, rows: Array, out: Array) -> int:
        """Scores a pass's tokens, of sequences `rows` in order, into out [tokens, all probes].

        x: fp32 or bf16 [tokens, k] of each hook. Returns 1 if a score exceeds its threshold, 0 if
        none does, -1 - h where hook h gave a value that is no finite number.
        """

class Blocks:
    """The blocks of a model, run in one call each range."""

    def add(
        self,
        norms: tuple[Array, Array, Array, Array, Array, Array],
        projections: list[tuple[torch.Tensor, int, int, int, Array]],
        shape: tuple[int, int, int, int, int],
        window: int,
        eps: float,
        attn_scale: float,
        attn_cap: float,
        act: int,
    ) -> None:
        """Appends a block.

        norms: ln1, ln2, ln1_post, ln2_post, q_norm, k_norm; None for none. projections: (panels,
        format, n, k, bias) of q, k, v, o, gate, up, down. shape: d_model, n_heads, n_kv_heads,
        d_head, d_mlp. attn_cap: 0 for none.
        """

    def run(
        self,
        start: int,
        stop: int,
        x: Array,
        resid: Array,
        values: int,
        resid_dtype: int,
        dtype: int,
        positions: Array,
        starts: Array,
        past: Array,
        batch: int,
        page_table: Array,
        max_pages: int,
        pages: Arrays,
        rotary: list[tuple[torch.Tensor, torch.Tensor, int]],
        rotary_of: list[int],
        tapped: list[tuple[int, torch.Tensor]],
        n_keys: int,
    ) -> None:
        """Blocks start .. stop - 1: from the residual stream x to resid, `values` numbers each.

        pages: k_pages and v_pages of every block. rotary: tables (cos, sin, n_positions);
        rotary_of: each block's. tapped: (index in TAPS, room) for what a range of one block leaves
        behind; scores and patterns have n_keys columns.
        """

# Sampling (csrc/cpu/sampling.h). x, n, stride, first_id: the slice; rows: `SamplingRow` records of
# the batch; indices: int64 [count], the rows meant.
def sampling_edit(
    row: Array,
    n: int,
    first_id: int,
    allowed: tuple[Array, int],
    bias: tuple[Array, Array, int],
    banned: tuple[Array, int],
    seen: tuple[Array, Array, int],
    penalties: tuple[float, float, float],
) -> None: ...
def sampling_prepare(
    logits: Array,
    type: int,
    rows: int,
    n: int,
    stride: int,
    temperature: Array,
    x: Array,
    max: Array,
    bad: Array,
) -> None: ...
def sampling_terms(
    keys: Array,
    count: int,
    x_max: float,
    seed: int,
    position: int,
    draw: int,
    weights: Array,
    scores: Array,
) -> None: ...
def sampling_score(d: float, r: int) -> int: ...
def sampling_logprobs(keys: Array, x_max: Array, totals: Array, count: int, out: Array) -> None: ...
def sampling_perturbed(
    x: Array,
    n: int,
    stride: int,
    first_id: int,
    rows: Array,
    indices: Array,
    count: int,
    m: int,
    thresholds: Array,
    best: Array,
    mass: Array,
) -> None: ...
def sampling_top(
    x: Array,
    n: int,
    stride: int,
    first_id: int,
    rows: Array,
    indices: Array,
    count: int,
    k: Array,
    width: int,
    keys: Array,
) -> None: ...
def sampling_choose(
    rows: Array, indices: Array, count: int, keys: Array, width: int, totals: Array, choices: Array
) -> None: ...
def sampling_before(
    x: Array,
    n: int,
    stride: int,
    first_id: int,
    rows: Array,
    indices: Array,
    count: int,
    keys: Array,
    width: int,
    mass: Array,
    counts: Array,
) -> None: ...
def sampling_histogram(
    x: Array,
    n: int,
    stride: int,
    first_id: int,
    rows: Array,
    indices: Array,
    count: int,
    prefix: Array,
    shift: int,
    mass: Array,
    counts: Array,
) -> None: ...
def sampling_nth_tie(
    x: Array,
    n: int,
    stride: int,
    first_id: int,
    rows: Array,
    indices: Array,
    count: int,
    order: Array,
    nth: Array,
    ids: Array,
) -> None: ...
def typical_mask(
    x: Array,
    n: int,
    stride: int,
    first_id: int,
    rows: Array,
    indices: Array,
    count: int,
    thresholds: Array,
    out: Array,
) -> None: ...
def typical_sums(
    x: Array,
    n: int,
    stride: int,
    first_id: int,
    rows: Array,
    indices: Array,
    count: int,
    sums: Array,
) -> None: ...
def typical_before(
    x: Array,
    n: int,
    stride: int,
    first_id: int,
    rows: Array,
    indices: Array,
    count: int,
    centres: Array,
    keys: Array,
    width: int,
    mass: Array,
    counts: Array,
) -> None: ...
def typical_histogram(
    x: Array,
    n: int,
    stride: int,
    first_id: int,
    rows: Array,
    indices: Array,
    count: int,
    centres: Array,
    prefix: Array,
    shift: int,
    mass: Array,
    counts: Array,
) -> None: ...
def typical_keep(
    x: Array,
    n: int,
    stride: int,
    first_id: int,
    rows: Array,
    indices: Array,
    count: int,
    centres: Array,
    last: Array,
    out: Array,
) -> None: ...
def scaled(x: Array, dtype: int, count: int, factor: float, out: Array, out_dtype: int) -> None: ...
def normalize_backward(
    dn: Array, x: Array, scale: Array, rows: int, d: int, dx: Array, dscale: Array
) -> None: ...
def rms_scale_backward(
    dscale: Array, x: Array, scale: Array, rows: int, d: int, dx: Array
) -> None: ...
def rms_norm_backward(
    dy: Array,
    x: Array,
    weight: Array,
    rows: int,
    d: int,
    eps: float,
    x_dtype: int,
    dtype: int,
    dx: Array,
) -> None: ...
def soft_cap_backward(dy: Array, y: Array, count: int, cap: float, dx: Array) -> None: ...
def softmax_backward(p: Array, dp: Array, rows: int, n: int, ds: Array) -> None: ...
def gated_act_backward(
    kind: int,
    gate: Array,
    up: Array,
    dpost: Array,
    count: int,
    dtype: int,
    dgate: Array,
    dup: Array,
) -> None: ...

# Sparse dictionaries and their training (csrc/cpu/dictionary.h).

class ActiveFeatures:
    @property
    def entries(self) -> int: ...
    def write(self, starts: Array, indices: Array, values: Array) -> None: ...

def encode_above(
    x: Array, m: int, panels: Array, format: int, n: int, k: int, bias: Array, thresholds: Array
) -> ActiveFeatures: ...
def encode_top_k(
    x: Array,
    m: int,
    panels: Array,
    format: int,
    n: int,
    k: int,
    bias: Array,
    selected: int,
    values: Array,
    indices: Array,
) -> None: ...
def top_k(x: Array, rows: int, n: int, k: int, values: Array, indices: Array) -> None: ...
def weighted_sums(
    coefs: Array,
    indices: Array,
    starts: Array,
    rows: int,
    table: Array,
    table_rows: int,
    d: int,
    bias: Array,
    out: Array,
) -> None: ...
def gathered_dots(
    x: Array,
    indices: Array,
    starts: Array,
    rows: int,
    table: Array,
    table_rows: int,
    d: int,
    out: Array,
) -> None: ...
def by_column(indices: Array, entries: int, columns: int, starts: Array, order: Array) -> None: ...
def sums_of_squares(x: Array, rows: int, d: int, out: Array) -> None: ...
def unit_rows(w: Array, rows: int, d: int) -> None: ...
def project_rows(g: Array, w: Array, rows: int, d: int) -> None: ...
def adam(
    g: Array,
    count: int,
    beta1: float,
    one_minus_beta1: float,
    beta2: float,
    one_minus_beta2: float,
    step: float,
    v_scale: float,
    eps: float,
    clip: float,
    decay: float,
    p: Array,
    first: Array,
    second: Array,
) -> None: ...

# Training (csrc/cpu/token_logprob.h, weight_gradients.h). Weight gradients are added to `sums`,
# over sequences from starts[i] to starts[i + 1].

def token_logprob(
    logits: Array,
    rows: int,
    n: int,
    ids: Array,
    temperature: float,
    out: Array,
    x_max: Array,
    z: Array,
) -> None: ...
def token_logprob_backward(
    dlogprob: Array,
    logits: Array,
    rows: int,
    n: int,
    ids: Array,
    temperature: float,
    x_max: Array,
    z: Array,
    dlogits: Array,
) -> None: ...
def linear_weight_grad(
    dy: Array,
    dy_dtype: int,
    n: int,
    x: Array,
    x_dtype: int,
    k: int,
    starts: Array,
    count: int,
    sums: Array,
) -> None: ...
def bias_grad(dy: Array, dtype: int, n: int, starts: Array, count: int, sums: Array) -> None: ...
def norm_weight_grad(
    dy: Array,
    dtype: int,
    d: int,
    normalized: Array,
    heads: int,
    starts: Array,
    count: int,
    sums: Array,
) -> None: ...
def embed_grad(
    dresid: Array,
    d: int,
    tokens: Array,
    vocabulary: int,
    scale: float,
    starts: Array,
    count: int,
    sums: Array,
) -> None: ...

# fp64, of losses (csrc/cpu/loss.h).

def bounded_exp(x: Array, count: int, y: Array) -> None: ...
def softplus(x: Array, count: int, y: Array) -> None: ...

# Probes (csrc/cpu/fold.h). Aggregates are 0 mean, 1 last, 2 max, 3 rolling, 4 ema, 5 softmax.

def fold_state_floats(aggregate: int, window: int) -> int: ...
def fold_scores(
    aggregate: int,
    window: int,
    weight: float,
    values: Array,
    logits: Array,
    starts: Array,
    sequences: int,
    heads: int,
    intercept: float,
    seen: Array,
    state: Array,
    out: Array,
) -> None: ...
