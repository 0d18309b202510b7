// ode_error on the CPU: one pass over memory.
#include "../ode_error.h"

#include "partial_sums.h"
#include "slopes.h"
#include "typed.h"

namespace fastdiff::cpu {
namespace {

template <class T>
void run(
    const ErrorOperands& in, const Input& x0, const Input& y, const Slopes& slopes, const Layout& layout, PartialSums& sums) {
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    T scratch[3][kBlock], slope_scratch[kMaxSlopes][kBlock], w[kMaxSlopes];
    const T* terms[kMaxSlopes];
    for (int m = 0; m < slopes.count; ++m) w[m] = (T)slopes.weights[sample * slopes.weight_stride + m];
    double sum = 0;
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = std::min(kBlock, end - i), at = sample * layout.n + i;
      slopes.blocks(k, at, n, slope_scratch, terms);
      (k.*Typed<T>::combine)(n, (const T*)nullptr, slopes.count, w, terms, scratch[0]);
      const T *before = x0.block(k, at, n, scratch[1]), *after = y.block(k, at, n, scratch[2]);
      sum += (k.*Typed<T>::error)(n, scratch[0], before, after, (T)in.rtol, (T)in.atol);
    }
    sums.at(sample, begin) = sum;
  });
}

void error_into(const ErrorOperands& in, const View& out) {
  const Layout layout = rows_of(in.x0);
  const View x0 = with_layout(in.x0, layout), y = with_layout(in.y, layout);
  const Slopes slopes(in.K, in.weights, in.x0.numel);
  PartialSums sums(layout);
  x0.dtype == Dtype::f64 ? run<double>(in, Input(x0), Input(y), slopes, layout, sums)
                         : run<float>(in, Input(x0), Input(y), slopes, layout, sums);
  write_per_sample(out, layout.batch, [&](int64_t b) { return sums.total(b); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("ode_error", TORCH_BOX(&ode_error<error_into>));
  m.impl("ode_error.out", TORCH_BOX(&ode_error_out<error_into>));
}

}  // namespace fastdiff::cpu
