// What the Runge-Kutta ops share: the stack of slopes and its weights.
#pragma once

#include "tensor.h"

namespace fastdiff {

constexpr int kMaxSlopes = 7;

// Plain rows whatever the state's memory: K is a stack of them.
inline Layout rows_of(const View& x) { return Layout{x.batch(), x.batch() ? x.numel / x.batch() : 0, 1}; }

inline void check_slopes(const View& K, const View& x) {
  const bool shaped = K.dim() == x.dim() + 1 && std::equal(x.sizes.begin(), x.sizes.end(), K.sizes.begin() + 1);
  if (shaped && K.sizes[0] <= kMaxSlopes && K.dtype == x.dtype && same_device(K, x)) return;
  std::string shape = show_shape(x.sizes).substr(1);
  reject("K",
      "[M, " + shape + " " + dtype_name(x.tensor.scalar_type()) + " on " + show_device(x) +
          " with M <= " + std::to_string(kMaxSlopes),
      K);
}

inline void check_weights(const View& weights, const View& x, int64_t count) {
  const auto dim = weights.dim();
  const bool shaped = dim >= 1 && dim <= 2 && weights.sizes[dim - 1] == count && (dim == 1 || weights.sizes[0] == x.batch());
  if (!shaped || weights.dtype != Dtype::f64 || !same_device(weights, x)) {
    const auto c = std::to_string(count);
    reject("weights", "[" + c + "] or [" + std::to_string(x.batch()) + ", " + c + "] float64 on " + show_device(x), weights);
  }
}

}  // namespace fastdiff
