// What every backend does with tensors before it touches memory: validation, and the reduction of strides to two layouts.
//
// The error texts are those of fastdiff/ops/_checks.py; tests compare the two.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>

#include "dtype.h"

namespace fastdiff {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

// A tensor's metadata, asked for once: every question through the stable ABI is a call.
struct View {
  Tensor tensor;
  Sizes sizes, strides;
  int64_t numel;
  Dtype dtype;
  bool cpu, contiguous;
  int32_t device;

  explicit View(Tensor t) : tensor(std::move(t)), sizes(tensor.sizes()), strides(tensor.strides()) {
    const AtenTensorHandle handle = tensor.get();
    int32_t code = 0, device_type = 0;
    const bool ok = aoti_torch_get_dtype(handle, &code) == AOTI_TORCH_SUCCESS &&
                    aoti_torch_get_device_type(handle, &device_type) == AOTI_TORCH_SUCCESS &&
                    aoti_torch_get_device_index(handle, &device) == AOTI_TORCH_SUCCESS &&
                    aoti_torch_is_contiguous(handle, &contiguous) == AOTI_TORCH_SUCCESS &&
                    aoti_torch_get_numel(handle, &numel) == AOTI_TORCH_SUCCESS;
    STD_TORCH_CHECK(ok, "no metadata");
    static const int32_t codes[] = {aoti_torch_dtype_float64(), aoti_torch_dtype_float32(), aoti_torch_dtype_bfloat16(),
        aoti_torch_dtype_float16(), aoti_torch_dtype_int64()};
    static const int32_t cpu_type = aoti_torch_device_type_cpu();
    int d = 0;
    while (d < 5 && codes[d] != code) ++d;
    dtype = (Dtype)d;
    cpu = device_type == cpu_type;
  }

  int64_t dim() const { return (int64_t)sizes.size(); }
  int64_t batch() const { return sizes[0]; }
  bool floating() const { return dtype <= Dtype::f16; }
  bool real() const { return dtype <= Dtype::f32; }
  int64_t element_size() const { return dtype == Dtype::f64 || dtype == Dtype::i64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }
  int64_t bytes() const { return numel * element_size(); }
  void* data() const {
    void* pointer = nullptr;
    STD_TORCH_CHECK(aoti_torch_get_data_ptr(tensor.get(), &pointer) == AOTI_TORCH_SUCCESS, "no data");
    return pointer;
  }
};

inline const char* dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double: return "float64";
    case ScalarType::Float: return "float32";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::ComplexFloat: return "complex64";
    case ScalarType::ComplexDouble: return "complex128";
    case ScalarType::Long: return "int64";
    case ScalarType::Int: return "int32";
    case ScalarType::Short: return "int16";
    case ScalarType::Char: return "int8";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Bool: return "bool";
    default: return "an unsupported dtype";
  }
}

inline std::string show_shape(const Sizes& sizes) {
  std::string text = "[";
  for (size_t i = 0; i < sizes.size(); ++i) text += (i ? ", " : "") + std::to_string(sizes[i]);
  return text + "]";
}

inline std::string show_device(const View& t) { return t.cpu ? "cpu" : "cuda:" + std::to_string(t.device); }

[[noreturn]] inline void reject(const char* name, const std::string& expected, const View& got) {
  throw std::invalid_argument(std::string(name) + ": expected " + expected + ", got " + show_shape(got.sizes) + " " +
                              dtype_name(got.tensor.scalar_type()) + " on " + show_device(got));
}

inline bool same_device(const View& a, const View& b) { return a.cpu == b.cpu && (a.cpu || a.device == b.device); }

inline bool same_shape(const View& a, const View& b) {
  return a.sizes.size() == b.sizes.size() && std::equal(a.sizes.begin(), a.sizes.end(), b.sizes.begin());
}

inline void check_state(const char* name, const View& x) {
  if (x.dim() < 1 || !x.floating()) reject(name, "[B, ...] float64, float32, bfloat16 or float16", x);
}

inline void check_like(const char* name, const View& t, const View& x) {
  if (!same_shape(t, x) || !t.floating() || !same_device(t, x))
    reject(name, show_shape(x.sizes) + " floating on " + show_device(x), t);
}

