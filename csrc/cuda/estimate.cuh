// What sampler_step, langevin_row and ode_stage begin with: D = clip(a*x + b*F + b_u*F_u), with a row of coefficients.
#pragma once

#include "../coef.h"
#include "device.cuh"

namespace fastdiff::cuda {

struct Network {
  Memory x, F, F_u;
  const double* coef;
  bool coef_per_sample;

  template <class T>
  FASTDIFF_METHOD T coefficient(int64_t sample, int column) const {
    return (T)__ldg(row(sample) + column);
  }
  FASTDIFF_METHOD const double* row(int64_t sample) const { return coef + (coef_per_sample ? sample * kCoefs : 0); }
};

// x and D.
template <class T>
FASTDIFF_INLINE void denoised_four(const Network& network, const Shape& shape, const Place& place, T x[4], T d[4]) {
  const auto c = [&](int column) { return network.coefficient<T>(place.sample, column); };
  load_four(network.x, shape, place, x);
  load_four(network.F, shape, place, d);
  for (int j = 0; j < 4; ++j) d[j] = denoised_formula(c(kA), x[j], c(kB), d[j]);
  if (network.F_u) {
    T v[4];
    load_four(network.F_u, shape, place, v);
    for (int j = 0; j < 4; ++j) d[j] = with_term(d[j], c(kBu), v[j]);
  }
  for (int j = 0; j < 4; ++j) d[j] = clip_formula(d[j], c(kLo), c(kHi));
}

// x and c_x*x + c_D*D + c_g*G.
template <class T>
FASTDIFF_INLINE void guided_four(
    const Network& network, const Memory& G, const Shape& shape, const Place& place, T x[4], T d[4]) {
  const auto c = [&](int column) { return network.coefficient<T>(place.sample, column); };
  denoised_four(network, shape, place, x, d);
  for (int j = 0; j < 4; ++j) d[j] = advanced_formula(c(kCx), x[j], c(kCd), d[j]);
  if (G) {
    T v[4];
    load_four(G, shape, place, v);
    for (int j = 0; j < 4; ++j) d[j] = with_term(d[j], c(kCg), v[j]);
  }
}

}  // namespace fastdiff::cuda
