// sampler_step on the CPU: one pass over memory, whatever the sampler.
#include <cmath>

#include "../sampler_step.h"

#include "partial_sums.h"
#include "typed.h"

namespace fastdiff::cpu {
namespace {

struct Step {
  Input x, F, F_u, term[kMaxTerms], known, mask;
  int term_column[kMaxTerms];
  int terms = 0;
  const int64_t* key = nullptr;  // of each sample, where the noise is made here
  int64_t draw = 0, stream = 0;
  const double* coef = nullptr;
  bool coef_per_sample = false;
  Sink y, net_in, D;
  PartialSums* eps_sums = nullptr;
  bool flat() const { return !key && !coef_per_sample && !eps_sums; }
};

template <class T>
void run(const Step& step, Layout layout) {
  if (step.flat()) layout = Layout{1, layout.batch * layout.n, 1};  // nothing depends on the sample
  using K = Typed<T>;
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    static thread_local SampleNoise generator, known_generator;
    T scratch[8 + kMaxTerms][kBlock];
    T coef[kCoefs];
    for (int c = 0; c < kCoefs; ++c) coef[c] = (T)step.coef[(step.coef_per_sample ? sample * kCoefs : 0) + c];
    StepBlock<T> block{};
    block.terms = step.terms;
    for (int j = 0; j < step.terms; ++j) block.term_coef[j] = coef[step.term_column[j]];
    const float *z = nullptr, *known_z = nullptr;
    if (step.key) {
      NoiseKey at{(uint64_t)step.key[sample], (uint64_t)step.draw, (uint32_t)step.stream};
      z = generator.range(k, Noise::normal, layout, at, begin, end);
      block.term_coef[block.terms++] = coef[kCn];
      at.stream = known_stream(at.stream);
      if (step.mask) known_z = known_generator.range(k, Noise::normal, layout, at, begin, end);
    }
    double sum = 0;
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = std::min(kBlock, end - i), at = sample * layout.n + i;
      block.x = step.x.block(k, at, n, scratch[0]);
      block.F = step.F.block(k, at, n, scratch[1]);
      block.F_u = step.F_u ? step.F_u.block(k, at, n, scratch[2]) : nullptr;
      for (int j = 0; j < step.terms; ++j) block.term[j] = step.term[j].block(k, at, n, scratch[5 + j]);
      if (z) block.term[step.terms] = Input(z + (i - begin)).block(k, 0, n, scratch[5 + step.terms]);
      block.D = step.D ? step.D.block(at, scratch[3]) : step.eps_sums ? scratch[3] : nullptr;
      block.y = step.y.block(at, scratch[4]);
      // An in-place update overwrites x; the norm of eps still needs it.
      const bool keep_x = step.eps_sums && block.y == block.x;
      if (keep_x) block.x = std::copy_n(block.x, n, scratch[0]) - n;
      (k.*K::step)(n, coef, block);
      if (step.eps_sums) sum += (k.*K::eps)(n, coef[kEx], coef[kEd], block.x, block.D);
      if (step.D) step.D.commit(k, at, n, block.D);
      if (step.mask) {
        T* const free = scratch[5 + kMaxTerms];
        const T* known_noise = known_z ? Input(known_z + (i - begin)).block(k, 0, n, free) : nullptr;
        const T* mask = step.mask.block(k, at, n, scratch[6 + kMaxTerms]);
        const T* known = step.known.block(k, at, n, scratch[7 + kMaxTerms]);
        (k.*K::blend)(n, mask, coef[kKx], known, coef[kKn], known_noise, block.y);
      }
      step.y.commit(k, at, n, block.y);
      if (step.net_in) {
        T* net_in = step.net_in.block(at, scratch[0]);
        (k.*K::scale)(n, coef[kCin], block.y, net_in);
        step.net_in.commit(k, at, n, net_in);
      }
    }
    if (step.eps_sums) step.eps_sums->at(sample, begin) = sum;
  });
}

void step_into(const Operands& in, int64_t draw, int64_t stream, const Outputs& out) {
  const Layout layout = layout_of(in.x);
  OutputSet outputs(layout);
  Step step;
  step.y = Sink(outputs.add("out", out.y));
  if (out.net_in) step.net_in = Sink(outputs.add("net_in", *out.net_in));
  if (out.D) step.D = Sink(outputs.add("D", *out.D));

  std::optional<View> copies[5 + kMaxTerms];  // what the step points into
  int used = 0;
  const auto input = [&](const View& t) {
    const View& dense = has_layout(t, layout) ? t : copies[used++].emplace(with_layout(t, layout));
    outputs.check_against(dense);
    return Input(dense);
  };
  step.x = input(in.x);
  step.F = input(in.F);
  if (in.F_u) step.F_u = input(*in.F_u);
  for (int j = 0; j < kMaxTerms; ++j)
    if (in.terms[j]) {
      step.term[step.terms] = input(*in.terms[j]);
      step.term_column[step.terms++] = kTermColumns[j];
    }
  if (in.mask) step.known = input(*in.known), step.mask = input(*in.mask);
  const View coef = dense(in.coef), key = in.key ? dense(*in.key) : in.coef;
  if (in.key) step.key = (const int64_t*)key.data();
  step.draw = draw;
  step.stream = stream;
  step.coef = (const double*)coef.data();
  step.coef_per_sample = coef.dim() == 2;
  std::optional<PartialSums> sums;
  if (out.eps_norm) step.eps_sums = &sums.emplace(layout);

  in.x.dtype == Dtype::f64 ? run<double>(step, layout) : run<float>(step, layout);

  outputs.finish();
  if (!out.eps_norm) return;
  Output norm(*out.eps_norm, Layout{layout.batch, 1});
  write_per_sample(norm.view(), layout.batch, [&](int64_t b) { return std::sqrt(sums->total(b)); });
  norm.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("sampler_step", TORCH_BOX(&sampler_step<step_into>));
  m.impl("sampler_step.out", TORCH_BOX(&sampler_step_out<step_into>));
}

}  // namespace fastdiff::cpu
