// normal_sum on CUDA: every thread makes its four elements of all draws in registers and writes their sum once.
#include "../normal_sum.h"

#include "device.cuh"

namespace fastdiff::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) normal_sum_kernel(
    Memory out, const int64_t* keys, int64_t count, const int64_t* draws, const double* weights, uint32_t stream, Shape shape) {
  const Place place(shape);
  if (place.first >= shape.n) return;
  const uint64_t key = (uint64_t)keys[place.sample];
  T total[4] = {};
  for (int64_t m = 0; m < count; ++m) {
    const double weight = __ldg(weights + m);
    if (weight == 0) continue;  // for every thread or for none
    float z[4];
    noise_block<Noise::normal>({key, (uint64_t)__ldg((const long long*)draws + m), stream}, (uint32_t)(place.first / 4), z);
    for (int j = 0; j < 4; ++j) total[j] = with_term(total[j], (T)weight, (T)z[j]);
  }
  store_four(out, shape, place, total);
}

void normal_sum_into(const View& key, const View& draws, const View& weights, int64_t stream, const View& out) {
  const Layout layout = layout_of(out);
  Output target(out, layout);
  const Memory memory(target.view());
  const Shape shape(layout, memory.wide);
  const Launch launch(out);
  launch(out.dtype == Dtype::f64 ? normal_sum_kernel<double> : normal_sum_kernel<float>, layout.batch * shape.blocks, memory,
      (const int64_t*)key.data(), draws.numel, (const int64_t*)draws.data(), (const double*)weights.data(), (uint32_t)stream,
      shape);
  target.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("normal_sum", TORCH_BOX(&normal_sum<normal_sum_into>));
  m.impl("normal_sum.out", TORCH_BOX(&normal_sum_out<normal_sum_into>));
}

}  // namespace fastdiff::cuda
