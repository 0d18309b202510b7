// probe_dot's entry points, once for every device: validation, allocation, and the call of the device's `ProbeDotInto`.
#pragma once

#include "noise_key.h"
#include "tensor.h"

namespace fastdiff {

// What a device does: writes sum v*g of each sample to dense memory [B], float64 or float32.
using ProbeDotInto = void(const View& g, const View& key, int64_t draw, int64_t stream, Noise probe, const View& out);

inline void check_probe(const View& g, const View& key, int64_t draw, int64_t stream) {
  check_state("g", g);
  check_key(key, g);
  check_counter(draw, stream);
}

template <ProbeDotInto* kInto>
void probe_dot_out(Tensor g, Tensor key, int64_t draw, int64_t stream, bool gaussian, Tensor out) {
  const View state(std::move(g)), keys(std::move(key)), dots(std::move(out));
  check_state("g", state);
  check_per_sample("out", dots, state);
  check_probe(state, keys, draw, stream);
  Output written(dots, Layout{state.batch(), 1});
  kInto(state, keys, draw, stream, gaussian ? Noise::normal : Noise::rademacher, written.view());
  written.finish();
}

template <ProbeDotInto* kInto>
Tensor probe_dot(Tensor g, Tensor key, int64_t draw, int64_t stream, bool gaussian) {
  const View state(std::move(g)), keys(std::move(key));
  check_probe(state, keys, draw, stream);
  const View dots(new_per_sample(state, ScalarType::Double));
  kInto(state, keys, draw, stream, gaussian ? Noise::normal : Noise::rademacher, dots);
  return dots.tensor;
}

}  // namespace fastdiff
