// ode_stage's entry points, once for every device: validation, allocation, and the call of the device's `StageInto`.
#pragma once

#include "sampler_step.h"
#include "slopes.h"

namespace fastdiff {

struct StageOperands {
  View x, F, coef, x0, K, weights;
  std::optional<View> F_u, G;
  int slopes() const { return (int)K.sizes[0]; }
};

struct StageOutputs {
  View k, y;
  std::optional<View> net_in;
};

// What a device does. K and the weights are dense; K[m] is plain memory whatever the layout of the state.
using StageInto = void(const StageOperands& in, const StageOutputs& out);

inline void check(const StageOperands& in) {
  check_state("x", in.x);
  check_like("F", in.F, in.x);
  check_coef(in.coef, in.x, kCoefs);
  check_like("x0", in.x0, in.x);
  check_slopes(in.K, in.x);
  check_weights(in.weights, in.x, in.K.sizes[0] + 1);
  if (in.F_u) check_like("F_u", *in.F_u, in.x);
  if (in.G) check_like("G", *in.G, in.x);
}

template <StageInto* kInto>
void ode_stage_out(Tensor x, Tensor F, Tensor coef, Tensor x0, Tensor K, Tensor weights, OptionalTensor F_u, OptionalTensor G,
    Tensor out, Tensor y, OptionalTensor net_in) {
  const StageOperands in{View(std::move(x)), View(std::move(F)), View(std::move(coef)), View(std::move(x0)),
      dense(View(std::move(K))), dense(View(std::move(weights))), view(F_u), view(G)};
  check_state("x", in.x);
  const StageOutputs to{View(std::move(out)), View(std::move(y)), view(net_in)};
  check_like("out", to.k, in.x);
  check_like("y", to.y, in.x);
  if (to.net_in) check_like("net_in", *to.net_in, in.x);
  check(in);
  kInto(in, to);
}

template <StageInto* kInto>
std::tuple<Tensor, Tensor, OptionalTensor> ode_stage(Tensor x, Tensor F, Tensor coef, Tensor x0, Tensor K, Tensor weights,
    OptionalTensor F_u, OptionalTensor G, std::optional<ScalarType> net_dtype) {
  const StageOperands in{View(std::move(x)), View(std::move(F)), View(std::move(coef)), View(std::move(x0)),
      dense(View(std::move(K))), dense(View(std::move(weights))), view(F_u), view(G)};
  check(in);
  check_net_dtype(net_dtype);
  StageOutputs to{View(new_like(in.x)), View(new_like(in.x)), {}};
  if (net_dtype) to.net_in.emplace(new_like(in.x, *net_dtype));
  kInto(in, to);
  return {to.k.tensor, to.y.tensor, to.net_in ? OptionalTensor(to.net_in->tensor) : std::nullopt};
}

}  // namespace fastdiff
