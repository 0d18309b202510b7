// sampler_step on the CPU: one pass over memory, whatever the sampler.
#include <cmath>
#include <vector>

#include "driver.h"

namespace fastdiff::cpu {
namespace {

void run_block(const Kernels& k, int64_t n, const float* coef, const StepBlock<float>& b) { k.step_f32(n, coef, b); }
void run_block(const Kernels& k, int64_t n, const double* coef, const StepBlock<double>& b) { k.step_f64(n, coef, b); }
void scale(const Kernels& k, int64_t n, float c, const float* in, float* out) { k.scale_f32(n, c, in, out); }
void scale(const Kernels& k, int64_t n, double c, const double* in, double* out) { k.scale_f64(n, c, in, out); }
double eps(const Kernels& k, int64_t n, float e_x, float e_D, const float* x, const float* D) { return k.eps_f32(n, e_x, e_D, x, D); }
double eps(const Kernels& k, int64_t n, double e_x, double e_D, const double* x, const double* D) {
  return k.eps_f64(n, e_x, e_D, x, D);
}

struct Step {
  Input x, F, F_u, term[kMaxTerms];
  int term_column[kMaxTerms];
  int terms = 0;
  const int64_t* key = nullptr;  // of each sample, where the noise is made here
  int64_t draw = 0, stream = 0;
  const double* coef = nullptr;
  bool coef_per_sample = false;
  Sink y, net_in, D;
  double* eps_sum = nullptr;  // one for each range of each sample
  bool flat() const { return !key && !coef_per_sample && !eps_sum; }
};

template <class T>
void run(const Step& step, Layout layout) {
  if (step.flat()) layout = Layout{1, layout.batch * layout.n, 1};  // nothing depends on the sample
  const Kernels& k = kernels();
  const int64_t range = range_length(layout), sample_ranges = (layout.n + range - 1) / range;
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    static thread_local SampleNoise generator;
    T scratch[5 + kMaxTerms][kBlock];
    T coef[kCoefs];
    for (int c = 0; c < kCoefs; ++c) coef[c] = (T)step.coef[(step.coef_per_sample ? sample * kCoefs : 0) + c];
    StepBlock<T> block{};
    block.terms = step.terms;
    for (int j = 0; j < step.terms; ++j) block.term_coef[j] = coef[step.term_column[j]];
    const float* z = nullptr;
    if (step.key) {
      const NoiseKey at{(uint64_t)step.key[sample], (uint64_t)step.draw, (uint32_t)step.stream};
      z = generator.range(k, Noise::normal, layout, at, begin, end);
      block.term_coef[block.terms++] = coef[kCn];
    }
    double sum = 0;
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = std::min(kBlock, end - i), at = sample * layout.n + i;
      block.x = step.x.block(k, at, n, scratch[0]);
      block.F = step.F.block(k, at, n, scratch[1]);
      block.F_u = step.F_u ? step.F_u.block(k, at, n, scratch[2]) : nullptr;
      for (int j = 0; j < step.terms; ++j) block.term[j] = step.term[j].block(k, at, n, scratch[5 + j]);
      if (z) block.term[step.terms] = Input(z + (i - begin)).block(k, 0, n, scratch[5 + step.terms]);
      block.D = step.D ? step.D.block(at, scratch[3]) : step.eps_sum ? scratch[3] : nullptr;
      block.y = step.y.block(at, scratch[4]);
      // An in-place update overwrites x; the norm of eps still needs it.
      const bool keep_x = step.eps_sum && block.y == block.x;
      if (keep_x) block.x = std::copy_n(block.x, n, scratch[0]) - n;
      run_block(k, n, coef, block);
      if (step.eps_sum) sum += eps(k, n, coef[kEx], coef[kEd], block.x, block.D);
      if (step.D) step.D.commit(k, at, n, block.D);
      step.y.commit(k, at, n, block.y);
      if (step.net_in) {
        T* net_in = step.net_in.block(at, scratch[0]);
        scale(k, n, coef[kCin], block.y, net_in);
        step.net_in.commit(k, at, n, net_in);
      }
    }
    if (step.eps_sum) step.eps_sum[sample * sample_ranges + begin / range] = sum;
  });
}

