// group_norm_silu and its backward on CUDA: one thread block for each (sample, group), which reads its elements twice, the
// second time from a cache.
#include "../group_norm_silu.h"

#include "reduce.cuh"

namespace fastdiff::cuda {

FASTDIFF_INLINE double sigmoid(double u) { return 1.0 / (1.0 + ::exp(-u)); }

namespace {

struct Norm {
  Memory x, weight, bias, scale, shift;
  int64_t channels, spatial;  // of a sample, of a channel
  int64_t width;              // channels of a group
  bool last, silu, wide;      // wide: four neighbours are of one channel and can move at once
  double eps;
  Memory y, grad, grad_x;
  double *mean, *rstd, *dot, *total;
};

// The group that this thread block works on.
struct Group {
  int64_t sample, first, count;  // its first channel, its elements
  FASTDIFF_METHOD explicit Group(const Norm& norm) {
    const int64_t groups = norm.channels / norm.width;
    sample = blockIdx.x / groups;
    first = blockIdx.x % groups * norm.width;
    count = norm.width * norm.spatial;
  }
  // Where element e, in the order of memory, lies, and of which channel of the group it is.
  FASTDIFF_METHOD int64_t offset(const Norm& norm, int64_t e) const {
    if (!norm.last) return (sample * norm.channels + first) * norm.spatial + e;
    return (sample * norm.spatial + e / norm.width) * norm.channels + first + e % norm.width;
  }
  FASTDIFF_METHOD int64_t channel(const Norm& norm, int64_t e) const { return norm.last ? e % norm.width : e / norm.spatial; }
  FASTDIFF_METHOD int64_t place(const Norm& norm, int64_t c, int64_t pixel) const {
    if (norm.last) return (sample * norm.spatial + pixel) * norm.channels + first + c;
    return (sample * norm.channels + first + c) * norm.spatial + pixel;
  }
  // A and B of u = xhat*A + B.
  FASTDIFF_METHOD void affine(const Norm& norm, int64_t c, double& A, double& B) const {
    A = load<double>(norm.weight, first + c), B = load<double>(norm.bias, first + c);
    const int64_t at = sample * norm.channels + first + c;
    if (norm.scale) {
      const double s = 1 + load<double>(norm.scale, at);
      A *= s, B *= s;
    }
    if (norm.shift) B += load<double>(norm.shift, at);
  }
};

// u = (x - m)*a + b, where m is the mean rounded to the computing type and b makes up for the rest.
template <class T>
struct Line {
  T m;
  double rest, rstd;
  FASTDIFF_METHOD Line(double mean, double rstd) : m((T)mean), rest(mean - (double)m), rstd(rstd) {}
  FASTDIFF_METHOD void coefficients(double A, double B, T& a, T& b) const { a = (T)(rstd * A), b = (T)(B - rest * rstd * A); }
};

// f(e, four elements' values, how many) over the group's elements, in the order of memory.
template <class T, class F>
FASTDIFF_INLINE void for_elements(const Norm& norm, const Group& group, const F& f) {
  for (int64_t e = 4 * (int64_t)threadIdx.x; e < group.count; e += 4 * kThreads) {
    T v[4] = {};
    const int count = (int)(group.count - e < 4 ? group.count - e : 4);
    if (norm.wide)
      load4(norm.x, group.offset(norm, e), v);
    else
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j < count) v[j] = load<T>(norm.x, group.offset(norm, e + j));
      }
    f(e, v, count);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 2) norm_kernel(const __grid_constant__ Norm norm) {
  __shared__ double statistics[2];
  const Group group(norm);
  const T pivot = group.count ? load<T>(norm.x, group.offset(norm, 0)) : T(0);
  double sums[2] = {};
  for_elements<T>(norm, group, [&](int64_t, const T v[4], int count) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j >= count) break;
      const double d = (double)v[j] - (double)pivot;
      sums[0] += d;
      sums[1] = fma(d, d, sums[1]);
    }
  });
  block_sum(sums);
  if (threadIdx.x == 0) {
    const double shift = sums[0] / (double)group.count, variance = sums[1] / (double)group.count - shift * shift;
    statistics[0] = (double)pivot + shift;
    statistics[1] = 1 / ::sqrt((variance > 0 ? variance : variance < 0 ? 0 : variance) + norm.eps);  // a NaN stays
    norm.mean[blockIdx.x] = statistics[0];
    norm.rstd[blockIdx.x] = statistics[1];
  }
  __syncthreads();
  const Line<T> line(statistics[0], statistics[1]);
  int64_t known = -1;
  T a{}, b{};
  for_elements<T>(norm, group, [&](int64_t e, T v[4], int count) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j >= count) break;
      const int64_t c = group.channel(norm, e + j);
      if (c != known) {
        double A, B;
        group.affine(norm, known = c, A, B);
        line.coefficients(A, B, a, b);
      }
      const T u = normalized_formula(v[j], line.m, a, b);
      v[j] = norm.silu ? u * sigmoid(u) : u;
    }
    if (norm.wide)
      store4(norm.y, group.offset(norm, e), v);
    else
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j < count) store(norm.y, group.offset(norm, e + j), v[j]);
      }
  });
}

