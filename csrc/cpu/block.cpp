#include "block.h"

#include "attention.h"
#include "linear.h"
#include "rows.h"
#include "scratch.h"

namespace bitlens {
namespace {

// One intermediate, reused by every block this thread runs.
class Buffer {
 public:
  void* of(int64_t elements, DType dtype) {
    const int64_t bytes = elements * static_cast<int64_t>(dtype_bytes(dtype));
    return scratch_.floats((bytes + 3) / 4);
  }

 private:
  Scratch scratch_;
};

// Rows of an activation; stride in elements.
struct Rows {
  void* data;
  int64_t stride;
};

// A norm's weight, null where the architecture has none, and the taps of its insides.
struct Norm {
  const float* weight;
  float *scale, *normalized;
};

class Pass {
 public:
  Pass(const BlockWeights& block, const RaggedRows& batch, const KVPages& kv, const Taps& taps,
       DType resid_dtype)
      : block_(block),
        batch_(batch),
        kv_(kv),
        taps_(taps),
        resid_dtype_(resid_dtype),
        dtype_(kv.dtype),
        rows_(batch.starts[batch.batch]) {}

  // z: what attention reads from the residual stream, [rows, n_heads * d_head].
  void* attend(const void* normed, const int64_t* positions, const RotaryTable& rotary) const {
    thread_local Buffer qkv_buffer, z_buffer;
    const int64_t q_width = block_.n_heads * block_.d_head,
                  kv_width = block_.n_kv_heads * block_.d_head;
    const int64_t width = q_width + 2 * kv_width;
    const Rows q_scratch = {qkv_buffer.of(rows_ * width, dtype_), width};
    const Rows k_scratch = offset(q_scratch, q_width), v_scratch = offset(k_scratch, kv_width);
    Rows q = tapped(Tap::Q, q_width, q_scratch), k = tapped(Tap::K, kv_width, k_scratch);
    const Rows v = tapped(Tap::V, kv_width, v_scratch);
    const LinearOutput outputs[] = {to(block_.q, q), to(block_.k, k), to(block_.v, v)};
    linear(normed, dtype_, rows_, block_.d_model, block_.d_model, outputs, 3);
    if (block_.q_norm) {
      q = head_norm(q, block_.n_heads, q_norm(), q_scratch);
      k = head_norm(k, block_.n_kv_heads, k_norm(), k_scratch);
    }
    q = rotate(q, block_.n_heads, positions, rotary, tapped(Tap::ROT_Q, q_width, q_scratch));
    k = rotate(k, block_.n_kv_heads, positions, rotary, tapped(Tap::ROT_K, kv_width, k_scratch));
    kv_write(batch_, k.data, k.stride, v.data, v.stride, kv_);
    void* z = taps_[Tap::Z];
    if (!z) z = z_buffer.of(rows_ * q_width, dtype_);
    const AttentionTaps inside = {taps_.floats(Tap::SCORES), taps_.floats(Tap::PATTERN),
                                  taps_.n_keys};
    attention({batch_, kv_, block_.n_heads, block_.attn_scale, block_.attn_cap, block_.window},
              q.data, q.stride, z, q_width, nullptr, inside);
    return z;
  }

  // act(gate(x)) * up(x), [rows, d_mlp].
  Rows gated(const void* normed) const {
    thread_local Buffer gate_up_buffer;
    const int64_t m = block_.d_mlp;
    const Rows scratch = {gate_up_buffer.of(rows_ * 2 * m, dtype_), 2 * m};
    const Rows gate = tapped(Tap::PRE, m, scratch);
    const Rows up = tapped(Tap::PRE_LINEAR, m, offset(scratch, m));
    const Rows post = tapped(Tap::POST, m, scratch);
    const LinearOutput outputs[] = {to(block_.gate, gate), to(block_.up, up)};
    linear(normed, dtype_, rows_, block_.d_model, block_.d_model, outputs, 2);
    gated_act(
        {block_.act, gate.data, up.data, m, gate.stride, up.stride, dtype_, post.data, post.stride},
        rows_);
    return post;
  }

  // A sublayer's way back to the residual stream, through its post norm where it has one.
  void* project(Rows x, int64_t k, const Projection& projection, const Norm& post, Tap tap) const {
    thread_local Buffer buffer, post_buffer;
    const int64_t d = block_.d_model;
    void* out = taps_[tap];
    if (!out) out = (post.weight ? post_buffer : buffer).of(rows_ * d, dtype_);
    const Rows projected = {post.weight ? buffer.of(rows_ * d, dtype_) : out, d};
    const LinearOutput output = to(projection, projected);
    linear(x.data, dtype_, rows_, k, x.stride, &output, 1);
    if (post.weight) norm(projected.data, dtype_, d, 1, d, post, {out, d});
    return out;
  }