inline void check_key(const View& key, const View& x) {
  if (key.dim() != 1 || key.sizes[0] != x.batch() || key.dtype != Dtype::i64 || !same_device(key, x))
    reject("key", "[" + std::to_string(x.batch()) + "] int64 on " + show_device(x), key);
}

inline void check_per_sample(const char* name, const View& t, const View& x) {
  if (t.dim() != 1 || t.sizes[0] != x.batch() || !t.real() || !same_device(t, x))
    reject(name, "[" + std::to_string(x.batch()) + "] float64 or float32 on " + show_device(x), t);
}

inline void check_coef(const View& coef, const View& x, int64_t columns) {
  const auto dim = coef.dim();
  const bool shaped = dim >= 1 && dim <= 2 && coef.sizes[dim - 1] == columns && (dim == 1 || coef.sizes[0] == x.batch());
  if (!shaped || coef.dtype != Dtype::f64 || !same_device(coef, x)) {
    const auto c = std::to_string(columns);
    reject("coef", "[" + c + "] or [" + std::to_string(x.batch()) + ", " + c + "] float64 on " + show_device(x), coef);
  }
}

inline void check_counter(int64_t draw, int64_t stream) {
  if (draw < 0) throw std::invalid_argument("draw: expected an integer >= 0, got " + std::to_string(draw));
  if (stream < 0 || stream > 0xFFFFFFFFll)
    throw std::invalid_argument("stream: expected 0 <= stream < 2**32, got " + std::to_string(stream));
}

inline void check_net_dtype(std::optional<ScalarType> dtype) {
  if (!dtype) return;
  for (const auto known : {ScalarType::Double, ScalarType::Float, ScalarType::BFloat16, ScalarType::Half})
    if (*dtype == known) return;
  throw std::invalid_argument(
      std::string("net_dtype: expected float64, float32, bfloat16 or float16, got ") + dtype_name(*dtype));
}

// A small tensor's memory without gaps.
inline View dense(View t) { return t.contiguous ? t : View(torch::stable::contiguous(t.tensor)); }

// ---- Layout: rows [B, n] of plain memory, or of channels-last memory (then the sample is [spatial, channels]) ----------

struct Layout {
  int64_t batch = 0, n = 0;
  int64_t channels = 1;  // > 1 for channels-last
  int64_t spatial() const { return n / channels; }
};

// Whether t's memory is dense with the channels innermost, and not also plain.
inline bool is_channels_last(const View& t) {
  const size_t dim = t.sizes.size();
  if (dim != 4 && dim != 5) return false;
  int64_t expected = 1;
  const auto matches = [&](size_t d) {
    const bool ok = t.sizes[d] == 1 || t.strides[d] == expected;
    expected *= t.sizes[d];
    return ok;
  };
  if (!matches(1)) return false;
  for (size_t d = dim - 1; d >= 2; --d)
    if (!matches(d)) return false;
  return matches(0);
}

// The layout that a kernel uses for a state like x: its own, or plain rows (and then x is copied).
inline Layout layout_of(const View& x) {
  Layout layout{x.batch(), x.batch() ? x.numel / x.batch() : 0, 1};
  if (!x.contiguous && is_channels_last(x)) layout.channels = x.sizes[1];
  return layout;
}

inline bool has_layout(const View& t, const Layout& layout) {
  return layout.channels == 1 ? t.contiguous : !t.contiguous && is_channels_last(t);
}

// t itself where its memory has the layout, else a copy that has.
inline View with_layout(View t, const Layout& layout) {
  if (has_layout(t, layout)) return t;
  using torch::headeronly::MemoryFormat;
  const auto last = t.dim() == 4 ? MemoryFormat::ChannelsLast : MemoryFormat::ChannelsLast3d;
  return View(torch::stable::contiguous(t.tensor, layout.channels > 1 ? last : MemoryFormat::Contiguous));
}

