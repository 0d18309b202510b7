// The slopes of a Runge-Kutta step, read in blocks.
#pragma once

#include "../slopes.h"
#include "driver.h"

namespace fastdiff::cpu {

struct Slopes {
  Input K;
  int count;
  int64_t stride;  // elements from one slope to the next
  const double* weights;
  int64_t weight_stride;  // 0 where the batch shares them
  Slopes(const View& K, const View& weights, int64_t numel)
      : K(K),
        count((int)K.sizes[0]),
        stride(numel),
        weights((const double*)weights.data()),
        weight_stride(weights.dim() == 2 ? weights.sizes[1] : 0) {}
  template <class T>
  void blocks(const Kernels& k, int64_t at, int64_t n, T (*scratch)[kBlock], const T** terms) const {
    for (int m = 0; m < count; ++m) terms[m] = K.block(k, m * stride + at, n, scratch[m]);
  }
};

}  // namespace fastdiff::cpu