  // ln1 of the residual stream.
  void* normed(const void* resid) const {
    void* out = norm_buffer();
    const int64_t d = block_.d_model;
    norm(resid, resid_dtype_, d, 1, d, ln1(), {out, d});
    return out;
  }

  // ln2 of resid_mid = round(resid + attn_out).
  void* normed(const void* resid, const void* attn_out, void* resid_mid) const {
    const int64_t d = block_.d_model;
    void* out = taps_[Tap::MLP_IN];
    if (!out) out = norm_buffer();
    rms_norm({resid, d, attn_out, block_.ln2, 1, d, block_.eps, resid_dtype_, dtype_, out, d,
              resid_mid, taps_.floats(Tap::LN2_SCALE), taps_.floats(Tap::LN2_NORMALIZED)},
             rows_);
    return out;
  }

  // resid = round(resid_mid + mlp_out).
  void add_to(const void* resid_mid, const void* mlp_out, void* resid) const {
    add(resid_mid, resid_dtype_, mlp_out, dtype_, rows_ * block_.d_model, resid);
  }

  Norm ln1_post() const {
    return {block_.ln1_post, taps_.floats(Tap::LN1_POST_SCALE),
            taps_.floats(Tap::LN1_POST_NORMALIZED)};
  }
  Norm ln2_post() const {
    return {block_.ln2_post, taps_.floats(Tap::LN2_POST_SCALE),
            taps_.floats(Tap::LN2_POST_NORMALIZED)};
  }

 private:
  Norm ln1() const {
    return {block_.ln1, taps_.floats(Tap::LN1_SCALE), taps_.floats(Tap::LN1_NORMALIZED)};
  }
  Norm q_norm() const {
    return {block_.q_norm, taps_.floats(Tap::Q_NORM_SCALE), taps_.floats(Tap::Q_NORM_NORMALIZED)};
  }
  Norm k_norm() const {
    return {block_.k_norm, taps_.floats(Tap::K_NORM_SCALE), taps_.floats(Tap::K_NORM_NORMALIZED)};
  }

  void* norm_buffer() const {
    thread_local Buffer buffer;
    return buffer.of(rows_ * block_.d_model, dtype_);
  }

  // Where an intermediate of this width goes: its tap if it has one, else `scratch`.
  Rows tapped(Tap tap, int64_t width, Rows scratch) const {
    return taps_[tap] ? Rows{taps_[tap], width} : scratch;
  }

  Rows offset(Rows base, int64_t elements) const {
    const size_t bytes = static_cast<size_t>(elements) * dtype_bytes(dtype_);
    return {static_cast<uint8_t*>(base.data) + bytes, base.stride};
  }

  LinearOutput to(const Projection& projection, Rows out) const {
    return {projection.weight, projection.bias, out.data, dtype_, out.stride};
  }

  void norm(const void* x, DType x_dtype, int64_t stride, int64_t heads, int64_t d,
            const Norm& norm, Rows out) const {
    rms_norm({x, stride, nullptr, norm.weight, heads, d, block_.eps, x_dtype, dtype_, out.data,
              out.stride, nullptr, norm.scale, norm.normalized},
             rows_);
  }

  Rows head_norm(Rows x, int64_t heads, const Norm& weight, Rows out) const {
    norm(x.data, dtype_, x.stride, heads, block_.d_head, weight, out);
    return out;
  }

  Rows rotate(Rows x, int64_t heads, const int64_t* positions, const RotaryTable& rotary,
              Rows out) const {
    rope({x.data, dtype_, heads, block_.d_head, x.stride, positions, rotary.cos, rotary.sin,
          out.data, out.stride},
         rows_, rotary.n_positions);
    return out;
  }

  const BlockWeights& block_;
  const RaggedRows& batch_;
  const KVPages& kv_;
  const Taps& taps_;
  const DType resid_dtype_, dtype_;
  const int64_t rows_;
};

}  // namespace

void run_block(const BlockWeights& block, const RaggedRows& batch, const int64_t* positions,
               const RotaryTable& rotary, const KVPages& kv, const Taps& taps, void* resid,
               DType resid_dtype) {
  const Pass pass(block, batch, kv, taps, resid_dtype);
  const int64_t z_width = block.n_heads * block.d_head;
  void* z = pass.attend(pass.normed(resid), positions, rotary);
  const void* attn_out =
      pass.project({z, z_width}, z_width, block.o, pass.ln1_post(), Tap::ATTN_OUT);
  void* resid_mid = taps[Tap::RESID_MID] ? taps[Tap::RESID_MID] : resid;
  const Rows post = pass.gated(pass.normed(resid, attn_out, resid_mid));
  const void* mlp_out = pass.project(post, block.d_mlp, block.down, pass.ln2_post(), Tap::MLP_OUT);
  pass.add_to(resid_mid, mlp_out, resid);
}

}  // namespace bitlens