template <class T>
FASTDIFF_INLINE T slope(const Norm& norm, T g, T x, T m, T a, T b) {
  if (!norm.silu) return g;
  const T u = normalized_formula(x, m, a, b);
  return g * silu_slope_formula(u, sigmoid(u));
}

// A warp sums the channels that it takes; then the whole block writes.
template <class T>
__global__ void __launch_bounds__(kThreads, 2) norm_backward_kernel(const __grid_constant__ Norm norm) {
  __shared__ double means[2];
  const Group group(norm);
  const Line<T> line(norm.mean[blockIdx.x], norm.rstd[blockIdx.x]);
  const int lane = threadIdx.x % 32;
  double of_group[2] = {};
  for (int64_t c = threadIdx.x / 32; c < norm.width; c += kThreads / 32) {
    double A, B;
    T a, b;
    group.affine(norm, c, A, B);
    line.coefficients(A, B, a, b);
    double total = 0, dot = 0;
    for (int64_t p = lane; p < norm.spatial; p += 32) {
      const int64_t at = group.place(norm, c, p);
      const T x = load<T>(norm.x, at), du = slope(norm, load<T>(norm.grad, at), x, line.m, a, b);
      total += (double)du;
      dot = fma((double)du, (double)(x - line.m), dot);
    }
    for (int offset = 16; offset; offset /= 2) {
      total += __shfl_down_sync(0xFFFFFFFFu, total, offset);
      dot += __shfl_down_sync(0xFFFFFFFFu, dot, offset);
    }
    if (lane) continue;
    dot = line.rstd * (dot - line.rest * total);
    const int64_t channel = group.sample * norm.channels + group.first + c;
    norm.total[channel] = total;
    norm.dot[channel] = dot;
    of_group[0] += A * total;
    of_group[1] += A * dot;
  }
  block_sum(of_group);
  if (threadIdx.x == 0)
    for (int k = 0; k < 2; ++k) means[k] = of_group[k] / (double)group.count;
  __syncthreads();
  const double k2 = -line.rstd * line.rstd * means[1], k3 = -line.rstd * means[0] - line.rest * k2;
  int64_t known = -1;
  T a{}, b{}, k1{};
  for_elements<T>(norm, group, [&](int64_t e, T v[4], int count) {
    T g[4];
    if (norm.wide)
      load4(norm.grad, group.offset(norm, e), g);
    else
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j < count) g[j] = load<T>(norm.grad, group.offset(norm, e + j));
      }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j >= count) break;
      const int64_t c = group.channel(norm, e + j);
      if (c != known) {
        double A, B;
        group.affine(norm, known = c, A, B);
        line.coefficients(A, B, a, b);
        k1 = (T)(line.rstd * A);
      }
      v[j] = norm_gradient_formula(k1, slope(norm, g[j], v[j], line.m, a, b), (T)k2, v[j], line.m, (T)k3);
    }
    if (norm.wide)
      store4(norm.grad_x, group.offset(norm, e), v);
    else
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j < count) store(norm.grad_x, group.offset(norm, e + j), v[j]);
      }
  });
}

