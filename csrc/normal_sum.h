// normal_sum's entry points, once for every device: validation, allocation, and the call of the device's `NormalSumInto`.
#pragma once

#include "tensor.h"

namespace fastdiff {

// What a device does: writes sum_m w_m*z(draw_m); draws [M] int64 and weights [M] float64 are dense.
using NormalSumInto = void(const View& key, const View& draws, const View& weights, int64_t stream, const View& out);

inline void check_sum(
    const char* name, const View& like, const View& key, const View& draws, const View& weights, int64_t stream) {
  check_state(name, like);
  check_key(key, like);
  if (draws.dim() != 1 || draws.dtype != Dtype::i64 || !same_device(draws, like))
    reject("draws", "[M] int64 on " + show_device(like), draws);
  if (!same_shape(weights, draws) || weights.dtype != Dtype::f64 || !same_device(weights, like))
    reject("weights", show_shape(draws.sizes) + " float64 on " + show_device(like), weights);
  check_counter(0, stream);
}

template <NormalSumInto* kInto>
void normal_sum_out(Tensor key, Tensor draws, Tensor weights, int64_t stream, Tensor out) {
  const View keys(std::move(key)), m(std::move(draws)), w(std::move(weights)), y(std::move(out));
  check_sum("out", y, keys, m, w, stream);
  kInto(dense(keys), dense(m), dense(w), stream, y);
}

template <NormalSumInto* kInto>
Tensor normal_sum(Tensor like, Tensor key, Tensor draws, Tensor weights, int64_t stream) {
  const View state(std::move(like)), keys(std::move(key)), m(std::move(draws)), w(std::move(weights));
  check_sum("like", state, keys, m, w, stream);
  const View out(new_like(state));
  kInto(dense(keys), dense(m), dense(w), stream, out);
  return out.tensor;
}

}  // namespace fastdiff
