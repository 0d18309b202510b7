// langevin_row on the CPU: one pass over memory for two norms of each sample; the noise is made and never stored.
#include "../langevin_row.h"

#include <cmath>

#include "partial_sums.h"
#include "typed.h"

namespace fastdiff::cpu {
namespace {

struct Norms {
  Input x, F, F_u, G, z;
  const int64_t* key = nullptr;
  int64_t draw, stream;
  const double* coef;
  bool coef_per_sample;
  const double* row(int64_t sample) const { return coef + (coef_per_sample ? sample * kCoefs : 0); }
};

// The sum of the squared normals of the Philox blocks that begin in elements begin .. end of a sample of n, in logical order:
// over all ranges of a sample, each block once, whatever the layout.
double noise_squares(const Kernels& k, const NoiseKey& key, int64_t n, int64_t begin, int64_t end) {
  const int64_t first = (begin + 3) / 4, last = std::min((end + 3) / 4, n / 4);
  double sum = last > first ? k.noise_square_sum(key, first, last - first) : 0.0;
  if (end == n && n % 4) {  // the last block has normals of which there is no element
    float z[4];
    k.noise(Noise::normal, z, key, n / 4, 1);
    for (int64_t j = 0; j < n % 4; ++j) sum += (double)z[j] * z[j];
  }
  return sum;
}

// Sums of eps^2 and of z^2 over each sample. In float64 z^2 is summed from the normals, whose rounding it then has.
template <class T>
void run(const Norms& in, const Layout& layout, PartialSums& eps_sums, PartialSums& z_sums) {
  using K = Typed<T>;
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    [[maybe_unused]] static thread_local SampleNoise generator;
    T scratch[6][kBlock], coef[kCoefs];
    for (int c = 0; c < kCoefs; ++c) coef[c] = (T)in.row(sample)[c];
    StepBlock<T> block{};
    if (in.G) block.term_coef[block.terms++] = coef[kCg];
    const float* z = nullptr;
    double eps_sum = 0, z_sum = 0;
    if (in.key) {
      const NoiseKey at{(uint64_t)in.key[sample], (uint64_t)in.draw, (uint32_t)in.stream};
      if constexpr (sizeof(T) == sizeof(float))
        z_sum = noise_squares(k, at, layout.n, begin, end);
      else
        z = generator.range(k, Noise::normal, layout, at, begin, end);
    }
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = std::min(kBlock, end - i), at = sample * layout.n + i;
      block.x = in.x.block(k, at, n, scratch[0]);
      block.F = in.F.block(k, at, n, scratch[1]);
      block.F_u = in.F_u ? in.F_u.block(k, at, n, scratch[2]) : nullptr;
      if (in.G) block.term[0] = in.G.block(k, at, n, scratch[3]);
      block.y = scratch[4];  // the guided estimate
      (k.*K::step)(n, coef, block);
      eps_sum += (k.*K::eps)(n, coef[kEx], coef[kEd], block.x, block.y);
      if (!z && !in.z) continue;
      const T* noise = z ? Input(z + (i - begin)).block(k, 0, n, scratch[5]) : in.z.block(k, at, n, scratch[5]);
      z_sum += (k.*K::dot)(n, noise, noise);
    }
    eps_sums.at(sample, begin) = eps_sum;
    z_sums.at(sample, begin) = z_sum;
  });
}

void langevin_into(const Operands& in, int64_t draw, int64_t stream, bool shared, const View& rows) {
  const Layout layout = layout_of(in.x);
  std::optional<View> copies[5];
  int used = 0;
  const auto input = [&](const View& t) { return Input(copies[used++].emplace(with_layout(t, layout))); };
  Norms norms;
  norms.x = input(in.x);
  norms.F = input(in.F);
  if (in.F_u) norms.F_u = input(*in.F_u);
  if (in.terms[0]) norms.G = input(*in.terms[0]);
  if (in.terms[kMaxTerms - 1]) norms.z = input(*in.terms[kMaxTerms - 1]);
  const View coef = dense(in.coef), key = in.key ? dense(*in.key) : in.coef;
  if (in.key) norms.key = (const int64_t*)key.data();
  norms.draw = draw;
  norms.stream = stream;
  norms.coef = (const double*)coef.data();
  norms.coef_per_sample = coef.dim() == 2;
  PartialSums eps_sums(layout), z_sums(layout);
  in.x.dtype == Dtype::f64 ? run<double>(norms, layout, eps_sums, z_sums) : run<float>(norms, layout, eps_sums, z_sums);

  const auto ratio = [](double z, double eps) { return eps == 0 ? 0.0 : z / eps; };
  double mean_z = 0, mean_eps = 0;
  for (int64_t b = 0; shared && b < layout.batch; ++b) {
    mean_z += std::sqrt(z_sums.total(b)) / layout.batch;
    mean_eps += std::sqrt(eps_sums.total(b)) / layout.batch;
  }
  for (int64_t b = 0; b < layout.batch; ++b) {
    const double r = shared ? ratio(mean_z, mean_eps) : ratio(std::sqrt(z_sums.total(b)), std::sqrt(eps_sums.total(b)));
    fold_step_size(norms.row(b), r, (double*)rows.data() + b * kCoefs);
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("langevin_row", TORCH_BOX(&langevin_row<langevin_into>));
  m.impl("langevin_row.out", TORCH_BOX(&langevin_row_out<langevin_into>));
}

}  // namespace fastdiff::cpu
