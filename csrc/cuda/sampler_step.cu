// sampler_step on CUDA: one launch, one pass over memory; the norm of eps adds a launch of one thread block a sample.
#include "../sampler_step.h"

#include "device.cuh"

namespace fastdiff::cuda {
namespace {

struct Step {
  Memory x, F, F_u, term[kMaxTerms];
  int column[kMaxTerms];
  int terms;
  const double* coef;
  bool coef_per_sample;
  const int64_t* keys;  // null where no noise is made here
  int64_t draw;
  uint32_t stream;
  Memory y, net_in, D;
  double* partial;  // |eps|^2 of each thread block, or null
};

// The sum over a thread block, in thread 0, in a fixed order.
FASTDIFF_INLINE double block_sum(double value) {
  __shared__ double warp_sums[kThreads / 32];
  for (int offset = 16; offset; offset /= 2) value += __shfl_down_sync(0xFFFFFFFFu, value, offset);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0)
    for (int w = 0; w < kThreads / 32; ++w) sum += warp_sums[w];
  return sum;
}

template <class T>
FASTDIFF_INLINE double step_four(const Step& step, const Shape& shape, const Place& place) {
  const double* row = step.coef + (step.coef_per_sample ? place.sample * kCoefs : 0);
  const auto c = [&](int column) { return (T)__ldg(row + column); };
  T x[4], d[4], v[4];
  load_four(step.x, shape, place, x);
  load_four(step.F, shape, place, d);
  for (int j = 0; j < 4; ++j) d[j] = denoised_formula(c(kA), x[j], c(kB), d[j]);
  if (step.F_u) {
    load_four(step.F_u, shape, place, v);
    for (int j = 0; j < 4; ++j) d[j] = with_term(d[j], c(kBu), v[j]);
  }
  for (int j = 0; j < 4; ++j) d[j] = clip_formula(d[j], c(kLo), c(kHi));
  if (step.D) store_four(step.D, shape, place, d);
  double sum = 0;
  if (step.partial)
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
    float z[4];
    noise_block<Noise::normal>(
        {(uint64_t)step.keys[place.sample], (uint64_t)step.draw, step.stream}, (uint32_t)(place.first / 4), z);
    for (int j = 0; j < 4; ++j) x[j] = with_term(x[j], c(kCn), (T)z[j]);
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
  const double sum = place.first < shape.n ? step_four<T>(step, shape, place) : 0.0;
  if (!step.partial) return;
  const double total = block_sum(sum);
  if (threadIdx.x == 0) step.partial[blockIdx.x] = total;
}

// norm[sample] = sqrt(sum of the sample's partial sums), one thread block a sample.
__global__ void __launch_bounds__(kThreads) norm_kernel(const double* partial, int64_t parts, Memory norm) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < parts; i += kThreads) sum += partial[blockIdx.x * parts + i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) store(norm, blockIdx.x, ::sqrt(sum));
}

void step_into(const Operands& in, int64_t draw, int64_t stream, const Outputs& out) {
  const Layout layout = layout_of(in.x);
  OutputSet outputs(layout);

  bool wide = true;
  std::optional<View> copies[3 + kMaxTerms];
  int used = 0;
  const auto input = [&](const View& t) {
    const View& laid = has_layout(t, layout) ? t : copies[used++].emplace(with_layout(t, layout));
    outputs.check_against(laid);
    const Memory memory(laid);
    wide = wide && memory.wide;
    return memory;
  };
  const auto output = [&](const View& t) {
    const Memory memory(t);
    wide = wide && memory.wide;
    return memory;
  };
  const View coef = dense(in.coef), key = in.key ? dense(*in.key) : in.coef;
  Step step{};
  step.y = output(outputs.add("out", out.y));
  if (out.net_in) step.net_in = output(outputs.add("net_in", *out.net_in));
  if (out.D) step.D = output(outputs.add("D", *out.D));
  step.x = input(in.x);
  step.F = input(in.F);
  if (in.F_u) step.F_u = input(*in.F_u);
  for (int j = 0; j < kMaxTerms; ++j)
    if (in.terms[j]) {
      step.term[step.terms] = input(*in.terms[j]);
      step.column[step.terms++] = kTermColumns[j];
    }
  step.coef = (const double*)coef.data();
  step.coef_per_sample = coef.dim() == 2;
  step.keys = in.key ? (const int64_t*)key.data() : nullptr;
  step.draw = draw;
  step.stream = (uint32_t)stream;

  // Where nothing depends on the sample, the batch is one row; without noise, memory order is as good as any.
  Layout rows = layout;
  if (!step.keys) rows.channels = 1;
  if (!step.keys && !step.coef_per_sample && !out.eps_norm) rows = Layout{layout.n ? 1 : 0, layout.batch * layout.n, 1};
  const Shape shape(rows, wide);
  std::optional<View> partial;
  if (out.eps_norm) {
    const int64_t size[1] = {std::max<int64_t>(layout.batch * shape.blocks, 1)};
    partial.emplace(torch::stable::new_empty(in.x.tensor, {size, 1}, ScalarType::Double));
    step.partial = (double*)partial->data();
  }
  const Launch launch(in.x);
  launch(in.x.dtype == Dtype::f64 ? step_kernel<double> : step_kernel<float>, rows.batch * shape.blocks, step, shape);
  if (out.eps_norm) {
    Output norm(*out.eps_norm, Layout{layout.batch, 1});
    launch(norm_kernel, layout.batch, (const double*)step.partial, shape.blocks, Memory(norm.view()));
    norm.finish();
  }
  outputs.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("sampler_step", TORCH_BOX(&sampler_step<step_into>));
  m.impl("sampler_step.out", TORCH_BOX(&sampler_step_out<step_into>));
}

}  // namespace fastdiff::cuda
