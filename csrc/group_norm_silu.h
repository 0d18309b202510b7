// The entry points of group_norm_silu and of its backward, once for every device: validation, allocation, the device's call.
#pragma once

#include <tuple>

#include "tensor.h"

namespace fastdiff {

struct NormOperands {
  View x, weight, bias;
  std::optional<View> scale, shift;
  int64_t groups;
  bool silu;
  int64_t batch() const { return x.sizes[0]; }
  int64_t channels() const { return x.sizes[1]; }
  int64_t width() const { return channels() / groups; }                               // channels of a group
  int64_t spatial() const { return x.numel ? x.numel / (batch() * channels()) : 0; }  // elements of a channel
};

inline void check_shape(const char* name, const View& t, const View& x, std::initializer_list<int64_t> shape) {
  const bool shaped = t.sizes.size() == shape.size() && std::equal(shape.begin(), shape.end(), t.sizes.begin());
  if (!shaped || !t.floating() || !same_device(t, x))
    reject(name, show_shape(Sizes(shape.begin(), shape.size())) + " floating on " + show_device(x), t);
}

inline void check_float64(const char* name, const View& t, const View& x, int64_t columns) {
  const bool shaped = t.dim() == 2 && t.sizes[0] == x.batch() && t.sizes[1] == columns;
  if (!shaped || t.dtype != Dtype::f64 || !same_device(t, x))
    reject(name, "[" + std::to_string(x.batch()) + ", " + std::to_string(columns) + "] float64 on " + show_device(x), t);
}

inline void check_eps(double eps) {
  if (!(eps > 0)) throw std::invalid_argument("eps: expected a number > 0, got " + std::to_string(eps));
}

inline void check(const NormOperands& in) {
  if (in.x.dim() < 2 || !in.x.floating()) reject("x", "[B, C, ...] float64, float32, bfloat16 or float16", in.x);
  const int64_t batch = in.batch(), channels = in.channels();
  check_shape("weight", in.weight, in.x, {channels});
  check_shape("bias", in.bias, in.x, {channels});
  if (in.scale) check_shape("scale", *in.scale, in.x, {batch, channels});
  if (in.shift) check_shape("shift", *in.shift, in.x, {batch, channels});
  if (in.groups < 1 || channels % in.groups)
    throw std::invalid_argument(
        "groups: expected a divisor of " + std::to_string(channels) + ", got " + std::to_string(in.groups));
}

inline NormOperands norm_operands(
    Tensor x, Tensor weight, Tensor bias, OptionalTensor scale, OptionalTensor shift, int64_t groups, bool silu) {
  const auto view = [](OptionalTensor& t) { return t ? std::optional<View>(std::in_place, std::move(*t)) : std::nullopt; };
  return {View(std::move(x)), View(std::move(weight)), View(std::move(bias)), view(scale), view(shift), groups, silu};
}

inline View new_float64(const View& x, int64_t columns) {
  const int64_t size[2] = {x.batch(), columns};
  return View(torch::stable::new_empty(x.tensor, {size, 2}, ScalarType::Double));
}

struct NormOutputs {
  View y, mean, rstd;  // the statistics dense [B, groups] float64
};
struct NormGradients {
  View grad_x, dot, total;  // the sums dense [B, C] float64
};

// What a device does; all has been validated.
using NormInto = void(const NormOperands& in, double eps, const NormOutputs& out);
using NormBackwardInto = void(
    const NormOperands& in, const View& grad, const View& mean, const View& rstd, const NormGradients& out);

template <NormInto* kInto>
std::tuple<Tensor, Tensor, Tensor> group_norm_silu(
    Tensor x, Tensor weight, Tensor bias, int64_t groups, double eps, OptionalTensor scale, OptionalTensor shift, bool silu) {
  const auto in =
      norm_operands(std::move(x), std::move(weight), std::move(bias), std::move(scale), std::move(shift), groups, silu);
  check(in);
  check_eps(eps);
  const NormOutputs out{View(new_like(in.x)), new_float64(in.x, groups), new_float64(in.x, groups)};
  kInto(in, eps, out);
  return {out.y.tensor, out.mean.tensor, out.rstd.tensor};
}

template <NormInto* kInto>
void group_norm_silu_out(Tensor x, Tensor weight, Tensor bias, int64_t groups, double eps, OptionalTensor scale,
    OptionalTensor shift, bool silu, Tensor out, Tensor mean, Tensor rstd) {
  const auto in =
      norm_operands(std::move(x), std::move(weight), std::move(bias), std::move(scale), std::move(shift), groups, silu);
  check(in);
  const View y(std::move(out)), means(std::move(mean)), rstds(std::move(rstd));
  check_like("out", y, in.x);
  check_float64("mean", means, in.x, groups);
  check_float64("rstd", rstds, in.x, groups);
  check_eps(eps);
  const Layout small{in.batch(), groups, 1};
  Output first(means, small), second(rstds, small);
  kInto(in, eps, {y, first.view(), second.view()});
  first.finish();
  second.finish();
}

inline void check_backward(const NormOperands& in, const View& grad, const View& mean, const View& rstd) {
  check(in);
  check_like("grad", grad, in.x);
  check_float64("mean", mean, in.x, in.groups);
  check_float64("rstd", rstd, in.x, in.groups);
}

template <NormBackwardInto* kInto>
std::tuple<Tensor, Tensor, Tensor> group_norm_silu_backward(Tensor x, Tensor grad, Tensor weight, Tensor bias, Tensor mean,
    Tensor rstd, int64_t groups, OptionalTensor scale, OptionalTensor shift, bool silu) {
  const auto in =
      norm_operands(std::move(x), std::move(weight), std::move(bias), std::move(scale), std::move(shift), groups, silu);
  const View gradient(std::move(grad)), means(std::move(mean)), rstds(std::move(rstd));
  check_backward(in, gradient, means, rstds);
  const NormGradients out{View(new_like(in.x)), new_float64(in.x, in.channels()), new_float64(in.x, in.channels())};
  kInto(in, gradient, dense(means), dense(rstds), out);
  return {out.grad_x.tensor, out.dot.tensor, out.total.tensor};
}

template <NormBackwardInto* kInto>
void group_norm_silu_backward_out(Tensor x, Tensor grad, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, int64_t groups,
    OptionalTensor scale, OptionalTensor shift, bool silu, Tensor out, Tensor dot, Tensor total) {
  const auto in =
      norm_operands(std::move(x), std::move(weight), std::move(bias), std::move(scale), std::move(shift), groups, silu);
  const View gradient(std::move(grad)), means(std::move(mean)), rstds(std::move(rstd));
  const View grad_x(std::move(out)), dots(std::move(dot)), totals(std::move(total));
  check(in);
  check_like("out", grad_x, in.x);
  check_float64("dot", dots, in.x, in.channels());
  check_float64("total", totals, in.x, in.channels());
  check_backward(in, gradient, means, rstds);
  const Layout small{in.batch(), in.channels(), 1};
  Output first(dots, small), second(totals, small);
  kInto(in, gradient, dense(means), dense(rstds), {grad_x, first.view(), second.view()});
  first.finish();
  second.finish();
}

}  // namespace fastdiff
