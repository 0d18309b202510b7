// ode_error on CUDA: one launch, one pass over memory.
#include "../ode_error.h"

#include "reduce.cuh"
#include "slopes.cuh"

namespace fastdiff::cuda {
namespace {

struct Error {
  Memory x0, y;
  Slopes slopes;
  double rtol, atol;
  Sums<1> sums;
  Memory out;
};

template <class T>
FASTDIFF_INLINE double error_four(const Error& in, const Shape& shape, const Place& place) {
  T x0[4], y[4], e[4] = {};
  load_four(in.x0, shape, place, x0);
  load_four(in.y, shape, place, y);
  add_slopes(in.slopes, shape, place, e);
  double sum = 0;
  for (int j = 0; j < 4; ++j)
    if (place.first + j < shape.n) {
      const double r = e[j] / tolerance_formula((T)in.rtol, (T)in.atol, x0[j], y[j]);
      sum = fma(r, r, sum);
    }
  return sum;
}

// A double's slopes take two registers each: half as many threads then, rather than memory for what does not fit.
template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : 4)
    error_kernel(const __grid_constant__ Error in, const __grid_constant__ Shape shape) {
  const Place place(shape);
  double sum[1] = {place.first < shape.n ? error_four<T>(in, shape, place) : 0.0};
  if (sample_sum(in.sums, shape, place.sample, sum) && threadIdx.x == 0) store(in.out, place.sample, sum[0]);
}

void error_into(const ErrorOperands& in, const View& out) {
  const Layout layout = rows_of(in.x0);
  Inputs inputs(layout);
  const Memory x0 = inputs.add(in.x0), y = inputs.add(in.y);
  const Slopes slopes(in.K, in.weights, in.x0.numel);
  const Shape shape(layout, inputs.wide() && slopes.K.wide);
  const Launch launch(in.x0);
  const SumMemory<1> memory(in.x0, shape, launch);
  const Error error{x0, y, slopes, in.rtol, in.atol, memory.sums(), Memory(out)};
  launch(in.x0.dtype == Dtype::f64 ? error_kernel<double> : error_kernel<float>, layout.batch * shape.blocks, error, shape);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("ode_error", TORCH_BOX(&ode_error<error_into>));
  m.impl("ode_error.out", TORCH_BOX(&ode_error_out<error_into>));
}

}  // namespace fastdiff::cuda
