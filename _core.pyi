"""The compiled core: kernels on raw addresses (csrc/bindings.cpp). Nothing here validates tensors.

Pointers are `tensor.data_ptr()`, strides count elements, `dtype` is 0 (fp32) or 1 (bf16), `format`
is a `bitlens.model.weights.checkpoint.Format`.
"""

numerics_version: str

def isa() -> str: ...
def set_isa(name: str) -> None: ...
def available_isas() -> list[str]: ...
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
def pack(format: int, rows: int, n: int, k: int, panels: int) -> None: ...
def unpack_rows(
    format: int, panels: int, n: int, k: int, row0: int, rows: int, out: int
) -> None: ...
def linear(
    x: int,
    dtype: int,
    rows: int,
    x_stride: int,
    panels: int,
    format: int,
    n: int,
    k: int,
    bias: int,
    out: int,
    out_dtype: int,
    out_stride: int,
) -> None: ...
def embedding(
    tokens: int,
    count: int,
    panels: int,
    format: int,
    n: int,
    k: int,
    scale: float,
    out: int,
    dtype: int,
) -> None: ...
def rms_norm(
    x: int,
    residual: int,
    weight: int,
    rows: int,
    heads: int,
    d: int,
    x_stride: int,
    eps: float,
    x_dtype: int,
    dtype: int,
    out: int,
    out_stride: int,
    residual_out: int,
    scale_out: int,
    normalized_out: int,
) -> None: ...

stepwise_rms_norm = rms_norm

def normalize(x: int, scale: int, rows: int, d: int, dtype: int, out: int) -> None: ...
def norm_weight(normalized: int, weight: int, rows: int, d: int, out: int, dtype: int) -> None: ...
def add(x: int, dtype: int, y: int, y_dtype: int, count: int, out: int) -> None: ...
def cast(x: int, dtype: int, count: int, out: int, out_dtype: int) -> None: ...
def scale_scores(x: int, scale: float, count: int, dtype: int, out: int) -> None: ...
def gated_act(
    kind: int,
    gate: int,
    up: int,
    rows: int,
    width: int,
    gate_stride: int,
    up_stride: int,
    dtype: int,
    out: int,
    out_stride: int,
) -> None: ...

stepwise_gated_act = gated_act

def softmax(x: int, rows: int, n: int, out: int) -> None: ...
def logsumexp(x: int, rows: int, n: int, out: int) -> None: ...
def log_softmax(x: int, rows: int, n: int, out: int) -> None: ...
def exp(x: int, count: int, out: int) -> None: ...
def log(x: int, count: int, out: int) -> None: ...
def tanh(x: int, count: int, out: int) -> None: ...
def soft_cap(x: int, count: int, cap: float, out: int) -> None: ...
def rope_inv_freq(theta: float, d_head: int, out: int) -> None: ...
def rope_table(
    inv_freq: int,
    half: int,
    position: int,
    count: int,
    cos: int,
    sin: int,
    attention_factor: float = 1.0,
) -> None: ...
def exp_f64(x: float) -> float: ...
def log_f64(x: float) -> float: ...
def rope(
    x: int,
    dtype: int,
    rows: int,
    heads: int,
    d_head: int,
    x_stride: int,
    positions: int,
    cos: int,
    sin: int,
    n_positions: int,
    out: int,
    out_stride: int,
) -> None: ...

stepwise_rope = rope

