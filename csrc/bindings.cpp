// The control plane, fastdiff._C: what was built, which instruction set is in use, and the words of the noise format.
// The ops themselves register with the dispatcher when this library is loaded.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace py = pybind11;

#ifndef FASTDIFF_CUDA_ARCHS
#define FASTDIFF_CUDA_ARCHS ""
#endif

namespace {

// Scalar lanes, for the words and the word-to-float mappings one value at a time.
namespace scalar {
using f32 = float;
#define FASTDIFF_INLINE static inline
#define FASTDIFF_METHOD inline
#define FASTDIFF_UNROLL
template <class V, class S>
V broadcast(S value) {
  return (V)value;
}
inline float to_float(int32_t v) { return (float)v; }
inline int32_t as_i32(uint32_t v) { return (int32_t)v; }
inline uint32_t as_u32(float v) { return __builtin_bit_cast(uint32_t, v); }
inline uint32_t as_u32(int32_t v) { return (uint32_t)v; }
inline float as_f32(uint32_t v) { return __builtin_bit_cast(float, v); }
inline float select(bool mask, float a, float b) { return mask ? a : b; }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float sqrt(float a) { return __builtin_sqrtf(a); }
inline uint64_t mul32(uint64_t a, uint64_t b) { return (uint64_t)(uint32_t)a * (uint32_t)b; }
inline uint64_t high32(uint64_t a) { return a >> 32; }
#include "formulas.h"
}  // namespace scalar

using Words = py::array_t<uint32_t, py::array::c_style | py::array::forcecast>;

void check_shape(const char* name, const Words& a, py::ssize_t columns) {
  if (a.ndim() == 2 && a.shape(1) == columns) return;
  throw std::invalid_argument(std::string(name) + ": expected [N, " + std::to_string(columns) + "] uint32");
}

Words philox(const Words& counters, const Words& keys) {
  check_shape("counters", counters, 4);
  check_shape("keys", keys, 2);
  if (counters.shape(0) != keys.shape(0)) throw std::invalid_argument("keys: expected as many rows as counters");
  Words words({counters.shape(0), (py::ssize_t)4});
  const auto c = counters.unchecked<2>(), k = keys.unchecked<2>();
  auto w = words.mutable_unchecked<2>();
  for (py::ssize_t i = 0; i < counters.shape(0); ++i) {
    uint64_t c0 = c(i, 0), c1 = c(i, 1), c2 = c(i, 2), c3 = c(i, 3);
    scalar::philox4x32_10(c0, c1, c2, c3, scalar::RoundKeys{k(i, 0), k(i, 1)});
    w(i, 0) = (uint32_t)c0, w(i, 1) = (uint32_t)c1, w(i, 2) = (uint32_t)c2, w(i, 3) = (uint32_t)c3;
  }
  return words;
}

template <class F>
py::array_t<float> map_words(const Words& words, const F& f) {
  check_shape("words", words, 4);
  py::array_t<float> values({words.shape(0), (py::ssize_t)4});
  const auto w = words.unchecked<2>();
  auto v = values.mutable_unchecked<2>();
  for (py::ssize_t i = 0; i < words.shape(0); ++i) {
    const uint32_t in[4] = {w(i, 0), w(i, 1), w(i, 2), w(i, 3)};
    float out[4];
    f(in, out);
    for (int j = 0; j < 4; ++j) v(i, j) = out[j];
  }
  return values;
}

py::array_t<float> words_to_normal(const Words& words) {
  return map_words(words, [](const uint32_t* w, float* z) {
    scalar::box_muller(w[0], w[1], z[0], z[1]);
    scalar::box_muller(w[2], w[3], z[2], z[3]);
  });
}

py::array_t<float> words_to_uniform(const Words& words) {
  return map_words(words, [](const uint32_t* w, float* u) {
    for (int j = 0; j < 4; ++j) u[j] = scalar::unit_open_above(w[j]);
  });
}

py::array_t<float> words_to_rademacher(const Words& words) {
  return map_words(words, [](const uint32_t* w, float* r) {
    for (int j = 0; j < 4; ++j) r[j] = scalar::word_sign(w[j]);
  });
}

std::map<std::string, std::string> build_info() {
  return {
      {"version", FASTDIFF_VERSION},
      {"compiler", __VERSION__},
      {"torch_target", "2.10"},
      {"cuda_archs", FASTDIFF_CUDA_ARCHS},
  };
}

std::vector<std::string> cpu_capabilities() {
  const char* names[3];
  return {names, names + fastdiff::cpu::supported(names)};
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.def("build_info", &build_info, "How this extension was built.");
  m.def("cpu_capability", [] { return std::string(fastdiff::cpu::kernels().name); }, "The instruction set in use.");
  m.def("cpu_capabilities", &cpu_capabilities, "The instruction sets that this CPU runs, worst first.");
  m.def(
      "set_cpu_capability", [](const std::string& name) { fastdiff::cpu::set_capability(name.c_str()); }, py::arg("name"),
      "Force an instruction set; '' for the best again.");
  m.def("philox", &philox, py::arg("counters"), py::arg("keys"),
      "Philox4x32-10: [N, 4] counters and [N, 2] keys to [N, 4] words.");
  m.def("words_to_normal", &words_to_normal, py::arg("words"), "[N, 4] words to [N, 4] normals.");
  m.def("words_to_uniform", &words_to_uniform, py::arg("words"), "[N, 4] words to [N, 4] uniforms in [0, 1).");
  m.def("words_to_rademacher", &words_to_rademacher, py::arg("words"), "[N, 4] words to [N, 4] signs.");
}
