// normal, uniform, rademacher on the CPU.
#include "driver.h"

namespace fastdiff::cpu {
namespace {

template <Noise kind>
void fill(const View& key, int64_t draw, int64_t stream, const View& out) {
  check_key(key, out);
  check_counter(draw, stream);
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

template <Noise kind>
Tensor noise_like(Tensor like, Tensor key, int64_t draw, int64_t stream) {
  const View model(std::move(like));
  check_state("like", model);
  Tensor out = new_like(model);
  fill<kind>(View(std::move(key)), draw, stream, View(out));
  return out;
}

template <Noise kind>
void noise_out(Tensor key, int64_t draw, int64_t stream, Tensor out) {
  const View target(std::move(out));
  check_state("out", target);
  fill<kind>(View(std::move(key)), draw, stream, target);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("normal", TORCH_BOX(&noise_like<Noise::normal>));
  m.impl("uniform", TORCH_BOX(&noise_like<Noise::uniform>));
  m.impl("rademacher", TORCH_BOX(&noise_like<Noise::rademacher>));
  m.impl("normal.out", TORCH_BOX(&noise_out<Noise::normal>));
  m.impl("uniform.out", TORCH_BOX(&noise_out<Noise::uniform>));
  m.impl("rademacher.out", TORCH_BOX(&noise_out<Noise::rademacher>));
}

}  // namespace fastdiff::cpu
