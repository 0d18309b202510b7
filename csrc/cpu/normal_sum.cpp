// normal_sum on the CPU: each range is made and summed in cache, draw by draw, and written once.
#include "../normal_sum.h"

#include "driver.h"
#include "typed.h"

namespace fastdiff::cpu {
namespace {

template <class T>
void run(const Sink& out, const Layout& layout, const int64_t* keys, int64_t count, const int64_t* draws, const double* weights,
    int64_t stream) {
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    static thread_local SampleNoise generator;
    static thread_local std::unique_ptr<T[]> total;
    static thread_local int64_t room = 0;
    const int64_t n = end - begin;
    if (room < n) total.reset(new T[room = n]);
    std::fill_n(total.get(), n, T(0));
    for (int64_t m = 0; m < count; ++m) {
      if (weights[m] == 0) continue;
      const NoiseKey at{(uint64_t)keys[sample], (uint64_t)draws[m], (uint32_t)stream};
      const float* z = generator.range(k, Noise::normal, layout, at, begin, end);
      (k.*Typed<T>::perturb)(n, total.get(), z, T(1), (T)weights[m], total.get());
    }
    store(k, out.dtype, total.get(), out.data + (sample * layout.n + begin) * out.size, n);
  });
}

void normal_sum_into(const View& key, const View& draws, const View& weights, int64_t stream, const View& out) {
  const Layout layout = layout_of(out);
  Output written(out, layout);
  const auto run_as = out.dtype == Dtype::f64 ? run<double> : run<float>;
  run_as(Sink(written.view()), layout, (const int64_t*)key.data(), draws.numel, (const int64_t*)draws.data(),
      (const double*)weights.data(), stream);
  written.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("normal_sum", TORCH_BOX(&normal_sum<normal_sum_into>));
  m.impl("normal_sum.out", TORCH_BOX(&normal_sum_out<normal_sum_into>));
}

}  // namespace fastdiff::cpu