// Memory of this size is mapped anew at every call, and faulting it in by small pages takes as long as a step does.
inline void use_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr intptr_t kPage = 4096, kWorthwhile = 16 << 20;
  const intptr_t begin = ((intptr_t)data + kPage - 1) & -kPage;
  if (bytes > kWorthwhile) madvise((void*)begin, (size_t)(bytes - kPage), MADV_HUGEPAGE);
#endif
}

// An uninitialized tensor with the strides of empty_like(x); dense states skip the dispatcher.
inline Tensor new_like(const View& x, std::optional<ScalarType> dtype = std::nullopt) {
  if (!x.contiguous && !is_channels_last(x)) {
    Tensor out = torch::stable::empty_like(x.tensor);
    return dtype && *dtype != x.tensor.scalar_type() ? torch::stable::to(out, dtype) : out;
  }
  int32_t code = 0;
  if (dtype)
    code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(*dtype));
  else
    aoti_torch_get_dtype(x.tensor.get(), &code);
  AtenTensorHandle handle = nullptr;
  const auto status = aoti_torch_empty_strided(x.dim(), x.sizes.data(), x.strides.data(), code,
      x.cpu ? aoti_torch_device_type_cpu() : aoti_torch_device_type_cuda(), x.cpu ? 0 : x.device, &handle);
  STD_TORCH_CHECK(status == AOTI_TORCH_SUCCESS, "cannot allocate");
  Tensor out(handle);
  if (x.cpu) use_huge_pages(out.data_ptr(), View(out).bytes());
  return out;
}

// [B] of the given dtype on x's device.
inline Tensor new_per_sample(const View& x, ScalarType dtype) {
  const int64_t size[1] = {x.batch()};
  return torch::stable::new_empty(x.tensor, {size, 1}, dtype);
}

// An output of a kernel that writes the given layout: `out` where its memory fits, else a scratch tensor copied back.
class Output {
 public:
  Output(const View& out, const Layout& layout)
      : out_(out), written_(has_layout(out, layout) ? out : with_layout(View(torch::stable::empty_like(out.tensor)), layout)) {}
  const View& view() const { return written_; }
  void finish() {
    if (written_.tensor.get() != out_.tensor.get()) torch::stable::copy_(out_.tensor, written_.tensor);
  }

 private:
  View out_, written_;
};

inline bool overlaps(const View& a, const View& b) {
  const char *p = (const char*)a.data(), *q = (const char*)b.data();
  return p < q + b.bytes() && q < p + a.bytes();
}

// The main output may be exactly an input (an in-place update); anything less would be read after it was written.
inline void check_in_place(const char* name, const View& out, const View& in) {
  if (overlaps(out, in) && !(out.data() == in.data() && out.bytes() == in.bytes()))
    throw std::invalid_argument(
        std::string(name) + ": expected memory apart from the inputs' or exactly an input's, got a partial overlap");
}

inline void check_apart(const char* name, const View& out, const View& other) {
  if (overlaps(out, other))
    throw std::invalid_argument(std::string(name) + ": expected memory apart from every other tensor's, got an overlap");
}

// The outputs of one kernel. The first may be an input's memory exactly; the others are apart from every other tensor.
class OutputSet {
 public:
  explicit OutputSet(const Layout& layout) : layout_(layout) {}

  // The tensor that the kernel writes; valid until finish().
  const View& add(const char* name, const View& out) {
    Entry& entry = entries_[count_].emplace(name, Output(out, layout_));
    for (int i = 0; i < count_; ++i) check_apart(name, entry.output.view(), entries_[i]->output.view());
    ++count_;
    return entry.output.view();
  }

  void check_against(const View& in) const {
    check_in_place(entries_[0]->name, entries_[0]->output.view(), in);
    for (int i = 1; i < count_; ++i) check_apart(entries_[i]->name, entries_[i]->output.view(), in);
  }

  void finish() {
    for (int i = 0; i < count_; ++i) entries_[i]->output.finish();
  }

 private:
  struct Entry {
    const char* name;
    Output output;
    Entry(const char* name, Output output) : name(name), output(std::move(output)) {}
  };
  Layout layout_;
  std::optional<Entry> entries_[3];
  int count_ = 0;
};

}  // namespace fastdiff
