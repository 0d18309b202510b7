// langevin_row on CUDA: one launch, one pass over memory for two norms of each sample; the noise is made and never stored.
#include "../langevin_row.h"

#include "estimate.cuh"
#include "reduce.cuh"

namespace fastdiff::cuda {
namespace {

enum { kNoise, kEps, kNorms };  // the sums: of z^2 and of eps^2

struct Langevin {
  Network network;
  Memory G, z;
  const int64_t* keys;  // null where z is given
  int64_t draw;
  uint32_t stream;
  bool shared;
  unsigned batch;
  Sums<kNorms> sums;
  double* rows;
};

template <class T>
FASTDIFF_INLINE void squares_four(const Langevin& in, const Shape& shape, const Place& place, double (&sum)[kNorms]) {
  T x[4], d[4], z[4];
  guided_four(in.network, in.G, shape, place, x, d);
  if (in.keys) {
    float made[4];
    noise_block<Noise::normal>(
        {(uint64_t)in.keys[place.sample], (uint64_t)in.draw, in.stream}, (uint32_t)(place.first / 4), made);
    for (int j = 0; j < 4; ++j) z[j] = (T)made[j];
  } else {
    load_four(in.z, shape, place, z);
  }
  const T e_x = in.network.coefficient<T>(place.sample, kEx), e_D = in.network.coefficient<T>(place.sample, kEd);
  for (int j = 0; j < 4; ++j)
    if (place.first + j < shape.n) {
      const double noise = z[j], eps = eps_formula(e_x, x[j], e_D, d[j]);
      sum[kNoise] = fma(noise, noise, sum[kNoise]);
      sum[kEps] = fma(eps, eps, sum[kEps]);
    }
}

FASTDIFF_INLINE double ratio(const double (&norm)[kNorms]) { return norm[kEps] == 0 ? 0.0 : norm[kNoise] / norm[kEps]; }

FASTDIFF_INLINE void write_row(const Langevin& in, int64_t sample, double ratio) {
  fold_step_size(in.network.row(sample), ratio, in.rows + sample * kCoefs);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    langevin_kernel(const __grid_constant__ Langevin in, const __grid_constant__ Shape shape) {
  const Place place(shape);
  double norm[kNorms] = {};
  if (place.first < shape.n) squares_four<T>(in, shape, place, norm);
  if (!sample_sum(in.sums, shape, place.sample, norm)) return;
  for (int k = 0; k < kNorms; ++k) norm[k] = ::sqrt(norm[k]);  // of thread 0
  if (!in.shared) {
    if (threadIdx.x == 0) write_row(in, place.sample, ratio(norm));
    return;
  }

  // The sample's norms replace its first part, which this block has read; the last sample's block takes their mean. (The
  // ratio of the sums is that of the means.)
  const auto norms_of = [&](int64_t sample) { return in.sums.parts + sample * shape.blocks * kNorms; };
  if (threadIdx.x == 0)
    for (int k = 0; k < kNorms; ++k) norms_of(place.sample)[k] = norm[k];
  if (!last_to_arrive(in.sums.arrived + in.batch, in.batch)) return;
  for (int k = 0; k < kNorms; ++k) norm[k] = 0;
  for (int64_t b = threadIdx.x; b < in.batch; b += kThreads)
    for (int k = 0; k < kNorms; ++k) norm[k] += __ldcg(norms_of(b) + k);
  block_sum(norm);
  __shared__ double shared_ratio;
  if (threadIdx.x == 0) shared_ratio = ratio(norm);
  __syncthreads();
  for (int64_t b = threadIdx.x; b < in.batch; b += kThreads) write_row(in, b, shared_ratio);
}

void langevin_into(const Operands& in, int64_t draw, int64_t stream, bool shared, const View& rows) {
  const Layout layout = layout_of(in.x);
  Inputs inputs(layout);
  const View coef = dense(in.coef), key = in.key ? dense(*in.key) : in.coef;
  Langevin langevin{};
  langevin.network.x = inputs.add(in.x);
  langevin.network.F = inputs.add(in.F);
  if (in.F_u) langevin.network.F_u = inputs.add(*in.F_u);
  if (in.terms[0]) langevin.G = inputs.add(*in.terms[0]);
  if (in.terms[kMaxTerms - 1]) langevin.z = inputs.add(*in.terms[kMaxTerms - 1]);
  langevin.network.coef = (const double*)coef.data();
  langevin.network.coef_per_sample = coef.dim() == 2;
  langevin.keys = in.key ? (const int64_t*)key.data() : nullptr;
  langevin.draw = draw;
  langevin.stream = (uint32_t)stream;
  langevin.shared = shared;
  langevin.batch = (unsigned)layout.batch;
  langevin.rows = (double*)rows.data();

  Layout order = layout;
  if (!in.key) order.channels = 1;  // without noise, memory order is as good as any
  const Shape shape(order, inputs.wide());
  const Launch launch(in.x);
  const SumMemory<kNorms> memory(in.x, shape, launch, shared);
  langevin.sums = memory.sums();
  launch(in.x.dtype == Dtype::f64 ? langevin_kernel<double> : langevin_kernel<float>, layout.batch * shape.blocks, langevin,
      shape);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("langevin_row", TORCH_BOX(&langevin_row<langevin_into>));
  m.impl("langevin_row.out", TORCH_BOX(&langevin_row_out<langevin_into>));
}

}  // namespace fastdiff::cuda
