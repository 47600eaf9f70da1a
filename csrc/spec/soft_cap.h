// Soft cap: y = cap * tanh(x / cap), three roundings, all in fp32 (Gemma 2, arXiv 2408.00118).
// Rounding and tanh_f32 never fall as x rises, so the cap may tie two values but not swap them.
#pragma once

#include "tanh.h"

namespace bitlens::spec {

BL_FN float soft_cap(float x, float cap) { return cap * tanh_f32(x / cap); }

}  // namespace bitlens::spec
