// denoising_loss's entry points, once for every device: validation, allocation, and the call of the device's `LossInto`.
#pragma once

#include "noise_key.h"
#include "tensor.h"

namespace fastdiff {

constexpr int kLossCoefs = 4;  // b, p, q, w

struct LossOperands {
  View F, x0, coef, key;
  bool in_double() const { return F.dtype == Dtype::f64 || x0.dtype == Dtype::f64; }
};

// What a device does: writes w*sum (b*F + p*x0 + q*z)^2 of each sample to dense memory [B], float64 or float32.
using LossInto = void(const LossOperands& in, int64_t draw, int64_t stream, const View& out);

inline void check(const LossOperands& in, int64_t draw, int64_t stream) {
  check_state("F", in.F);
  check_like("x0", in.x0, in.F);
  check_coef(in.coef, in.F, kLossCoefs);
  check_key(in.key, in.F);
  check_counter(draw, stream);
}

template <LossInto* kInto>
void denoising_loss_out(Tensor F, Tensor x0, Tensor coef, Tensor key, int64_t draw, int64_t stream, Tensor out) {
  const LossOperands in{View(std::move(F)), View(std::move(x0)), View(std::move(coef)), View(std::move(key))};
  const View losses(std::move(out));
  check_state("F", in.F);
  check_per_sample("out", losses, in.F);
  check(in, draw, stream);
  Output written(losses, Layout{in.F.batch(), 1});
  kInto(in, draw, stream, written.view());
  written.finish();
}

template <LossInto* kInto>
Tensor denoising_loss(Tensor F, Tensor x0, Tensor coef, Tensor key, int64_t draw, int64_t stream) {
  const LossOperands in{View(std::move(F)), View(std::move(x0)), View(std::move(coef)), View(std::move(key))};
  check(in, draw, stream);
  const View losses(new_per_sample(in.F, in.in_double() ? ScalarType::Double : ScalarType::Float));
  kInto(in, draw, stream, losses);
  return losses.tensor;
}

}  // namespace fastdiff
