// sampler_step's entry points, once for every device: validation, allocation, and the call of the device's `StepInto`.
#pragma once

#include <tuple>

#include "coef.h"
#include "tensor.h"

namespace fastdiff {

// The tensors of a step as they come: the fixed ones, and the optional ones by position.
struct Operands {
  View x, F, coef;
  std::optional<View> F_u, terms[kMaxTerms], key, known, mask;  // terms: G, H1, H2, H3, z
};
constexpr const char* kTermNames[] = {"G", "H1", "H2", "H3", "z"};

struct Outputs {
  View y;
  std::optional<View> net_in, D, eps_norm;
};

inline void check(const Operands& in, int64_t draw, int64_t stream) {
  check_like("F", in.F, in.x);
  check_coef(in.coef, in.x, kCoefs);
  if (in.F_u) check_like("F_u", *in.F_u, in.x);
  for (int j = 0; j < kMaxTerms; ++j)
    if (in.terms[j]) check_like(kTermNames[j], *in.terms[j], in.x);
  if (in.known) check_like("known", *in.known, in.x);
  if (in.mask) check_like("mask", *in.mask, in.x);
  if (in.known.has_value() != in.mask.has_value())
    throw std::invalid_argument("known, mask: expected both or neither, got one");
  if (in.key) check_key(*in.key, in.x);
  if (in.key && in.terms[kMaxTerms - 1]) throw std::invalid_argument("key: expected none beside z, got both");
  check_counter(draw, stream);
}

// What a device does: reads `in`, writes `out`, which have been validated.
using StepInto = void(const Operands& in, int64_t draw, int64_t stream, const Outputs& out);

inline std::optional<View> view(OptionalTensor& t) {
  return t ? std::optional<View>(std::in_place, std::move(*t)) : std::nullopt;
}

template <StepInto* kInto>
void sampler_step_out(Tensor x, Tensor F, Tensor coef, OptionalTensor F_u, OptionalTensor G, OptionalTensor H1,
    OptionalTensor H2, OptionalTensor H3, OptionalTensor z, OptionalTensor key, int64_t draw, int64_t stream,
    OptionalTensor known, OptionalTensor mask, Tensor out, OptionalTensor net_in, OptionalTensor D, OptionalTensor eps_norm) {
  const Operands in{View(std::move(x)), View(std::move(F)), View(std::move(coef)), view(F_u),
      {view(G), view(H1), view(H2), view(H3), view(z)}, view(key), view(known), view(mask)};
  check_state("x", in.x);
  const Outputs to{View(std::move(out)), view(net_in), view(D), view(eps_norm)};
  check_like("out", to.y, in.x);
  if (to.net_in) check_like("net_in", *to.net_in, in.x);
  if (to.D) check_like("D", *to.D, in.x);
  if (to.eps_norm) check_per_sample("eps_norm", *to.eps_norm, in.x);
  check(in, draw, stream);
  kInto(in, draw, stream, to);
}

template <StepInto* kInto>
std::tuple<Tensor, OptionalTensor, OptionalTensor, OptionalTensor> sampler_step(Tensor x, Tensor F, Tensor coef,
    OptionalTensor F_u, OptionalTensor G, OptionalTensor H1, OptionalTensor H2, OptionalTensor H3, OptionalTensor z,
    OptionalTensor key, int64_t draw, int64_t stream, OptionalTensor known, OptionalTensor mask,
    std::optional<ScalarType> net_dtype, bool return_D, bool return_eps_norm) {
  const Operands in{View(std::move(x)), View(std::move(F)), View(std::move(coef)), view(F_u),
      {view(G), view(H1), view(H2), view(H3), view(z)}, view(key), view(known), view(mask)};
  check_state("x", in.x);
  check(in, draw, stream);
  check_net_dtype(net_dtype);
  Outputs to{View(new_like(in.x)), {}, {}, {}};
  if (net_dtype) to.net_in.emplace(new_like(in.x, *net_dtype));
  if (return_D) to.D.emplace(new_like(in.x));
  if (return_eps_norm)
    to.eps_norm.emplace(new_per_sample(in.x, in.x.dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float));
  kInto(in, draw, stream, to);
  const auto tensor = [](const std::optional<View>& v) { return v ? OptionalTensor(v->tensor) : std::nullopt; };
  return {to.y.tensor, tensor(to.net_in), tensor(to.D), tensor(to.eps_norm)};
}

}  // namespace fastdiff
