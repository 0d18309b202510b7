// denoising_loss on the CPU: one pass over memory; the noise is made a range at a time.
#include "../denoising_loss.h"

#include "partial_sums.h"
#include "typed.h"

namespace fastdiff::cpu {
namespace {

struct Loss {
  Input F, x0;
  const int64_t* key;
  int64_t draw, stream;
  const double* coef;
  bool coef_per_sample;
  const double* row(int64_t sample) const { return coef + (coef_per_sample ? sample * kLossCoefs : 0); }
};

template <class T>
void run(const Loss& in, const Layout& layout, PartialSums& sums) {
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    static thread_local SampleNoise generator;
    T F_scratch[kBlock], x0_scratch[kBlock], coef[kLossCoefs];
    for (int c = 0; c < kLossCoefs; ++c) coef[c] = (T)in.row(sample)[c];
    const NoiseKey at{(uint64_t)in.key[sample], (uint64_t)in.draw, (uint32_t)in.stream};
    const float* z = generator.range(k, Noise::normal, layout, at, begin, end);
    double sum = 0;
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = std::min(kBlock, end - i), offset = sample * layout.n + i;
      const T *F = in.F.block(k, offset, n, F_scratch), *x0 = in.x0.block(k, offset, n, x0_scratch);
      sum += (k.*Typed<T>::residual)(n, coef, F, x0, z + (i - begin));
    }
    sums.at(sample, begin) = sum;
  });
}

void loss_into(const LossOperands& in, int64_t draw, int64_t stream, const View& out) {
  const Layout layout = layout_of(in.F);
  const View F = with_layout(in.F, layout), x0 = with_layout(in.x0, layout), coef = dense(in.coef), key = dense(in.key);
  const Loss loss{Input(F), Input(x0), (const int64_t*)key.data(), draw, stream, (const double*)coef.data(), coef.dim() == 2};
  PartialSums sums(layout);
  in.in_double() ? run<double>(loss, layout, sums) : run<float>(loss, layout, sums);
  write_per_sample(out, layout.batch, [&](int64_t b) { return loss.row(b)[kLossCoefs - 1] * sums.total(b); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("denoising_loss", TORCH_BOX(&denoising_loss<loss_into>));
  m.impl("denoising_loss.out", TORCH_BOX(&denoising_loss_out<loss_into>));
}

}  // namespace fastdiff::cpu
