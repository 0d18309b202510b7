// perturb on CUDA: x_t = m*x0 + s*z, the noise made in registers.
#include "../perturb.h"

#include "device.cuh"

namespace fastdiff::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) perturb_kernel(Memory x0, PerSample mean_coef, PerSample std, const int64_t* keys,
    int64_t draw, uint32_t stream, Memory out, Memory noise, Shape shape) {
  const Place place(shape);
  if (place.first >= shape.n) return;
  T x[4];
  load_four(x0, shape, place, x);
  float z[4];
  noise_block<Noise::normal>({(uint64_t)keys[place.sample], (uint64_t)draw, stream}, (uint32_t)(place.first / 4), z);
  const T m = mean_coef.at<T>(place.sample), s = std.at<T>(place.sample);
  for (int j = 0; j < 4; ++j) x[j] = perturb_formula<T>(m, x[j], s, (T)z[j]);
  store_four(out, shape, place, x);
  if (noise) store_four(noise, shape, place, z);
}

void perturb_into(const PerturbOperands& in, int64_t draw, int64_t stream, const View& out, const std::optional<View>& noise) {
  const Layout layout = layout_of(in.x0);
  const View x = with_layout(in.x0, layout), m = dense(in.mean_coef), s = dense(in.std), keys = dense(in.key);
  OutputSet outputs(layout);
  const Memory x_memory(x), y_memory(outputs.add("out", out)),
      z_memory = noise ? Memory(outputs.add("noise", *noise)) : Memory();
  outputs.check_against(x);
  const Shape shape(layout, x_memory.wide && y_memory.wide && (!noise || z_memory.wide));
  const auto kernel = x.dtype == Dtype::f64 ? perturb_kernel<double> : perturb_kernel<float>;
  const Launch launch(x);
  launch(kernel, layout.batch * shape.blocks, x_memory, PerSample(m), PerSample(s), (const int64_t*)keys.data(), draw,
      (uint32_t)stream, y_memory, z_memory, shape);
  outputs.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("perturb", TORCH_BOX(&perturb<perturb_into>));
  m.impl("perturb.out", TORCH_BOX(&perturb_out<perturb_into>));
}

}  // namespace fastdiff::cuda
