// perturb on the CPU: x_t = m*x0 + s*z, the noise made in registers and never stored unless asked for.
#include "../perturb.h"

#include "driver.h"

namespace fastdiff::cpu {
namespace {

void run_block(const Kernels& k, int64_t n, const float* x0, const float* z, float m, float s, float* out) {
  k.perturb_f32(n, x0, z, m, s, out);
}
void run_block(const Kernels& k, int64_t n, const double* x0, const float* z, double m, double s, double* out) {
  k.perturb_f64(n, x0, z, m, s, out);
}

struct Perturb {
  Input x0;
  PerSample mean_coef, std;
  const int64_t* key;
  int64_t draw, stream;
  Sink out, noise;
};

template <class T>
void run(const Perturb& p, const Layout& layout) {
  const Kernels& k = kernels();
  const bool in_registers = layout.channels == 1 && p.x0.dtype == Dtype::f32 && p.out.dtype == Dtype::f32 && !p.noise;
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    const NoiseKey at{(uint64_t)p.key[sample], (uint64_t)p.draw, (uint32_t)p.stream};
    const T m = p.mean_coef.at<T>(sample), s = p.std.at<T>(sample);
    const int64_t start = sample * layout.n;
    if (in_registers && (end - begin) % 4 == 0) {
      const float* x0 = (const float*)p.x0.data + start + begin;
      return k.perturb_fused((float)m, x0, (float)s, at, begin / 4, (end - begin) / 4, (float*)p.out.data + start + begin);
    }
    static thread_local SampleNoise generator;
    T x_scratch[kBlock], y_scratch[kBlock];
    const float* z = generator.range(k, Noise::normal, layout, at, begin, end);
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = std::min(kBlock, end - i), offset = start + i;
      T* computed = p.out.block(offset, y_scratch);
      run_block(k, n, p.x0.block(k, offset, n, x_scratch), z + (i - begin), m, s, computed);
      p.out.commit(k, offset, n, computed);
      if (p.noise) k.store_f32(p.noise.dtype, z + (i - begin), p.noise.data + offset * p.noise.size, n);
    }
  });
}

void perturb_into(const PerturbOperands& in, int64_t draw, int64_t stream, const View& out, const std::optional<View>& noise) {
  const Layout layout = layout_of(in.x0);
  const View x = with_layout(in.x0, layout), m = dense(in.mean_coef), s = dense(in.std), keys = dense(in.key);
  OutputSet outputs(layout);
  const Sink y(outputs.add("out", out)), z = noise ? Sink(outputs.add("noise", *noise)) : Sink();
  outputs.check_against(x);
  const Perturb p{Input(x), PerSample(m), PerSample(s), (const int64_t*)keys.data(), draw, stream, y, z};
  x.dtype == Dtype::f64 ? run<double>(p, layout) : run<float>(p, layout);
  outputs.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("perturb", TORCH_BOX(&perturb<perturb_into>));
  m.impl("perturb.out", TORCH_BOX(&perturb_out<perturb_into>));
}

}  // namespace fastdiff::cpu