def kv_write(
    k: int,
    v: int,
    dtype: int,
    k_stride: int,
    v_stride: int,
    starts: int,
    past: int,
    batch: int,
    n_kv_heads: int,
    d_head: int,
    page_table: int,
    max_pages: int,
    k_pages: int,
    v_pages: int,
) -> None: ...
def attention(
    q: int,
    dtype: int,
    q_stride: int,
    n_heads: int,
    n_kv_heads: int,
    d_head: int,
    scale: float,
    cap: float,
    window: int,
    starts: int,
    past: int,
    batch: int,
    page_table: int,
    max_pages: int,
    k_pages: int,
    v_pages: int,
    out: int,
    out_stride: int,
    lse: int,
) -> None: ...
def attention_scores(
    q: int,
    dtype: int,
    q_stride: int,
    n_heads: int,
    n_kv_heads: int,
    d_head: int,
    scale: float,
    cap: float,
    window: int,
    starts: int,
    past: int,
    batch: int,
    page_table: int,
    max_pages: int,
    k_pages: int,
    row_indices: int,
    n_rows: int,
    k_total: int,
    out: int,
) -> None: ...
def attention_values(
    pattern: int,
    k_total: int,
    n_heads: int,
    n_kv_heads: int,
    d_head: int,
    dtype: int,
    window: int,
    starts: int,
    past: int,
    batch: int,
    page_table: int,
    max_pages: int,
    v_pages: int,
    out: int,
    out_stride: int,
) -> None: ...

TAPS: tuple[str, ...]

class Blocks:
    """The blocks of a model, run in one call each range."""

    def add(
        self,
        norms: tuple[int, int, int, int, int, int],
        projections: list[tuple[int, int, int, int, int]],
        shape: tuple[int, int, int, int, int],
        window: int,
        eps: float,
        attn_scale: float,
        attn_cap: float,
        act: int,
    ) -> None:
        """Appends a block.

        norms: ln1, ln2, ln1_post, ln2_post, q_norm, k_norm (0: none). projections: (panels, format,
        n, k, bias) of q, k, v, o, gate, up, down. shape: d_model, n_heads, n_kv_heads, d_head,
        d_mlp. attn_cap: 0 for none.
        """

    def run(
        self,
        start: int,
        stop: int,
        x: int,
        resid: int,
        values: int,
        resid_dtype: int,
        dtype: int,
        positions: int,
        starts: int,
        past: int,
        batch: int,
        page_table: int,
        max_pages: int,
        pages: list[tuple[int, int]],
        rotary: list[tuple[int, int, int]],
        tapped: list[tuple[int, int]],
        n_keys: int,
    ) -> None:
        """Blocks start .. stop - 1: from the residual stream x to resid, `values` numbers each.

        pages: (k_pages, v_pages) of each of those blocks; rotary: (cos, sin, n_positions) of each.
        tapped: (index in TAPS, address) of what a range of one block leaves behind; scores and
        patterns have n_keys columns.
        """

