// langevin_row's entry points, once for every device: validation, allocation, and the call of the device's `LangevinInto`.
#pragma once

#include "sampler_step.h"

namespace fastdiff {

inline void check_langevin(const Operands& in, int64_t draw, int64_t stream) {
  check_state("x", in.x);
  check_like("F", in.F, in.x);
  check_coef(in.coef, in.x, kCoefs);
  if (in.F_u) check_like("F_u", *in.F_u, in.x);
  for (int j = 0; j < kMaxTerms; ++j)
    if (in.terms[j]) check_like(kTermNames[j], *in.terms[j], in.x);
  if (in.key) check_key(*in.key, in.x);
  if (in.key.has_value() == in.terms[kMaxTerms - 1].has_value())
    throw std::invalid_argument(std::string("z: expected noise or its key, got ") + (in.key ? "both" : "neither"));
  check_counter(draw, stream);
}

inline void check_rows(const View& rows, const View& x) {
  if (rows.dim() != 2 || rows.sizes[0] != x.batch() || rows.sizes[1] != kCoefs || rows.dtype != Dtype::f64 ||
      !same_device(rows, x))
    reject("out", "[" + std::to_string(x.batch()) + ", " + std::to_string(kCoefs) + "] float64 on " + show_device(x), rows);
}

// What a device does: writes the row of each sample to dense float64 memory [B, kCoefs].
using LangevinInto = void(const Operands& in, int64_t draw, int64_t stream, bool shared, const View& rows);

template <LangevinInto* kInto>
void langevin_row_out(Tensor x, Tensor F, Tensor coef, OptionalTensor F_u, OptionalTensor G, OptionalTensor z,
    OptionalTensor key, int64_t draw, int64_t stream, bool shared, Tensor out) {
  const Operands in{View(std::move(x)), View(std::move(F)), View(std::move(coef)), view(F_u),
      {view(G), std::nullopt, std::nullopt, std::nullopt, view(z)}, view(key), std::nullopt, std::nullopt};
  const View rows(std::move(out));
  check_state("x", in.x);
  check_rows(rows, in.x);
  check_langevin(in, draw, stream);
  Output written(rows, Layout{in.x.batch(), kCoefs});
  kInto(in, draw, stream, shared, written.view());
  written.finish();
}

template <LangevinInto* kInto>
Tensor langevin_row(Tensor x, Tensor F, Tensor coef, OptionalTensor F_u, OptionalTensor G, OptionalTensor z, OptionalTensor key,
    int64_t draw, int64_t stream, bool shared) {
  const Operands in{View(std::move(x)), View(std::move(F)), View(std::move(coef)), view(F_u),
      {view(G), std::nullopt, std::nullopt, std::nullopt, view(z)}, view(key), std::nullopt, std::nullopt};
  check_langevin(in, draw, stream);
  const int64_t size[2] = {in.x.batch(), kCoefs};
  const View rows(torch::stable::new_empty(in.x.tensor, {size, 2}, ScalarType::Double));
  kInto(in, draw, stream, shared, rows);
  return rows.tensor;
}

// The row of x + e*score + sqrt(2e)*z from the base row and r = |z|/|eps| (fastdiff/ops/langevin_row.py).
#ifdef __CUDACC__
__host__ __device__
#endif
    inline void fold_step_size(const double* base, double ratio, double* row) {
  for (int c = 0; c < kCoefs; ++c) row[c] = base[c];
  const double rho = base[kCl] * ratio * ratio, tilt = -rho * base[kEd] / base[kEx];
  row[kCx] = 1 - rho + tilt * base[kCx];
  row[kCd] = tilt * base[kCd];
  row[kCg] = tilt * base[kCg];
  row[kCn] = ::sqrt(2 * base[kCl]) * ratio / base[kEx];
}

}  // namespace fastdiff
