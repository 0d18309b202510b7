// denoising_loss on CUDA: one launch, one pass over F and x0, the noise made in registers.
#include "../denoising_loss.h"

#include "reduce.cuh"

namespace fastdiff::cuda {
namespace {

struct Loss {
  Memory F, x0, out;
  const int64_t* keys;
  int64_t draw;
  uint32_t stream;
  const double* coef;
  bool coef_per_sample;
  Sums<1> sums;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    loss_kernel(const __grid_constant__ Loss loss, const __grid_constant__ Shape shape) {
  const Place place(shape);
  const double* const row = loss.coef + (loss.coef_per_sample ? place.sample * kLossCoefs : 0);
  double sum[1] = {};
  if (place.first < shape.n) {
    T F[4], x0[4];
    load_four(loss.F, shape, place, F);
    load_four(loss.x0, shape, place, x0);
    float z[4];
    const NoiseKey key{(uint64_t)loss.keys[place.sample], (uint64_t)loss.draw, loss.stream};
    noise_block<Noise::normal>(key, (uint32_t)(place.first / 4), z);
    const T b = (T)__ldg(row), p = (T)__ldg(row + 1), q = (T)__ldg(row + 2);
    for (int j = 0; j < 4; ++j)
      if (place.first + j < shape.n) {
        const double r = residual_formula(b, F[j], p, x0[j], q, (T)z[j]);
        sum[0] = fma(r, r, sum[0]);
      }
  }
  if (sample_sum(loss.sums, shape, place.sample, sum) && threadIdx.x == 0) store(loss.out, place.sample, row[3] * sum[0]);
}

void loss_into(const LossOperands& in, int64_t draw, int64_t stream, const View& out) {
  const Layout layout = layout_of(in.F);
  Inputs inputs(layout);
  Loss loss{inputs.add(in.F), inputs.add(in.x0), Memory(out)};
  const View keys = dense(in.key), coef = dense(in.coef);
  loss.keys = (const int64_t*)keys.data();
  loss.draw = draw;
  loss.stream = (uint32_t)stream;
  loss.coef = (const double*)coef.data();
  loss.coef_per_sample = coef.dim() == 2;
  const Shape shape(layout, inputs.wide());
  const Launch launch(in.F);
  const SumMemory<1> memory(in.F, shape, launch);
  loss.sums = memory.sums();
  launch(in.in_double() ? loss_kernel<double> : loss_kernel<float>, layout.batch * shape.blocks, loss, shape);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("denoising_loss", TORCH_BOX(&denoising_loss<loss_into>));
  m.impl("denoising_loss.out", TORCH_BOX(&denoising_loss_out<loss_into>));
}

}  // namespace fastdiff::cuda
