// perturb's entry points, once for every device: validation, allocation, and the call of the device's `PerturbInto`.
#pragma once

#include <tuple>

#include "tensor.h"

namespace fastdiff {

struct PerturbOperands {
  View x0, mean_coef, std, key;
};

// What a device does: reads `in`, writes `out` and, if given, the noise; all have been validated.
using PerturbInto = void(
    const PerturbOperands& in, int64_t draw, int64_t stream, const View& out, const std::optional<View>& noise);

inline void check(const PerturbOperands& in, int64_t draw, int64_t stream) {
  check_per_sample("mean_coef", in.mean_coef, in.x0);
  check_per_sample("std", in.std, in.x0);
  check_key(in.key, in.x0);
  check_counter(draw, stream);
}

template <PerturbInto* kInto>
void perturb_out(
    Tensor x0, Tensor mean_coef, Tensor std, Tensor key, int64_t draw, int64_t stream, Tensor out, OptionalTensor noise) {
  const PerturbOperands in{View(std::move(x0)), View(std::move(mean_coef)), View(std::move(std)), View(std::move(key))};
  check_state("x0", in.x0);
  check(in, draw, stream);
  const View x_t(std::move(out));
  check_like("out", x_t, in.x0);
  std::optional<View> z;
  if (noise) check_like("noise", z.emplace(*noise), in.x0);
  kInto(in, draw, stream, x_t, z);
}

template <PerturbInto* kInto>
std::tuple<Tensor, OptionalTensor> perturb(
    Tensor x0, Tensor mean_coef, Tensor std, Tensor key, int64_t draw, int64_t stream, bool return_noise) {
  const PerturbOperands in{View(std::move(x0)), View(std::move(mean_coef)), View(std::move(std)), View(std::move(key))};
  check_state("x0", in.x0);
  check(in, draw, stream);
  const View out(new_like(in.x0));
  std::optional<View> z;
  if (return_noise) z.emplace(new_like(in.x0));
  kInto(in, draw, stream, out, z);
  return {out.tensor, z ? OptionalTensor(z->tensor) : std::nullopt};
}

// [B] float64 or float32, read as T.
struct PerSample {
  const void* data;
  bool wide;
  explicit PerSample(const View& t) : data(t.data()), wide(t.dtype == Dtype::f64) {}
  template <class T>
#ifdef __CUDACC__
  __host__ __device__
#endif
      T at(int64_t i) const {
    return wide ? (T)((const double*)data)[i] : (T)((const float*)data)[i];
  }
};

}  // namespace fastdiff
