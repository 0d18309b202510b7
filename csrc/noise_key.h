// Where a sample's noise lies in the noise format.
#pragma once

#include <cstdint>

namespace fastdiff {

enum class Noise { normal, uniform, rademacher };

struct NoiseKey {
  uint64_t key, draw;
  uint32_t stream;
};

}  // namespace fastdiff