void sampler_step_out(
    Tensor x, Tensor F, Tensor coef, OptionalTensor F_u, OptionalTensor G, OptionalTensor H1, OptionalTensor H2, OptionalTensor H3,
    OptionalTensor z, OptionalTensor key, int64_t draw, int64_t stream, Tensor out, OptionalTensor net_in, OptionalTensor D,
    OptionalTensor eps_norm) {
  check_state("x", x);
  check_like("F", F, x);
  check_coef(coef, x, kCoefs);
  const std::pair<const char*, const OptionalTensor*> inputs[] = {{"F_u", &F_u}, {"G", &G},   {"H1", &H1},
                                                                  {"H2", &H2},   {"H3", &H3}, {"z", &z}};
  for (const auto& [name, t] : inputs)
    if (*t) check_like(name, **t, x);
  if (key) check_key(*key, x);
  if (key && z) throw std::invalid_argument("key: expected none beside z, got both");
  check_counter(draw, stream);
  check_like("out", out, x);
  if (net_in) check_like("net_in", *net_in, x);
  if (D) check_like("D", *D, x);
  if (eps_norm) check_per_sample("eps_norm", *eps_norm, x);

  const int64_t batch = x.size(0), n = batch ? x.numel() / batch : 0;
  const Layout layout = layout_of(x).value_or(Layout{batch, n});
  const auto bytes = [](const Tensor& t) { return t.numel() * element_size(t.scalar_type()); };
  Output y(out, layout);
  std::optional<Output> net_in_target, D_target;
  if (net_in) net_in_target.emplace(*net_in, layout);
  if (D) D_target.emplace(*D, layout);

  std::vector<Tensor> alive;  // copies that the step points into
  const auto input = [&](const Tensor& t) {
    alive.push_back(with_layout(t, layout));
    check_overlap("out", y.tensor(), alive.back(), bytes(y.tensor()), bytes(alive.back()));
    if (net_in_target) check_overlap("net_in", net_in_target->tensor(), alive.back(), bytes(net_in_target->tensor()), bytes(alive.back()));
    if (D_target) check_overlap("D", D_target->tensor(), alive.back(), bytes(D_target->tensor()), bytes(alive.back()));
    return Input(alive.back());
  };
  Step step;
  step.x = input(x);
  step.F = input(F);
  if (F_u) step.F_u = input(*F_u);
  const int columns[] = {kCg, kCh1, kCh2, kCh3, kCn};
  for (int j = 0; j < kMaxTerms; ++j)
    if (const auto& [name, t] = inputs[1 + j]; *t) {
      step.term[step.terms] = input(**t);
      step.term_column[step.terms++] = columns[j];
    }
  if (key) {
    alive.push_back(torch::stable::contiguous(*key));
    step.key = (const int64_t*)alive.back().data_ptr();
  }
  step.draw = draw;
  step.stream = stream;
  alive.push_back(coef.is_contiguous() ? coef : torch::stable::contiguous(coef));
  step.coef = (const double*)alive.back().data_ptr();
  step.coef_per_sample = coef.dim() == 2;
  step.y = Sink(y.tensor());
  if (net_in_target) step.net_in = Sink(net_in_target->tensor());
  if (D_target) step.D = Sink(D_target->tensor());
  std::vector<double> sums;
  const int64_t ranges = (n + range_length(layout) - 1) / range_length(layout);
  if (eps_norm) sums.resize(batch * ranges);
  step.eps_sum = eps_norm && n > 0 ? sums.data() : nullptr;

  x.scalar_type() == ScalarType::Double ? run<double>(step, layout) : run<float>(step, layout);

  y.finish();
  if (net_in_target) net_in_target->finish();
  if (D_target) D_target->finish();
  if (eps_norm) {
    Tensor norm = eps_norm->is_contiguous() ? *eps_norm : torch::stable::contiguous(*eps_norm);
    for (int64_t b = 0; b < batch; ++b) {
      double sum = 0;
      for (int64_t r = 0; r < ranges; ++r) sum += sums[b * ranges + r];
      if (norm.scalar_type() == ScalarType::Double)
        ((double*)norm.data_ptr())[b] = std::sqrt(sum);
      else
        ((float*)norm.data_ptr())[b] = (float)std::sqrt(sum);
    }
    if (norm.get() != eps_norm->get()) torch::stable::copy_(*eps_norm, norm);
  }
}

std::tuple<Tensor, OptionalTensor, OptionalTensor, OptionalTensor> sampler_step(
    Tensor x, Tensor F, Tensor coef, OptionalTensor F_u, OptionalTensor G, OptionalTensor H1, OptionalTensor H2, OptionalTensor H3,
    OptionalTensor z, OptionalTensor key, int64_t draw, int64_t stream, std::optional<ScalarType> net_dtype, bool return_D,
    bool return_eps_norm) {
  check_state("x", x);
  Tensor out = new_like(x);
  OptionalTensor net_in, D, eps_norm;
  if (net_dtype) net_in = new_like(x, *net_dtype);
  if (return_D) D = new_like(x);
  if (return_eps_norm) eps_norm = new_per_sample(x, x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float);
  sampler_step_out(x, F, coef, F_u, G, H1, H2, H3, z, key, draw, stream, out, net_in, D, eps_norm);
  return {out, net_in, D, eps_norm};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("sampler_step", TORCH_BOX(&sampler_step));
  m.impl("sampler_step.out", TORCH_BOX(&sampler_step_out));
}

}  // namespace fastdiff::cpu
