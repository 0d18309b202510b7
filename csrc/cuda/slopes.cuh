// The slopes of a Runge-Kutta step on CUDA.
#pragma once

#include "../slopes.h"
#include "device.cuh"

namespace fastdiff::cuda {

struct Slopes {
  Memory K;
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
  FASTDIFF_METHOD T weight(int64_t sample, int m) const {
    return (T)__ldg(weights + sample * weight_stride + m);
  }
};

// Four slopes are asked for before the first of them is used, so that the waits for memory overlap.
template <class S, class T>
FASTDIFF_INLINE void add_wide_slopes(const S* K, const Slopes& slopes, const Shape& shape, const Place& place, T v[4]) {
  constexpr int kAhead = 4;
  K += place.sample * shape.n + place.first;
#pragma unroll
  for (int first = 0; first < kMaxSlopes; first += kAhead) {
    T terms[kAhead][4];
#pragma unroll
    for (int m = 0; m < kAhead; ++m)
      if (first + m < slopes.count) load4(K + (first + m) * slopes.stride, 0, terms[m]);
#pragma unroll
    for (int m = 0; m < kAhead; ++m)
      if (first + m < slopes.count)
        for (int j = 0; j < 4; ++j) v[j] = with_term(v[j], slopes.weight<T>(place.sample, first + m), terms[m][j]);
  }
}

// v += sum_m w[m]*K[m], in this order. The slopes have the state's dtype, so they are double where T is, and only there; the
// rows are plain, and where they are wide so is the stride.
template <class T>
FASTDIFF_INLINE void add_slopes(const Slopes& slopes, const Shape& shape, const Place& place, T v[4]) {
  const auto add_wide = [&](const auto* K) { add_wide_slopes(K, slopes, shape, place, v); };
  if (shape.wide) {
    if constexpr (sizeof(T) == 8) return add_wide((const double*)slopes.K.data);
    if (slopes.K.dtype == Dtype::f32) return add_wide((const float*)slopes.K.data);
    if (slopes.K.dtype == Dtype::bf16) return add_wide((const __nv_bfloat16*)slopes.K.data);
    return add_wide((const __half*)slopes.K.data);
  }
#pragma unroll 1
  for (int m = 0; m < slopes.count; ++m) {
    const T w = slopes.weight<T>(place.sample, m);
    for (int j = 0; j < 4; ++j)
      if (place.first + j < shape.n)
        v[j] = with_term(v[j], w, load<T>(slopes.K, m * slopes.stride + place.sample * shape.n + place.first + j));
  }
}

}  // namespace fastdiff::cuda
