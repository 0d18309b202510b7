// group_norm_silu and its backward on the CPU: a task has whole groups of one sample, which it keeps in cache.
#include "../group_norm_silu.h"

#include <cmath>
#include <vector>

#include "driver.h"
#include "typed.h"

namespace fastdiff::cpu {
namespace {

constexpr int64_t kTile = 16;  // channels that a task has at the least where they are innermost: a line of cache

// The channels of a task, as rows of `spatial` elements that begin `pitch` apart.
struct Tile {
  const Layout& layout;
  int64_t channels, spatial, sample, first, count, pitch;
  bool last() const { return layout.channels > 1; }
  int64_t row(int64_t pixel) const { return (sample * spatial + pixel) * channels + first; }  // where channels come last
  int64_t begin() const { return (sample * channels + first) * spatial; }                     // where they do not
};

// f(tile) for the tiles of every sample, in parallel.
template <class F>
void for_tiles(const NormOperands& in, const Layout& layout, const F& f) {
  const int64_t channels = in.channels(), width = in.width(), spatial = in.spatial();
  if (layout.batch == 0 || channels == 0) return;
  const bool last = layout.channels > 1;
  const int64_t tile = last ? std::min((kTile + width - 1) / width * width, channels) : width;
  const int64_t per_sample = (channels + tile - 1) / tile;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, tile * spatial));
  torch::stable::parallel_for(0, layout.batch * per_sample, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t sample = task / per_sample, first = task % per_sample * tile;
      const int64_t pitch = last ? spatial + kTile : spatial;  // rows a power of two apart would share sets of the cache
      f(Tile{layout, channels, spatial, sample, first, std::min(tile, channels - first), pitch});
    }
  });
}

// A state's rows of one tile, in memory where they lie so, else in a buffer that stays with the thread.
template <class T>
class Rows {
 public:
  const T* read(const Kernels& k, const Input& in, const Tile& tile) {
    if (!tile.last()) return in.block(k, tile.begin(), tile.count * tile.spatial, reserve(tile, in.dtype != dtype_for<T>));
    T* const rows = reserve(tile, true);
    for (int64_t p = 0; p < tile.spatial; ++p) {
      const T* pixel = in.block(k, tile.row(p), tile.count, rows + tile.count * tile.pitch);
      for (int64_t c = 0; c < tile.count; ++c) rows[c * tile.pitch + p] = pixel[c];
    }
    return rows;
  }
  T* write(const Sink& out, const Tile& tile) {
    return tile.last() ? reserve(tile, true) : out.block(tile.begin(), reserve(tile, out.dtype != dtype_for<T>));
  }
  void commit(const Kernels& k, const Sink& out, const Tile& tile) {
    if (!tile.last()) return out.commit(k, tile.begin(), tile.count * tile.spatial, data_.data());
    for (int64_t p = 0; p < tile.spatial; ++p) {
      T* pixel = out.block(tile.row(p), data_.data() + tile.count * tile.pitch);
      for (int64_t c = 0; c < tile.count; ++c) pixel[c] = data_[c * tile.pitch + p];
      out.commit(k, tile.row(p), tile.count, pixel);
    }
  }

 private:
  T* reserve(const Tile& tile, bool needed) {
    const size_t size = needed ? tile.count * (tile.pitch + 1) : 0;
    if (data_.size() < size) data_.resize(size);
    return data_.data();
  }
  std::vector<T> data_;
};

// A and B of u = xhat*A + B for the channels of a tile.
class Affine {
 public:
  explicit Affine(const NormOperands& in) : weight_(dense(in.weight)), bias_(dense(in.bias)) {
    if (in.scale) scale_.emplace(dense(*in.scale));
    if (in.shift) shift_.emplace(dense(*in.shift));
  }
  struct Values {
    std::vector<double> A, B, more;
  };
  void load(const Kernels& k, const Tile& tile, Values& v) const {
    v.A.resize(tile.count), v.B.resize(tile.count), v.more.resize(tile.count);
    const auto get = [&](const View& t, int64_t at, std::vector<double>& out) {
      k.load_f64(t.dtype, (const char*)t.data() + at * t.element_size(), out.data(), tile.count);
    };
    get(weight_, tile.first, v.A);
    get(bias_, tile.first, v.B);
    const int64_t at = tile.sample * tile.channels + tile.first;
    if (scale_) {
      get(*scale_, at, v.more);
      for (int64_t c = 0; c < tile.count; ++c) v.A[c] *= 1 + v.more[c], v.B[c] *= 1 + v.more[c];
    }
    if (shift_) {
      get(*shift_, at, v.more);
      for (int64_t c = 0; c < tile.count; ++c) v.B[c] += v.more[c];
    }
  }

 private:
  View weight_, bias_;
  std::optional<View> scale_, shift_;
};

// u = (x - m)*a + b in the computing type, where m is the mean rounded to it and b makes up for the rest.
template <class T>
struct Line {
  T m;
  double rest, rstd;
  Line(double mean, double rstd) : m((T)mean), rest(mean - (double)m), rstd(rstd) {}
  T a(double A) const { return (T)(rstd * A); }
  T b(double A, double B) const { return (T)(B - rest * rstd * A); }
};

