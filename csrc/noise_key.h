// Where a sample's noise lies in the noise format.
#pragma once

#include <cstdint>

namespace fastdiff {

enum class Noise { normal, uniform, rademacher };

// The half of a stream in which the noise of known data lies.
constexpr uint32_t known_stream(uint32_t stream) { return stream ^ 0x80000000u; }

struct NoiseKey {
  uint64_t key, draw;
  uint32_t stream;
};

}  // namespace fastdiff
