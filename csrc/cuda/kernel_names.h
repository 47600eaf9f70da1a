// The kernels of the library, by the names under which their launches are counted.
#pragma once

namespace bitlens::cuda {

enum class Kernel : int {
  RMS_NORM,
  NORMALIZE,
  NORM_WEIGHT,
  ADD,
  CAST,
  SCALED,
  SCALE_SCORES,
  SOFT_CAP,
  GATED_ACT,
  LINEAR_TILED,
  LINEAR_FEW_ROWS,
  EMBEDDING,
  ROPE,
  KV_WRITE,
  ROPE_KV_WRITE,
  ATTENTION_SCORES,
  ATTENTION_SOFTMAX,
  ATTENTION_VALUES,
  ATTENTION_SUM,
  SOFTMAX,
  LOGSUMEXP,
  LOG_SOFTMAX,
  CROSS_ENTROPY,
  MEAN_LOSS,
  SAMPLE_EDIT,
  SAMPLE,
  COUNT
};

inline constexpr const char* kKernelNames[] = {"rms_norm",
                                               "normalize",
                                               "norm_weight",
                                               "add",
                                               "cast",
                                               "scaled",
                                               "scale_scores",
                                               "soft_cap",
                                               "gated_act",
                                               "linear_tiled",
                                               "linear_few_rows",
                                               "embedding",
                                               "rope",
                                               "kv_write",
                                               "rope_kv_write",
                                               "attention_scores",
                                               "attention_softmax",
                                               "attention_values",
                                               "attention_sum",
                                               "softmax",
                                               "logsumexp",
                                               "log_softmax",
                                               "cross_entropy",
                                               "mean_loss",
                                               "sample_edit",
                                               "sample"};

static_assert(sizeof(kKernelNames) / sizeof(kKernelNames[0]) == static_cast<int>(Kernel::COUNT));

}  // namespace bitlens::cuda
