// normal, uniform, rademacher on the CPU.
#include "../noise.h"

#include "driver.h"

namespace fastdiff::cpu {
namespace {

template <Noise kind>
void fill(const View& key, int64_t draw, int64_t stream, const View& out) {
  const Layout layout = layout_of(out);
  Output target(out, layout);
  const View keys = dense(key);
  const auto* key_data = (const int64_t*)keys.data();
  const Sink sink(target.view());
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    const NoiseKey at{(uint64_t)key_data[sample], (uint64_t)draw, (uint32_t)stream};
    const int64_t offset = sample * layout.n + begin;
    if (layout.channels == 1 && sink.dtype == Dtype::f32 && (end - begin) % 4 == 0) {
      k.noise(kind, (float*)sink.data + offset, at, begin / 4, (end - begin) / 4);
      return;
    }
    static thread_local SampleNoise noise;
    const float* z = noise.range(k, kind, layout, at, begin, end);
    k.store_f32(sink.dtype, z, sink.data + offset * sink.size, end - begin);
  });
  target.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) { FASTDIFF_REGISTER_NOISE(m, fill); }

}  // namespace fastdiff::cpu
