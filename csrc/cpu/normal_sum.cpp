// normal_sum on the CPU: float32 sums stay in registers while the draws are made; float64 ones go through cache.
#include "../normal_sum.h"

#include <vector>

#include "driver.h"

namespace fastdiff::cpu {
namespace {

// Draws whose weight is not 0.
struct Terms {
  std::vector<int64_t> draws;
  std::vector<double> weights;
  std::vector<float> rounded;
  Terms(const View& all_draws, const View& all_weights) {
    for (int64_t m = 0; m < all_draws.numel; ++m) {
      const double weight = ((const double*)all_weights.data())[m];
      if (weight == 0) continue;
      draws.push_back(((const int64_t*)all_draws.data())[m]);
      weights.push_back(weight);
      rounded.push_back((float)weight);
    }
  }
  int64_t count() const { return (int64_t)draws.size(); }
};

void in_float32(const Sink& out, const Layout& layout, const int64_t* keys, const Terms& terms, int64_t stream) {
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    const NoiseKey at{(uint64_t)keys[sample], 0, (uint32_t)stream};
    const auto sum = [&](float* target, int64_t first, int64_t blocks) {
      k.normal_sum(target, at, terms.count(), terms.draws.data(), terms.rounded.data(), first, blocks);
    };
    const int64_t offset = sample * layout.n + begin;
    if (layout.channels == 1 && out.dtype == Dtype::f32 && (end - begin) % 4 == 0)
      return sum((float*)out.data + offset, begin / 4, (end - begin) / 4);
    static thread_local SampleNoise generator;
    const float* total = generator.in_memory_order(layout, begin, end, sum);
    k.store_f32(out.dtype, total, out.data + offset * out.size, end - begin);
  });
}

void in_float64(const Sink& out, const Layout& layout, const int64_t* keys, const Terms& terms, int64_t stream) {
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    static thread_local SampleNoise generator;
    double* total = (double*)out.data + sample * layout.n + begin;
    std::fill_n(total, end - begin, 0.0);
    for (int64_t m = 0; m < terms.count(); ++m) {
      const NoiseKey at{(uint64_t)keys[sample], (uint64_t)terms.draws[m], (uint32_t)stream};
      const float* z = generator.range(k, Noise::normal, layout, at, begin, end);
      k.perturb_f64(end - begin, total, z, 1.0, terms.weights[m], total);
    }
  });
}

void normal_sum_into(const View& key, const View& draws, const View& weights, int64_t stream, const View& out) {
  const Layout layout = layout_of(out);
  Output written(out, layout);
  const auto run = out.dtype == Dtype::f64 ? in_float64 : in_float32;
  run(Sink(written.view()), layout, (const int64_t*)key.data(), Terms(draws, weights), stream);
  written.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("normal_sum", TORCH_BOX(&normal_sum<normal_sum_into>));
  m.impl("normal_sum.out", TORCH_BOX(&normal_sum_out<normal_sum_into>));
}

}  // namespace fastdiff::cpu
