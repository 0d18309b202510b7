// What every backend does with tensors before it touches memory: validation, and the reduction of strides to two layouts.
//
// The error texts are those of fastdiff/ops/_checks.py; tests compare the two.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <stdexcept>
#include <string>

namespace fastdiff {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline const char* dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double: return "float64";
    case ScalarType::Float: return "float32";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Long: return "int64";
    case ScalarType::Int: return "int32";
    case ScalarType::Short: return "int16";
    case ScalarType::Char: return "int8";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Bool: return "bool";
    default: return "an unsupported dtype";
  }
}

inline bool is_floating(ScalarType dtype) {
  return dtype == ScalarType::Double || dtype == ScalarType::Float || dtype == ScalarType::BFloat16 || dtype == ScalarType::Half;
}

template <class Sizes>
std::string show_shape(const Sizes& sizes) {
  std::string text = "[";
  for (size_t i = 0; i < sizes.size(); ++i) text += (i ? ", " : "") + std::to_string(sizes[i]);
  return text + "]";
}

inline std::string show_device(const Tensor& t) {
  return t.is_cpu() ? "cpu" : (t.is_cuda() ? "cuda:" : "device:") + std::to_string(t.get_device_index());
}

[[noreturn]] inline void reject(const char* name, const std::string& expected, const Tensor& got) {
  throw std::invalid_argument(
      std::string(name) + ": expected " + expected + ", got " + show_shape(got.sizes()) + " " + dtype_name(got.scalar_type()) +
      " on " + show_device(got));
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cpu() ? b.is_cpu() : !b.is_cpu() && a.get_device_index() == b.get_device_index();
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  const auto s = a.sizes(), t = b.sizes();
  if (s.size() != t.size()) return false;
  for (size_t i = 0; i < s.size(); ++i)
    if (s[i] != t[i]) return false;
  return true;
}

inline void check_state(const char* name, const Tensor& x) {
  if (x.dim() < 1 || !is_floating(x.scalar_type())) reject(name, "[B, ...] float64, float32, bfloat16 or float16", x);
}

inline void check_like(const char* name, const Tensor& t, const Tensor& x) {
  if (!same_shape(t, x) || !is_floating(t.scalar_type()) || !same_device(t, x))
    reject(name, show_shape(x.sizes()) + " floating on " + show_device(x), t);
}

inline void check_key(const Tensor& key, const Tensor& x) {
  if (key.dim() != 1 || key.size(0) != x.size(0) || key.scalar_type() != ScalarType::Long || !same_device(key, x))
    reject("key", "[" + std::to_string(x.size(0)) + "] int64 on " + show_device(x), key);
}

inline void check_per_sample(const char* name, const Tensor& t, const Tensor& x) {
  const auto dtype = t.scalar_type();
  if (t.dim() != 1 || t.size(0) != x.size(0) || (dtype != ScalarType::Double && dtype != ScalarType::Float) || !same_device(t, x))
    reject(name, "[" + std::to_string(x.size(0)) + "] float64 or float32 on " + show_device(x), t);
}

inline void check_coef(const Tensor& coef, const Tensor& x, int64_t columns) {
  const auto dim = coef.dim();
  const bool shaped = dim >= 1 && dim <= 2 && coef.size(dim - 1) == columns && (dim == 1 || coef.size(0) == x.size(0));
  if (!shaped || coef.scalar_type() != ScalarType::Double || !same_device(coef, x)) {
    const auto c = std::to_string(columns);
    reject("coef", "[" + c + "] or [" + std::to_string(x.size(0)) + ", " + c + "] float64 on " + show_device(x), coef);
  }
}

inline void check_counter(int64_t draw, int64_t stream) {
  if (draw < 0) throw std::invalid_argument("draw: expected an integer >= 0, got " + std::to_string(draw));
  if (stream < 0 || stream > 0xFFFFFFFFll)
    throw std::invalid_argument("stream: expected 0 <= stream < 2**32, got " + std::to_string(stream));
}

// ---- Layout: rows [B, n] of plain memory, or of channels-last memory (then the sample is [spatial, channels]) ----------

