// sampler_step on CUDA: one launch, one pass over memory, whatever the sampler.
#include "../sampler_step.h"

#include "estimate.cuh"
#include "reduce.cuh"

namespace fastdiff::cuda {
namespace {

struct Step {
  Network network;
  Memory term[kMaxTerms], known, mask;
  int column[kMaxTerms];
  int terms;
  const int64_t* keys;  // null where no noise is made here
  int64_t draw;
  uint32_t stream, known_stream;
  Memory y, net_in, D, eps_norm;
  Sums<1> sums;  // of eps^2
};

template <class T>
FASTDIFF_INLINE double step_four(const Step& step, const Shape& shape, const Place& place) {
  const auto c = [&](int column) { return step.network.coefficient<T>(place.sample, column); };
  const auto noise = [&](uint32_t stream, float z[4]) {
    noise_block<Noise::normal>(
        {(uint64_t)step.keys[place.sample], (uint64_t)step.draw, stream}, (uint32_t)(place.first / 4), z);
  };
  T x[4], d[4], v[4];
  float z[4];
  denoised_four(step.network, shape, place, x, d);
  if (step.D) store_four(step.D, shape, place, d);
  double sum = 0;
  if (step.eps_norm)
    for (int j = 0; j < 4; ++j)
      if (place.first + j < shape.n) {
        const double e = eps_formula(c(kEx), x[j], c(kEd), d[j]);
        sum = fma(e, e, sum);
      }
  for (int j = 0; j < 4; ++j) x[j] = advanced_formula(c(kCx), x[j], c(kCd), d[j]);
#pragma unroll
  for (int k = 0; k < kMaxTerms; ++k) {
    if (k >= step.terms) break;
    load_four(step.term[k], shape, place, v);
    for (int j = 0; j < 4; ++j) x[j] = with_term(x[j], c(step.column[k]), v[j]);
  }
  if (step.keys) {
    noise(step.stream, z);
    for (int j = 0; j < 4; ++j) x[j] = with_term(x[j], c(kCn), (T)z[j]);
  }
  if (step.mask) {
    load_four(step.known, shape, place, v);
    for (int j = 0; j < 4; ++j) v[j] = c(kKx) * v[j];
    if (step.keys) {
      noise(step.known_stream, z);
      for (int j = 0; j < 4; ++j) v[j] = with_term(v[j], c(kKn), (T)z[j]);
    }
    load_four(step.mask, shape, place, d);
    for (int j = 0; j < 4; ++j) x[j] = blended_formula(x[j], d[j], v[j]);
  }
  store_four(step.y, shape, place, x);
  if (step.net_in) {
    for (int j = 0; j < 4; ++j) x[j] = c(kCin) * x[j];
    store_four(step.net_in, shape, place, x);
  }
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    step_kernel(const __grid_constant__ Step step, const __grid_constant__ Shape shape) {
  const Place place(shape);
  double sum[1] = {place.first < shape.n ? step_four<T>(step, shape, place) : 0.0};
  if (!step.eps_norm) return;
  if (sample_sum(step.sums, shape, place.sample, sum) && threadIdx.x == 0) store(step.eps_norm, place.sample, ::sqrt(sum[0]));
}

void step_into(const Operands& in, int64_t draw, int64_t stream, const Outputs& out) {
  const Layout layout = layout_of(in.x);
  OutputSet outputs(layout);
  Inputs inputs(layout);
  bool wide = true;
  const auto output = [&](const char* name, const View& t) {
    const Memory memory(outputs.add(name, t));
    wide = wide && memory.wide;
    return memory;
  };
  const View coef = dense(in.coef), key = in.key ? dense(*in.key) : in.coef;
  Step step{};
  step.y = output("out", out.y);
  if (out.net_in) step.net_in = output("net_in", *out.net_in);
  if (out.D) step.D = output("D", *out.D);
  step.network.x = inputs.add(in.x, &outputs);
  step.network.F = inputs.add(in.F, &outputs);
  if (in.F_u) step.network.F_u = inputs.add(*in.F_u, &outputs);
  for (int j = 0; j < kMaxTerms; ++j)
    if (in.terms[j]) {
      step.term[step.terms] = inputs.add(*in.terms[j], &outputs);
      step.column[step.terms++] = kTermColumns[j];
    }
  if (in.mask) step.known = inputs.add(*in.known, &outputs), step.mask = inputs.add(*in.mask, &outputs);
  step.network.coef = (const double*)coef.data();
  step.network.coef_per_sample = coef.dim() == 2;
  step.keys = in.key ? (const int64_t*)key.data() : nullptr;
  step.draw = draw;
  step.stream = (uint32_t)stream;
  step.known_stream = known_stream(step.stream);

  // Where nothing depends on the sample, the batch is one row; without noise, memory order is as good as any.
  Layout rows = layout;
  if (!step.keys) rows.channels = 1;
  if (!step.keys && !step.network.coef_per_sample && !out.eps_norm) rows = Layout{layout.n ? 1 : 0, layout.batch * layout.n, 1};
  const Shape shape(rows, wide && inputs.wide());
  const Launch launch(in.x);
  std::optional<Output> norm;
  std::optional<SumMemory<1>> memory;
  if (out.eps_norm) {
    step.eps_norm = Memory(norm.emplace(*out.eps_norm, Layout{layout.batch, 1}).view());
    step.sums = memory.emplace(in.x, shape, launch).sums();
  }
  launch(in.x.dtype == Dtype::f64 ? step_kernel<double> : step_kernel<float>, rows.batch * shape.blocks, step, shape);
  outputs.finish();
  if (norm) norm->finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("sampler_step", TORCH_BOX(&sampler_step<step_into>));
  m.impl("sampler_step.out", TORCH_BOX(&sampler_step_out<step_into>));
}

}  // namespace fastdiff::cuda
