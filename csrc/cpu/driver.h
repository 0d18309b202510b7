// What the CPU drivers share: dtypes, the split of a tensor into ranges of a sample, and noise in memory order.
#pragma once

#include <algorithm>
#include <memory>

#include "../tensor.h"
#include "kernels.h"

namespace fastdiff::cpu {

constexpr int64_t kBlock = 1024;   // elements that a block kernel sees at once; all operands of one stay in L1
constexpr int64_t kRange = 4096;   // elements of a task; fixed, so that sums do not depend on the thread count
constexpr int64_t kGrain = 16384;  // elements below which a second thread does not pay

template <class T>
constexpr Dtype dtype_for = sizeof(T) == 8 ? Dtype::f64 : Dtype::f32;

// The overloads of the table, by computing type.
inline void load(const Kernels& k, Dtype from, const void* in, float* out, int64_t n) { k.load_f32(from, in, out, n); }
inline void load(const Kernels& k, Dtype from, const void* in, double* out, int64_t n) { k.load_f64(from, in, out, n); }
inline void store(const Kernels& k, Dtype to, const float* in, void* out, int64_t n) { k.store_f32(to, in, out, n); }
inline void store(const Kernels& k, Dtype to, const double* in, void* out, int64_t n) { k.store_f64(to, in, out, n); }

// A tensor's memory, read in blocks of the computing type: in place where the dtype is already that.
struct Input {
  const char* data = nullptr;
  Dtype dtype = Dtype::f32;
  int64_t size = 4;
  explicit operator bool() const { return data; }
  Input() = default;
  explicit Input(const float* values) : data((const char*)values) {}
  explicit Input(const View& t) : data((const char*)t.data()), dtype(t.dtype), size(t.element_size()) {}

  template <class T>
  const T* block(const Kernels& k, int64_t at, int64_t n, T* scratch) const {
    if (dtype == dtype_for<T>) return (const T*)data + at;
    load(k, dtype, data + at * size, scratch, n);
    return scratch;
  }
};

// Likewise written: block() says where to compute to, commit() converts where that was the scratch.
struct Sink {
  char* data = nullptr;
  Dtype dtype = Dtype::f32;
  int64_t size = 4;
  explicit operator bool() const { return data; }
  Sink() = default;
  explicit Sink(const View& t) : data((char*)t.data()), dtype(t.dtype), size(t.element_size()) {}

  template <class T>
  T* block(int64_t at, T* scratch) const {
    return dtype == dtype_for<T> ? (T*)data + at : scratch;
  }
  template <class T>
  void commit(const Kernels& k, int64_t at, int64_t n, const T* computed) const {
    if (dtype != dtype_for<T>) store(k, dtype, computed, data + at * size, n);
  }
};

// Elements of a task: kRange, or whole pixels where channels come last.
inline int64_t range_length(const Layout& layout) {
  return layout.channels > 1 ? std::max<int64_t>(kRange / layout.channels, 16) * layout.channels : kRange;
}

// f(sample, begin, end) over the ranges of every sample, in parallel.
template <class F>
void for_ranges(const Layout& layout, const F& f) {
  if (layout.batch == 0 || layout.n == 0) return;
  const int64_t range = range_length(layout), per_sample = (layout.n + range - 1) / range;
  const int64_t grain = std::max<int64_t>(1, kGrain * per_sample / layout.n);
  torch::stable::parallel_for(0, layout.batch * per_sample, grain, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t sample = task / per_sample, begin = task % per_sample * range;
      f(sample, begin, std::min(begin + range, layout.n));
    }
  });
}

// The noise of one sample's elements begin..end in memory order, made a range at a time.
class SampleNoise {
 public:
  // Returns the noise of elements begin..end of the sample; valid until the next call.
  const float* range(const Kernels& k, Noise kind, const Layout& layout, NoiseKey key, int64_t begin, int64_t end) {
    return in_memory_order(
        layout, begin, end, [&](float* out, int64_t first, int64_t blocks) { k.noise(kind, out, key, first, blocks); });
  }

  // Likewise of what make(out, first, blocks) makes, whole Philox blocks in logical order.
  template <class Make>
  const float* in_memory_order(const Layout& layout, int64_t begin, int64_t end, const Make& make) {
    if (layout.channels == 1) return logical(make, begin, end, reserve(plain_, end - begin + 8));
    const int64_t spatial = layout.spatial(), from = begin / layout.channels, count = (end - begin) / layout.channels;
    float* row = reserve(plain_, count + 8);
    float* out = reserve(interleaved_, end - begin);
    for (int64_t c = 0; c < layout.channels; ++c) {
      const float* z = logical(make, c * spatial + from, c * spatial + from + count, row);
      for (int64_t i = 0; i < count; ++i) out[i * layout.channels + c] = z[i];
    }
    return out;
  }

 private:
  // Elements begin..end in logical order, from the Philox block that begin lies in.
  template <class Make>
  static const float* logical(const Make& make, int64_t begin, int64_t end, float* out) {
    const int64_t first = begin / 4, blocks = (end + 3) / 4 - first;
    make(out, first, blocks);
    return out + begin % 4;
  }
  struct Buffer {
    std::unique_ptr<float[]> data;
    int64_t size = 0;
  };
  static float* reserve(Buffer& buffer, int64_t size) {
    if (buffer.size < size) {
      buffer.data.reset(new float[size]);
      buffer.size = size;
    }
    return buffer.data.get();
  }
  Buffer plain_, interleaved_;
};

}  // namespace fastdiff::cpu