# Sampling (csrc/cpu/sampling.h). x, n, stride, first_id: the slice; rows: `SamplingRow` records of
# the batch; indices: int64 [count], the rows meant.
def sampling_edit(
    row: int,
    n: int,
    first_id: int,
    allowed: tuple[int, int],
    bias: tuple[int, int, int],
    banned: tuple[int, int],
    seen: tuple[int, int, int],
    penalties: tuple[float, float, float],
) -> None: ...
def sampling_prepare(
    logits: int,
    type: int,
    rows: int,
    n: int,
    stride: int,
    temperature: int,
    x: int,
    max: int,
    bad: int,
) -> None: ...
def sampling_terms(
    keys: int,
    count: int,
    x_max: float,
    seed: int,
    position: int,
    draw: int,
    weights: int,
    scores: int,
) -> None: ...
def sampling_score(d: float, r: int) -> int: ...
def sampling_logprobs(keys: int, x_max: int, totals: int, count: int, out: int) -> None: ...
def sampling_perturbed(
    x: int,
    n: int,
    stride: int,
    first_id: int,
    rows: int,
    indices: int,
    count: int,
    m: int,
    thresholds: int,
    best: int,
    mass: int,
) -> None: ...
def sampling_top(
    x: int,
    n: int,
    stride: int,
    first_id: int,
    rows: int,
    indices: int,
    count: int,
    k: int,
    width: int,
    keys: int,
) -> None: ...
def sampling_choose(
    rows: int, indices: int, count: int, keys: int, width: int, totals: int, choices: int
) -> None: ...
def sampling_before(
    x: int,
    n: int,
    stride: int,
    first_id: int,
    rows: int,
    indices: int,
    count: int,
    keys: int,
    width: int,
    mass: int,
    counts: int,
) -> None: ...
def sampling_histogram(
    x: int,
    n: int,
    stride: int,
    first_id: int,
    rows: int,
    indices: int,
    count: int,
    prefix: int,
    shift: int,
    mass: int,
    counts: int,
) -> None: ...
def sampling_nth_tie(
    x: int,
    n: int,
    stride: int,
    first_id: int,
    rows: int,
    indices: int,
    count: int,
    order: int,
    nth: int,
    ids: int,
) -> None: ...
def typical_mask(
    x: int,
    n: int,
    stride: int,
    first_id: int,
    rows: int,
    indices: int,
    count: int,
    thresholds: int,
    out: int,
) -> None: ...
def typical_sums(
    x: int,
    n: int,
    stride: int,
    first_id: int,
    rows: int,
    indices: int,
    count: int,
    sums: int,
) -> None: ...
def typical_before(
    x: int,
    n: int,
    stride: int,
    first_id: int,
    rows: int,
    indices: int,
    count: int,
    centres: int,
    keys: int,
    width: int,
    mass: int,
    counts: int,
) -> None: ...
def typical_histogram(
    x: int,
    n: int,
    stride: int,
    first_id: int,
    rows: int,
    indices: int,
    count: int,
    centres: int,
    prefix: int,
    shift: int,
    mass: int,
    counts: int,
) -> None: ...
def typical_keep(
    x: int,
    n: int,
    stride: int,
    first_id: int,
    rows: int,
    indices: int,
    count: int,
    centres: int,
    last: int,
    out: int,
) -> None: ...
def scaled(x: int, dtype: int, count: int, factor: float, out: int, out_dtype: int) -> None: ...
def normalize_backward(
    dn: int, x: int, scale: int, rows: int, d: int, dx: int, dscale: int
) -> None: ...
def rms_scale_backward(dscale: int, x: int, scale: int, rows: int, d: int, dx: int) -> None: ...
def rms_norm_backward(
    dy: int, x: int, weight: int, rows: int, d: int, eps: float, x_dtype: int, dtype: int, dx: int
) -> None: ...
def soft_cap_backward(dy: int, y: int, count: int, cap: float, dx: int) -> None: ...
def softmax_backward(p: int, dp: int, rows: int, n: int, ds: int) -> None: ...
def gated_act_backward(
    kind: int, gate: int, up: int, dpost: int, count: int, dtype: int, dgate: int, dup: int
) -> None: ...

# Sparse dictionaries and their training (csrc/cpu/dictionary.h).

def top_k(x: int, rows: int, n: int, k: int, values: int, indices: int) -> None: ...
def weighted_sums(
    coefs: int,
    indices: int,
    starts: int,
    rows: int,
    table: int,
    table_rows: int,
    d: int,
    bias: int,
    out: int,
) -> None: ...
def gathered_dots(
    x: int, indices: int, starts: int, rows: int, table: int, table_rows: int, d: int, out: int
) -> None: ...
def by_column(indices: int, entries: int, columns: int, starts: int, order: int) -> None: ...
def sums_of_squares(x: int, rows: int, d: int, out: int) -> None: ...
def unit_rows(w: int, rows: int, d: int) -> None: ...
def project_rows(g: int, w: int, rows: int, d: int) -> None: ...
def adam(
    g: int,
    count: int,
    beta1: float,
    one_minus_beta1: float,
    beta2: float,
    one_minus_beta2: float,
    step: float,
    v_scale: float,
    eps: float,
    p: int,
    first: int,
    second: int,
) -> None: ...

# Probes (csrc/cpu/fold.h). Aggregates are 0 mean, 1 last, 2 max, 3 rolling, 4 ema, 5 softmax.

def fold_state_floats(aggregate: int, window: int) -> int: ...
def fold_scores(
    aggregate: int,
    window: int,
    weight: float,
    values: int,
    logits: int,
    starts: int,
    sequences: int,
    heads: int,
    intercept: float,
    seen: int,
    state: int,
    out: int,
) -> None: ...