struct Layout {
  int64_t batch = 0, n = 0;
  int64_t channels = 1;  // > 1 for channels-last
  int64_t spatial() const { return n / channels; }
  bool operator==(const Layout& other) const { return channels == other.channels; }
};

// Whether t's memory is dense with the channels innermost, and not also plain.
inline bool is_channels_last(const Tensor& t) {
  const auto sizes = t.sizes(), strides = t.strides();
  if (sizes.size() != 4 && sizes.size() != 5) return false;
  int64_t expected = 1;
  const auto matches = [&](size_t d) {
    const bool ok = sizes[d] == 1 || strides[d] == expected;
    expected *= sizes[d];
    return ok;
  };
  if (!matches(1)) return false;
  for (size_t d = sizes.size() - 1; d >= 2; --d)
    if (!matches(d)) return false;
  return matches(0);
}

// The layout of t's memory, or none where it is neither.
inline std::optional<Layout> layout_of(const Tensor& t) {
  Layout layout{t.size(0), t.size(0) ? t.numel() / t.size(0) : 0, 1};
  if (t.is_contiguous()) return layout;
  if (!is_channels_last(t)) return std::nullopt;
  layout.channels = t.size(1);
  return layout;
}

// t itself where its memory has the layout of `like`, else a copy that has.
inline Tensor with_layout(const Tensor& t, const Layout& layout) {
  const auto own = layout_of(t);
  if (own && *own == layout) return t;
  using torch::headeronly::MemoryFormat;
  const auto last = t.dim() == 4 ? MemoryFormat::ChannelsLast : MemoryFormat::ChannelsLast3d;
  return torch::stable::contiguous(t, layout.channels > 1 ? last : MemoryFormat::Contiguous);
}

// An uninitialized tensor with the strides of empty_like(x); the common layouts skip the dispatcher.
inline Tensor new_like(const Tensor& x, std::optional<ScalarType> dtype = std::nullopt) {
  if (!layout_of(x)) {
    Tensor out = torch::stable::empty_like(x);
    return dtype && *dtype != x.scalar_type() ? torch::stable::to(out, dtype) : out;
  }
  AtenTensorHandle handle;
  STD_TORCH_CHECK(
      aoti_torch_empty_strided(
          x.dim(), x.sizes().data(), x.strides().data(),
          torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype.value_or(x.scalar_type()))),
          x.is_cpu() ? aoti_torch_device_type_cpu() : aoti_torch_device_type_cuda(), x.is_cpu() ? 0 : x.get_device_index(),
          &handle) == AOTI_TORCH_SUCCESS);
  return Tensor(handle);
}

// [B] of the given dtype on x's device.
inline Tensor new_per_sample(const Tensor& x, ScalarType dtype) {
  const int64_t size[1] = {x.size(0)};
  return torch::stable::new_empty(x, {size, 1}, dtype);
}

// An output of a kernel that writes the given layout: `out` where its memory fits, else a scratch tensor copied back.
class Output {
 public:
  Output(Tensor out, const Layout& layout) : out_(out), written_(with_layout_for_writing(out, layout)) {}
  const Tensor& tensor() const { return written_; }
  void finish() {
    if (written_.get() != out_.get()) torch::stable::copy_(out_, written_);
  }

 private:
  static Tensor with_layout_for_writing(const Tensor& out, const Layout& layout) {
    const auto own = layout_of(out);
    return own && *own == layout ? out : with_layout(torch::stable::empty_like(out), layout);
  }
  Tensor out_, written_;
};

// Exactly the same memory is fine (an in-place update); anything less than that would be read after it was written.
inline void check_overlap(const char* name, const Tensor& out, const Tensor& in, int64_t out_bytes, int64_t in_bytes) {
  const char *o = (const char*)out.data_ptr(), *i = (const char*)in.data_ptr();
  if (o < i + in_bytes && i < o + out_bytes && !(o == i && out_bytes == in_bytes))
    throw std::invalid_argument(std::string(name) + ": expected memory apart from the inputs' or exactly an input's, got a partial overlap");
}

inline int64_t element_size(ScalarType dtype) {
  return dtype == ScalarType::Double || dtype == ScalarType::Long ? 8 : dtype == ScalarType::Float ? 4 : 2;
}

}  // namespace fastdiff
