// The dtypes that kernels tell apart.
#pragma once

#include <cstdint>

namespace fastdiff {

enum class Dtype : int8_t { f64, f32, bf16, f16, i64, other };

}  // namespace fastdiff
