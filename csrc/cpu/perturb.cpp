// perturb on the CPU: x_t = m*x0 + s*z, the noise made a block at a time and never stored unless asked for.
#include "driver.h"

namespace fastdiff::cpu {
namespace {

template <class T>
T element(const Tensor& t, int64_t i) {
  return t.scalar_type() == ScalarType::Double ? (T)((const double*)t.data_ptr())[i] : (T)((const float*)t.data_ptr())[i];
}

void run_block(const Kernels& k, int64_t n, const float* x0, const float* z, float m, float s, float* out) {
  k.perturb_f32(n, x0, z, m, s, out);
}
void run_block(const Kernels& k, int64_t n, const double* x0, const float* z, double m, double s, double* out) {
  k.perturb_f64(n, x0, z, m, s, out);
}

template <class T>
void run(const Tensor& x0, const Tensor& mean_coef, const Tensor& std, const Tensor& key, int64_t draw, int64_t stream,
         const Layout& layout, const Tensor& out, const OptionalTensor& noise) {
  const Input x(x0);
  const Sink y(out), z_out = noise ? Sink(*noise) : Sink();
  const Tensor m = torch::stable::contiguous(mean_coef), s = torch::stable::contiguous(std);
  const Tensor keys = torch::stable::contiguous(key);
  const auto* key_data = (const int64_t*)keys.data_ptr();
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    static thread_local SampleNoise generator;
    T x_scratch[kBlock], y_scratch[kBlock];
    const NoiseKey at{(uint64_t)key_data[sample], (uint64_t)draw, (uint32_t)stream};
    const float* z = generator.range(k, Noise::normal, layout, at, begin, end);
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = std::min(kBlock, end - i), offset = sample * layout.n + i;
      T* computed = y.block(offset, y_scratch);
      const T* block = x.block(k, offset, n, x_scratch);
      run_block(k, n, block, z + (i - begin), element<T>(m, sample), element<T>(s, sample), computed);
      y.commit(k, offset, n, computed);
      if (z_out) k.store_f32(z_out.dtype, z + (i - begin), z_out.data + offset * z_out.size, n);
    }
  });
}

void perturb_out(Tensor x0, Tensor mean_coef, Tensor std, Tensor key, int64_t draw, int64_t stream, Tensor out, OptionalTensor noise) {
  check_state("x0", x0);
  check_per_sample("mean_coef", mean_coef, x0);
  check_per_sample("std", std, x0);
  check_key(key, x0);
  check_counter(draw, stream);
  check_like("out", out, x0);
  if (noise) check_like("noise", *noise, x0);

  const Layout layout = layout_of(x0).value_or(Layout{x0.size(0), x0.size(0) ? x0.numel() / x0.size(0) : 0});
  const Tensor x = with_layout(x0, layout);
  Output y(out, layout);
  std::optional<Output> z;
  if (noise) z.emplace(*noise, layout);
  const auto bytes = [](const Tensor& t) { return t.numel() * element_size(t.scalar_type()); };
  check_overlap("out", y.tensor(), x, bytes(y.tensor()), bytes(x));
  const OptionalTensor z_tensor = z ? OptionalTensor(z->tensor()) : std::nullopt;
  const auto body = x0.scalar_type() == ScalarType::Double ? run<double> : run<float>;
  body(x, mean_coef, std, key, draw, stream, layout, y.tensor(), z_tensor);
  y.finish();
  if (z) z->finish();
}

std::tuple<Tensor, OptionalTensor> perturb(
    Tensor x0, Tensor mean_coef, Tensor std, Tensor key, int64_t draw, int64_t stream, bool return_noise) {
  check_state("x0", x0);
  Tensor out = new_like(x0);
  OptionalTensor noise;
  if (return_noise) noise = new_like(x0);
  perturb_out(x0, mean_coef, std, key, draw, stream, out, noise);
  return {out, noise};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("perturb", TORCH_BOX(&perturb));
  m.impl("perturb.out", TORCH_BOX(&perturb_out));
}

}  // namespace fastdiff::cpu