template <class T>
void run(
    const NormOperands& in, const Layout& layout, const Input& x, double eps, const Sink& y, double* means, double* rstds) {
  using K = Typed<T>;
  const Kernels& k = kernels();
  const Affine affine(in);
  const int64_t width = in.width();
  for_tiles(in, layout, [&](const Tile& tile) {
    static thread_local Rows<T> inputs, outputs;
    static thread_local Affine::Values values;
    const T* const rows = inputs.read(k, x, tile);
    T* const out = outputs.write(y, tile);
    affine.load(k, tile, values);
    for (int64_t c = 0; c < tile.count; c += width) {
      const double elements = (double)(width * tile.spatial);
      const T* const group = rows + c * tile.pitch;
      double sums[2], mean = elements > 0 ? (double)group[0] : 0.0, variance = 0;
      for (int pass = 0; pass < 2; ++pass) {  // about the first element, and about the mean if that was far away
        const T pivot = (T)mean;
        sums[0] = sums[1] = 0;
        if (tile.pitch == tile.spatial)
          (k.*K::moments)(width * tile.spatial, group, pivot, sums);
        else
          for (int64_t i = 0; i < width; ++i) (k.*K::moments)(tile.spatial, group + i * tile.pitch, pivot, sums);
        const double shift = sums[0] / elements;
        mean = (double)pivot + shift;
        variance = std::max(sums[1] / elements - shift * shift, 0.0);
        if (shift * shift <= 4 * variance) break;  // less than one digit went
      }
      const double rstd = 1 / std::sqrt(variance + eps);
      const int64_t at = tile.sample * in.groups + (tile.first + c) / width;
      means[at] = mean;
      rstds[at] = rstd;
      const Line<T> line(mean, rstd);
      for (int64_t i = c; i < c + width; ++i)
        (k.*K::normalize)(tile.spatial, rows + i * tile.pitch, line.m, line.a(values.A[i]), line.b(values.A[i], values.B[i]),
            in.silu, out + i * tile.pitch);
    }
    outputs.commit(k, y, tile);
  });
}

void norm_into(const NormOperands& in, double eps, const NormOutputs& out) {
  const Layout layout = layout_of(in.x);
  OutputSet outputs(layout);
  const Sink y(outputs.add("out", out.y));
  const View x = with_layout(in.x, layout);
  outputs.check_against(x);
  const auto means = (double*)out.mean.data(), rstds = (double*)out.rstd.data();
  x.dtype == Dtype::f64 ? run<double>(in, layout, Input(x), eps, y, means, rstds)
                        : run<float>(in, layout, Input(x), eps, y, means, rstds);
  outputs.finish();
}

struct Sums {
  const double *mean, *rstd;
  double *dot, *total;
};

template <class T>
void run_backward(
    const NormOperands& in, const Layout& layout, const Input& x, const Input& g, const Sums& of, const Sink& dx) {
  using K = Typed<T>;
  const Kernels& k = kernels();
  const Affine affine(in);
  const int64_t width = in.width();
  for_tiles(in, layout, [&](const Tile& tile) {
    static thread_local Rows<T> inputs, gradients, outputs;
    static thread_local Affine::Values values;
    const T *const rows = inputs.read(k, x, tile), *const grads = gradients.read(k, g, tile);
    T* const du = outputs.write(dx, tile);
    affine.load(k, tile, values);
    const double elements = (double)(width * tile.spatial);
    for (int64_t c = 0; c < tile.count; c += width) {
      const int64_t at = tile.sample * in.groups + (tile.first + c) / width;
      const Line<T> line(of.mean[at], of.rstd[at]);
      double mean_du = 0, mean_dot = 0;  // of A*du and A*du*xhat over the group
      for (int64_t i = c; i < c + width; ++i) {
        double sums[2] = {};
        const int64_t row = i * tile.pitch, channel = tile.sample * tile.channels + tile.first + i;
        (k.*K::normalize_backward)(tile.spatial, rows + row, grads + row, line.m, line.a(values.A[i]),
            line.b(values.A[i], values.B[i]), in.silu, du + row, sums);
        of.total[channel] = sums[0];
        of.dot[channel] = line.rstd * (sums[1] - line.rest * sums[0]);
        mean_du += values.A[i] * of.total[channel] / elements;
        mean_dot += values.A[i] * of.dot[channel] / elements;
      }
      const double slope = -line.rstd * line.rstd * mean_dot;
      for (int64_t i = c; i < c + width; ++i) {
        const T factors[3] = {(T)(line.rstd * values.A[i]), (T)slope, (T)(-line.rstd * mean_du - line.rest * slope)};
        (k.*K::norm_gradient)(tile.spatial, rows + i * tile.pitch, line.m, factors, du + i * tile.pitch);
      }
    }
    outputs.commit(k, dx, tile);
  });
}

void norm_backward_into(
    const NormOperands& in, const View& grad, const View& mean, const View& rstd, const NormGradients& out) {
  const Layout layout = layout_of(in.x);
  Output written(out.grad_x, layout);
  const View x = with_layout(in.x, layout), g = with_layout(grad, layout);
  check_apart("out", written.view(), x);
  check_apart("out", written.view(), g);
  const Sums sums{(const double*)mean.data(), (const double*)rstd.data(), (double*)out.dot.data(), (double*)out.total.data()};
  const Sink dx(written.view());
  x.dtype == Dtype::f64 ? run_backward<double>(in, layout, Input(x), Input(g), sums, dx)
                        : run_backward<float>(in, layout, Input(x), Input(g), sums, dx);
  written.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("group_norm_silu", TORCH_BOX(&group_norm_silu<norm_into>));
  m.impl("group_norm_silu.out", TORCH_BOX(&group_norm_silu_out<norm_into>));
  m.impl("group_norm_silu_backward", TORCH_BOX(&group_norm_silu_backward<norm_backward_into>));
  m.impl("group_norm_silu_backward.out", TORCH_BOX(&group_norm_silu_backward_out<norm_backward_into>));
}

}  // namespace fastdiff::cpu
