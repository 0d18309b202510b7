// normal, uniform, rademacher on CUDA.
#include "../noise.h"

#include "device.cuh"

namespace fastdiff::cuda {
namespace {

template <Noise kind>
__global__ void __launch_bounds__(kThreads)
    noise_kernel(Memory out, const int64_t* keys, int64_t draw, uint32_t stream, Shape shape) {
  const Place place(shape);
  if (place.first >= shape.n) return;
  const NoiseKey key{(uint64_t)keys[place.sample], (uint64_t)draw, stream};
  float z[4];
  noise_block<kind>(key, (uint32_t)(place.first / 4), z);
  store_four(out, shape, place, z);
}

template <Noise kind>
void fill(const View& key, int64_t draw, int64_t stream, const View& out) {
  const Layout layout = layout_of(out);
  Output target(out, layout);
  const View keys = dense(key);
  const Memory memory(target.view());
  const Shape shape(layout, memory.wide);
  const Launch launch(out);
  launch(noise_kernel<kind>, layout.batch * shape.blocks, memory, (const int64_t*)keys.data(), draw, (uint32_t)stream, shape);
  target.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) { FASTDIFF_REGISTER_NOISE(m, fill); }

}  // namespace fastdiff::cuda
