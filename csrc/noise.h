// The noise ops' entry points, once for every device: validation, allocation, and the call of the device's `NoiseInto`.
#pragma once

#include "noise_key.h"
#include "tensor.h"

namespace fastdiff {

// What a device does: fills `out`; all arguments have been validated.
using NoiseInto = void(const View& key, int64_t draw, int64_t stream, const View& out);

template <NoiseInto* kInto>
void noise_out(Tensor key, int64_t draw, int64_t stream, Tensor out) {
  const View target(std::move(out)), keys(std::move(key));
  check_state("out", target);
  check_key(keys, target);
  check_counter(draw, stream);
  kInto(keys, draw, stream, target);
}

template <NoiseInto* kInto>
Tensor noise_like(Tensor like, Tensor key, int64_t draw, int64_t stream) {
  const View model(std::move(like)), keys(std::move(key));
  check_state("like", model);
  check_key(keys, model);
  check_counter(draw, stream);
  Tensor out = new_like(model);
  kInto(keys, draw, stream, View(out));
  return out;
}

// fill<Noise> is the device's NoiseInto for each kind.
#define FASTDIFF_REGISTER_NOISE(m, fill)                                 \
  m.impl("normal", TORCH_BOX(&noise_like<fill<Noise::normal>>));         \
  m.impl("uniform", TORCH_BOX(&noise_like<fill<Noise::uniform>>));       \
  m.impl("rademacher", TORCH_BOX(&noise_like<fill<Noise::rademacher>>)); \
  m.impl("normal.out", TORCH_BOX(&noise_out<fill<Noise::normal>>));      \
  m.impl("uniform.out", TORCH_BOX(&noise_out<fill<Noise::uniform>>));    \
  m.impl("rademacher.out", TORCH_BOX(&noise_out<fill<Noise::rademacher>>))

}  // namespace fastdiff