// What both kernels are given; the views live as long as the launch is being queued.
struct Parameters {
  View weight, bias;
  std::optional<View> scale, shift;
  explicit Parameters(const NormOperands& in) : weight(dense(in.weight)), bias(dense(in.bias)) {
    if (in.scale) scale.emplace(dense(*in.scale));
    if (in.shift) shift.emplace(dense(*in.shift));
  }
  Norm norm(const NormOperands& in, const Layout& layout) const {
    Norm norm{};
    norm.weight = Memory(weight);
    norm.bias = Memory(bias);
    if (scale) norm.scale = Memory(*scale);
    if (shift) norm.shift = Memory(*shift);
    norm.channels = in.channels();
    norm.spatial = in.spatial();
    norm.width = in.width();
    norm.last = layout.channels > 1;
    norm.silu = in.silu;
    return norm;
  }
};

// A group's elements lie together where channels come first; where they come last, four neighbours are four channels.
bool wide_enough(const Norm& norm) { return !norm.last && norm.spatial % 4 == 0; }

int64_t thread_blocks(const NormOperands& in) { return in.channels() ? in.batch() * in.groups : 0; }

void norm_into(const NormOperands& in, double eps, const NormOutputs& out) {
  const Layout layout = layout_of(in.x);
  OutputSet outputs(layout);
  Inputs inputs(layout);
  const Parameters parameters(in);
  Norm norm = parameters.norm(in, layout);
  norm.y = Memory(outputs.add("out", out.y));
  norm.x = inputs.add(in.x, &outputs);
  norm.wide = wide_enough(norm) && norm.y.wide && inputs.wide();
  norm.eps = eps;
  norm.mean = (double*)out.mean.data();
  norm.rstd = (double*)out.rstd.data();
  const Launch launch(in.x);
  launch(in.x.dtype == Dtype::f64 ? norm_kernel<double> : norm_kernel<float>, thread_blocks(in), norm);
  outputs.finish();
}

void norm_backward_into(
    const NormOperands& in, const View& grad, const View& mean, const View& rstd, const NormGradients& out) {
  const Layout layout = layout_of(in.x);
  Output written(out.grad_x, layout);
  const View x = with_layout(in.x, layout), g = with_layout(grad, layout);
  check_apart("out", written.view(), x);
  check_apart("out", written.view(), g);
  const Parameters parameters(in);
  Norm norm = parameters.norm(in, layout);
  norm.x = Memory(x);
  norm.grad = Memory(g);
  norm.grad_x = Memory(written.view());
  norm.wide = wide_enough(norm) && norm.x.wide && norm.grad.wide && norm.grad_x.wide;
  norm.mean = (double*)mean.data();
  norm.rstd = (double*)rstd.data();
  norm.dot = (double*)out.dot.data();
  norm.total = (double*)out.total.data();
  const Launch launch(in.x);
  launch(in.x.dtype == Dtype::f64 ? norm_backward_kernel<double> : norm_backward_kernel<float>, thread_blocks(in), norm);
  written.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("group_norm_silu", TORCH_BOX(&group_norm_silu<norm_into>));
  m.impl("group_norm_silu.out", TORCH_BOX(&group_norm_silu_out<norm_into>));
  m.impl("group_norm_silu_backward", TORCH_BOX(&group_norm_silu_backward<norm_backward_into>));
  m.impl("group_norm_silu_backward.out", TORCH_BOX(&group_norm_silu_backward_out<norm_backward_into>));
}

}  // namespace fastdiff::cuda
