// The version of the numerics spec. A change of any promised bit changes it (docs/numerics.md).
#pragma once

namespace bitlens::spec {

constexpr char kNumericsVersion[] = "3";

}  // namespace bitlens::spec
