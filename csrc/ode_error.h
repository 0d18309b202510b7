// ode_error's entry points, once for every device: validation, allocation, and the call of the device's `ErrorInto`.
#pragma once

#include <cstdio>

#include "slopes.h"

namespace fastdiff {

struct ErrorOperands {
  View x0, y, K, weights;
  double rtol, atol;
  int slopes() const { return (int)K.sizes[0]; }
};

// What a device does: writes the sums to dense memory [B], float64 or float32. K and the weights are dense.
using ErrorInto = void(const ErrorOperands& in, const View& out);

inline void check_tolerance(double rtol, double atol) {
  const auto shown = [](double v) {
    char text[64];
    std::snprintf(text, sizeof text, "%.6f", v);
    return std::string(text);
  };
  if (!(rtol >= 0)) throw std::invalid_argument("rtol: expected a number >= 0, got " + shown(rtol));
  if (!(atol > 0)) throw std::invalid_argument("atol: expected a number > 0, got " + shown(atol));
}

inline void check(const ErrorOperands& in) {
  check_state("x0", in.x0);
  check_like("y", in.y, in.x0);
  check_slopes(in.K, in.x0);
  check_weights(in.weights, in.x0, in.K.sizes[0]);
  check_tolerance(in.rtol, in.atol);
}

template <ErrorInto* kInto>
void ode_error_out(Tensor x0, Tensor y, Tensor K, Tensor weights, double rtol, double atol, Tensor out) {
  const ErrorOperands in{
      View(std::move(x0)), View(std::move(y)), dense(View(std::move(K))), dense(View(std::move(weights))), rtol, atol};
  const View sums(std::move(out));
  check_state("x0", in.x0);
  check_per_sample("out", sums, in.x0);
  check(in);
  Output written(sums, Layout{in.x0.batch(), 1});
  kInto(in, written.view());
  written.finish();
}

template <ErrorInto* kInto>
Tensor ode_error(Tensor x0, Tensor y, Tensor K, Tensor weights, double rtol, double atol) {
  const ErrorOperands in{
      View(std::move(x0)), View(std::move(y)), dense(View(std::move(K))), dense(View(std::move(weights))), rtol, atol};
  check(in);
  const View sums(new_per_sample(in.x0, ScalarType::Double));
  kInto(in, sums);
  return sums.tensor;
}

}  // namespace fastdiff
