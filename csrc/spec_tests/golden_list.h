// Which golden cases there are. Host only.
#pragma once

#include <vector>

#include "golden_line.h"

namespace bitlens::spec_tests {

inline void add_formats(std::vector<Case>* cases) {
  for (Format format : {Format::kBF16, Format::kF16}) {
    cases->push_back({.op = Op::kWiden, .format = format, .rows = 64, .k = 1024, .flag = 1});
  }
  for (int f = 0; f <= static_cast<int>(Format::kQ4_1); ++f) {
    const Format format = static_cast<Format>(f);
    cases->push_back({.op = Op::kWiden, .format = format, .rows = 35, .k = 96});
    for (Format out : {Format::kF32, Format::kBF16}) {
      for (double scale : {1.0, 25.25}) {
        cases->push_back({.op = Op::kEmbedding,
                          .format = format,
                          .out = out,
                          .rows = 7,
                          .n = 37,
                          .k = 64,
                          .real = scale});
      }
    }
  }
  for (int64_t offset : {0, 1, -1}) {
    cases->push_back(
        {.op = Op::kRound, .out = Format::kBF16, .n = 1 << 18, .flag = 14, .position = offset});
    cases->push_back(
        {.op = Op::kRound, .out = Format::kF16, .n = 1 << 20, .flag = 12, .position = offset});
  }
}

inline void add_elementary(std::vector<Case>* cases) {
  for (Op op : {Op::kExp, Op::kLog}) {
    cases->push_back({.op = op, .n = 4099, .flag = 0});
    cases->push_back({.op = op, .n = 4099, .flag = 1, .real = 110.0});
    cases->push_back({.op = op, .n = 4099, .flag = 1, .real = 2.0});
    cases->push_back({.op = op, .n = kSpecials, .flag = 2});
  }
  for (int kind : {0, 1}) {
    for (Format act : {Format::kF32, Format::kBF16}) {
      for (double range : {1.0, 20.0, 120.0}) {
        cases->push_back({.op = Op::kGatedAct, .act = act, .n = 1003, .flag = kind, .real = range});
      }
    }
  }
}

inline void add_linear(std::vector<Case>* cases) {
  for (int k : {1, 255, 256, 257, 576, 1536}) {
    for (int bias : {0, 1}) {
      for (Format act : {Format::kF32, Format::kBF16}) {
        for (Format out : {Format::kF32, Format::kBF16}) {
          cases->push_back(
              {.op = Op::kLinear, .act = act, .out = out, .rows = 3, .n = 5, .k = k, .flag = bias});
        }
      }
    }
  }
  for (int f = 1; f <= static_cast<int>(Format::kQ4_1); ++f) {
    for (Format out : {Format::kF32, Format::kBF16}) {
      cases->push_back({.op = Op::kLinear,
                        .format = static_cast<Format>(f),
                        .act = out,
                        .out = out,
                        .rows = 17,
                        .n = 67,
                        .k = 576,
                        .flag = 1});
    }
  }
  cases->push_back({.op = Op::kLinear, .rows = 3, .n = 33, .k = 576});
  cases->push_back({.op = Op::kLinearOtherLeaf, .rows = 3, .n = 33, .k = 576, .flag = 128});
}

// The order of bf16 activations at the edges of its blocks, and over every storage of weights.
inline void add_pairs(std::vector<Case>* cases) {
  for (int k : {2, 31, 32, 33, 34, 63, 65, 253, 254, 259, 289}) {
    cases->push_back({.op = Op::kLinear,
                      .format = Format::kBF16,
                      .act = Format::kBF16,
                      .rows = 3,
                      .n = 5,
                      .k = k});
  }
  for (int f = 0; f <= static_cast<int>(Format::kQ4_1); ++f) {
    for (int rows : {1, 40}) {
      cases->push_back({.op = Op::kLinear,
                        .format = static_cast<Format>(f),
                        .act = Format::kBF16,
                        .rows = rows,
                        .n = 35,
                        .k = 1568});
    }
  }
  const Case control = {.op = Op::kLinear,
                        .format = Format::kBF16,
                        .act = Format::kBF16,
                        .rows = 3,
                        .n = 33,
                        .k = 64};
  cases->push_back(control);
  cases->push_back(control);
  cases->back().op = Op::kLinearOtherOrder;
}

inline void add_rows(std::vector<Case>* cases) {
  for (int d : {1, 15, 16, 17, 255, 256, 257, 576}) {
    cases->push_back({.op = Op::kRowSum, .n = d});
    cases->push_back({.op = Op::kRowSumOfSquares, .n = d});
    for (int kind : {0, 1, 2, 3}) {
      cases->push_back({.op = Op::kSoftmax, .n = d, .flag = kind});
    }
    for (Format act : {Format::kF32, Format::kBF16}) {
      cases->push_back({.op = Op::kAdd, .act = act, .n = d});
      for (int residual : {0, 1}) {
        cases->push_back(
            {.op = Op::kRmsNorm, .act = act, .rows = 3, .k = d, .flag = residual, .real = 1e-5});
      }
    }
  }
  cases->push_back({.op = Op::kSoftmax, .n = 49152});
}

inline void add_attention(std::vector<Case>* cases) {
  for (int d_head : {64, 80, 256}) {
    for (double theta : {1e4, 1e5, 1e6}) {
      for (int64_t position : {0, 1, 8191, 199999}) {
        cases->push_back({.op = Op::kRopeTable, .k = d_head, .position = position, .real = theta});
      }
    }
    for (Format act : {Format::kF32, Format::kBF16}) {
      cases->push_back({.op = Op::kRope,
                        .act = act,
                        .rows = 5,
                        .n = 3,
                        .k = d_head,
                        .position = 8190,
                        .real = 1e5});
    }
  }
  for (Format act : {Format::kF32, Format::kBF16}) {
    for (int d_head : {16, 40, 64, 128}) {
      for (int64_t position : {0, 63, 255, 256, 299, 600}) {
        for (int64_t window : {0, 7, 270}) {
          cases->push_back({.op = Op::kAttention,
                            .act = act,
                            .rows = d_head == 40 ? 1 : 2,
                            .n = d_head == 40 ? 3 : 4,
                            .k = d_head,
                            .flag = window > 0 ? 1 : 0,
                            .position = position,
                            .window = window,
                            .real = 4.0});
        }
      }
    }
  }
}

inline void add_sampling(std::vector<Case>* cases) {
  for (double range : {0.0, 1.0, 16.0, 1e30}) {
    cases->push_back(
        {.op = Op::kSampling, .n = 515, .k = 7, .flag = 3, .position = 4294967295, .real = range});
  }
}

inline void add_typical(std::vector<Case>* cases) {
  for (double range : {0.0, 1.0, 15.0}) {
    cases->push_back({.op = Op::kTypical, .n = 515, .k = 7, .real = range});
  }
}

// An fp32 residual stream beside bf16 activations.
inline void add_fp32_stream(std::vector<Case>* cases) {
  for (int d : {1, 17, 256, 576}) {
    cases->push_back({.op = Op::kAdd, .act = Format::kBF16, .n = d, .flag = 1});
    for (int flag : {2, 3}) {
      cases->push_back({.op = Op::kRmsNorm,
                        .act = Format::kBF16,
                        .rows = 3,
                        .k = d,
                        .flag = flag,
                        .real = 1e-5});
    }
  }
}

inline void add_soft_cap(std::vector<Case>* cases) {
  cases->push_back({.op = Op::kTanh, .n = 4099, .flag = 0});
  cases->push_back({.op = Op::kTanh, .n = 4099, .flag = 1, .real = 10.0});
  cases->push_back({.op = Op::kTanh, .n = 4099, .flag = 1, .real = 2.0});
  cases->push_back({.op = Op::kTanh, .n = kSpecials, .flag = 2});
  for (int cap : {1, 30, 50}) {
    cases->push_back({.op = Op::kSoftCap, .n = 1003, .k = cap, .flag = 0});
    cases->push_back({.op = Op::kSoftCap, .n = 1003, .k = cap, .flag = 1, .real = 120.0});
    cases->push_back({.op = Op::kSoftCap, .n = kSpecials, .k = cap, .flag = 2});
  }
  for (Format act : {Format::kF32, Format::kBF16}) {
    for (int64_t position : {0, 63, 256, 600}) {
      for (int64_t window : {0, 7, 270}) {
        cases->push_back({.op = Op::kAttention,
                          .act = act,
                          .rows = 2,
                          .n = 4,
                          .k = 64,
                          .flag = 2 + (window > 0 ? 1 : 0),
                          .position = position,
                          .window = window,
                          .real = 4.0});
      }
    }
  }
}

inline void add_backward(std::vector<Case>* cases) {
  for (Format act : {Format::kF32, Format::kBF16}) {
    for (Format out : {Format::kF32, Format::kBF16}) {
      cases->push_back({.op = Op::kScaled, .act = act, .out = out, .n = 259, .real = 0.3});
    }
  }
  for (int d : {1, 16, 17, 256, 257, 576}) {
    cases->push_back({.op = Op::kNormalizeBackward, .rows = 3, .k = d, .real = 1e-5});
    for (Format act : {Format::kF32, Format::kBF16}) {
      cases->push_back({.op = Op::kRmsNormBackward, .act = act, .rows = 3, .k = d, .real = 1e-5});
    }
    cases->push_back({.op = Op::kRmsNormBackward,
                      .act = Format::kBF16,
                      .rows = 3,
                      .k = d,
                      .flag = 1,
                      .real = 1e-5});
    for (int masked : {0, 1}) {
      cases->push_back({.op = Op::kSoftmaxBackward, .n = d, .flag = masked});
    }
  }
  for (int cap : {1, 30, 50}) {
    cases->push_back({.op = Op::kSoftCapBackward, .n = 1003, .k = cap, .real = 120.0});
  }
  for (int kind : {0, 1}) {
    for (Format act : {Format::kF32, Format::kBF16}) {
      for (double range : {1.0, 20.0, 120.0}) {
        cases->push_back(
            {.op = Op::kGatedActBackward, .act = act, .n = 1003, .flag = kind, .real = range});
      }
    }
  }
}

inline void add_stepwise(std::vector<Case>* cases) {
  for (int d : {1, 16, 257, 576}) {
    for (int residual : {0, 1}) {
      cases->push_back({.op = Op::kStepwiseNorm,
                        .act = Format::kBF16,
                        .rows = 3,
                        .k = d,
                        .flag = residual,
                        .real = 1e-5});
    }
  }
  for (int d_head : {64, 80, 256}) {
    cases->push_back({.op = Op::kStepwiseRope,
                      .act = Format::kBF16,
                      .rows = 5,
                      .n = 3,
                      .k = d_head,
                      .position = 8190,
                      .real = 1e5});
  }
  for (double range : {1.0, 20.0, 120.0}) {
    for (int kind : {0, 1}) {
      cases->push_back({.op = Op::kStepwiseGatedAct,
                        .act = Format::kBF16,
                        .n = 1003,
                        .flag = kind,
                        .real = range});
    }
    cases->push_back({.op = Op::kStepwiseScore, .act = Format::kBF16, .n = 1003, .real = range});
  }
}

inline void add_fold(std::vector<Case>* cases) {
  for (int aggregate = 0; aggregate <= static_cast<int>(spec::Aggregate::kSoftmax); ++aggregate) {
    for (int heads : {1, 3}) {
      for (int n : {1, 7, 515}) {
        cases->push_back(
            {.op = Op::kFold, .rows = heads, .n = n, .flag = aggregate, .window = 16, .real = 0.1});
      }
    }
  }
}

inline void add_dictionaries(std::vector<Case>* cases) {
  for (int n : {1, 63, 64, 65, 1000, 4097}) {
    for (int k : {1, 7, 32}) {
      for (int kind : {0, 1, 2}) {
        cases->push_back({.op = Op::kTopK, .n = n, .k = k < n ? k : n, .flag = kind});
      }
    }
    for (int kind : {0, 1}) cases->push_back({.op = Op::kAbove, .n = n, .flag = kind});
  }
  for (int entries : {0, 1, 32, 255, 256, 257, 700}) {
    for (int width : {1, 17, 64, 576}) {
      cases->push_back(
          {.op = Op::kSparseDecode, .rows = 50, .n = entries, .k = width, .flag = entries % 2});
    }
  }
  for (int d : {1, 16, 255, 257, 576}) {
    for (double clip : {1.0, 0.3}) {
      cases->push_back({.op = Op::kDictionaryStep, .n = d, .real = clip});
    }
  }
}

// Every case has its own seed, its index from 1.
inline std::vector<Case> golden_list() {
  std::vector<Case> cases;
  add_formats(&cases);
  add_elementary(&cases);
  add_linear(&cases);
  add_rows(&cases);
  add_attention(&cases);
  add_sampling(&cases);
  add_typical(&cases);
  add_fp32_stream(&cases);
  add_soft_cap(&cases);
  add_backward(&cases);
  add_stepwise(&cases);
  add_fold(&cases);
  add_dictionaries(&cases);
  add_cross_entropy(&cases);
  add_training(&cases);
  add_pairs(&cases);
  for (size_t i = 0; i < cases.size(); ++i) cases[i].seed = i + 1;
  for (Case& c : cases) {  // a negative control needs the inputs of the case before it
    if (is_linear_control(c.op)) --c.seed;
  }
  return cases;
}

inline std::vector<uint32_t> evaluate_on_host(const Case& c) {
  std::vector<float> scratch(static_cast<size_t>(scratch_floats(c)));
  std::vector<uint32_t> words(static_cast<size_t>(output_words(c)));
  const int64_t count = evaluate(c, scratch.data(), words.data());
  words.resize(static_cast<size_t>(count));
  return words;
}

}  // namespace bitlens::spec_tests
