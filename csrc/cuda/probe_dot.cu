// probe_dot on CUDA: one launch, one pass over g, the probe made in registers.
#include "../probe_dot.h"

#include "reduce.cuh"

namespace fastdiff::cuda {
namespace {

template <class T, Noise kind>
__global__ void __launch_bounds__(kThreads)
    probe_dot_kernel(Memory g, const int64_t* keys, int64_t draw, uint32_t stream, Sums<1> sums, Memory out, Shape shape) {
  const Place place(shape);
  double sum[1] = {};
  if (place.first < shape.n) {
    T values[4];
    load_four(g, shape, place, values);  // 0 beyond the end
    float v[4];
    noise_block<kind>({(uint64_t)keys[place.sample], (uint64_t)draw, stream}, (uint32_t)(place.first / 4), v);
    for (int j = 0; j < 4; ++j) sum[0] += (double)(values[j] * (T)v[j]);
  }
  if (sample_sum(sums, shape, place.sample, sum) && threadIdx.x == 0) store(out, place.sample, sum[0]);
}

template <class T>
auto kernel_of(Noise probe) {
  return probe == Noise::normal ? probe_dot_kernel<T, Noise::normal> : probe_dot_kernel<T, Noise::rademacher>;
}

void probe_dot_into(const View& g, const View& key, int64_t draw, int64_t stream, Noise probe, const View& out) {
  const Layout layout = layout_of(g);
  Inputs inputs(layout);
  const Memory values = inputs.add(g);
  const View keys = dense(key);
  const Shape shape(layout, inputs.wide());
  const Launch launch(g);
  const SumMemory<1> memory(g, shape, launch);
  launch(g.dtype == Dtype::f64 ? kernel_of<double>(probe) : kernel_of<float>(probe), layout.batch * shape.blocks, values,
      (const int64_t*)keys.data(), draw, (uint32_t)stream, memory.sums(), Memory(out), shape);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("probe_dot", TORCH_BOX(&probe_dot<probe_dot_into>));
  m.impl("probe_dot.out", TORCH_BOX(&probe_dot_out<probe_dot_into>));
}

}  // namespace fastdiff::cuda
