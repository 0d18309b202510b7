// probe_dot on the CPU: one pass over g; the probe is made a range at a time.
#include "../probe_dot.h"

#include "partial_sums.h"
#include "typed.h"

namespace fastdiff::cpu {
namespace {

template <class T>
void run(
    const Input& g, const Layout& layout, const int64_t* keys, int64_t draw, int64_t stream, Noise probe, PartialSums& sums) {
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    static thread_local SampleNoise generator;
    T g_scratch[kBlock], v_scratch[kBlock];
    const NoiseKey at{(uint64_t)keys[sample], (uint64_t)draw, (uint32_t)stream};
    const float* v = generator.range(k, probe, layout, at, begin, end);
    double sum = 0;
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = std::min(kBlock, end - i);
      const T* values = g.block(k, sample * layout.n + i, n, g_scratch);
      sum += (k.*Typed<T>::dot)(n, values, Input(v + (i - begin)).block(k, 0, n, v_scratch));
    }
    sums.at(sample, begin) = sum;
  });
}

void probe_dot_into(const View& g, const View& key, int64_t draw, int64_t stream, Noise probe, const View& out) {
  const Layout layout = layout_of(g);
  const View values = with_layout(g, layout), dense_key = dense(key);
  const auto keys = (const int64_t*)dense_key.data();
  PartialSums sums(layout);
  g.dtype == Dtype::f64 ? run<double>(Input(values), layout, keys, draw, stream, probe, sums)
                        : run<float>(Input(values), layout, keys, draw, stream, probe, sums);
  write_per_sample(out, layout.batch, [&](int64_t b) { return sums.total(b); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("probe_dot", TORCH_BOX(&probe_dot<probe_dot_into>));
  m.impl("probe_dot.out", TORCH_BOX(&probe_dot_out<probe_dot_into>));
}

}  // namespace fastdiff::cpu
