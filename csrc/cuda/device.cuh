// What the CUDA kernels share: scalar lanes for formulas.h, elements of any dtype, noise in registers, and the launch.
//
// One thread makes the four elements of one Philox block; one thread block belongs to one sample.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "../noise_key.h"
#include "../tensor.h"

namespace fastdiff::cuda {

#define FASTDIFF_INLINE __device__ __forceinline__
#define FASTDIFF_METHOD __device__ __forceinline__
#define FASTDIFF_UNROLL _Pragma("unroll")

using f32 = float;
template <class V, class S>
FASTDIFF_INLINE V broadcast(S value) {
  return (V)value;
}
FASTDIFF_INLINE float to_float(int32_t v) { return __int2float_rn(v); }
FASTDIFF_INLINE int32_t as_i32(uint32_t v) { return (int32_t)v; }
FASTDIFF_INLINE uint32_t as_u32(float v) { return __float_as_uint(v); }
FASTDIFF_INLINE uint32_t as_u32(int32_t v) { return (uint32_t)v; }
FASTDIFF_INLINE float as_f32(uint32_t v) { return __uint_as_float(v); }
FASTDIFF_INLINE float select(bool mask, float a, float b) { return mask ? a : b; }
FASTDIFF_INLINE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FASTDIFF_INLINE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
FASTDIFF_INLINE float sqrt(float a) { return __fsqrt_rn(a); }
FASTDIFF_INLINE uint64_t mul32(uint64_t a, uint64_t b) { return (uint64_t)(uint32_t)a * (uint32_t)b; }
FASTDIFF_INLINE uint64_t high32(uint64_t a) { return a >> 32; }

#include "../formulas.h"

constexpr int kThreads = 256;

// The four values of one Philox block.
template <Noise kind>
FASTDIFF_INLINE void noise_block(const NoiseKey& key, uint32_t block, float z[4]) {
  uint64_t c0 = block, c1 = (uint32_t)key.draw, c2 = key.draw >> 32, c3 = key.stream;
  philox4x32_10(c0, c1, c2, c3, RoundKeys{(uint32_t)key.key, (uint32_t)(key.key >> 32)});
  const uint32_t w[4] = {(uint32_t)c0, (uint32_t)c1, (uint32_t)c2, (uint32_t)c3};
  if constexpr (kind == Noise::normal) {
    box_muller(w[0], w[1], z[0], z[1]);
    box_muller(w[2], w[3], z[2], z[3]);
  } else {
    for (int j = 0; j < 4; ++j) z[j] = kind == Noise::uniform ? unit_open_above(w[j]) : word_sign(w[j]);
  }
}

// A tensor's memory, whatever its dtype; `wide` where four neighbouring elements can move at once.
struct Memory {
  char* data = nullptr;
  Dtype dtype = Dtype::f32;
  bool wide = false;
  Memory() = default;
  explicit Memory(const View& t) : data((char*)t.data()), dtype(t.dtype) {
    wide = (uintptr_t)data % (4 * t.element_size() <= 16 ? 4 * t.element_size() : 16) == 0;
  }
  FASTDIFF_METHOD explicit operator bool() const { return data; }
};

template <class T>
FASTDIFF_INLINE T load(const Memory& m, int64_t i) {
  switch (m.dtype) {
    case Dtype::f64: return (T)((const double*)m.data)[i];
    case Dtype::f32: return (T)((const float*)m.data)[i];
    case Dtype::bf16: return (T)__bfloat162float(((const __nv_bfloat16*)m.data)[i]);
    default: return (T)__half2float(((const __half*)m.data)[i]);
  }
}

template <class T>
FASTDIFF_INLINE void store(const Memory& m, int64_t i, T value) {
  switch (m.dtype) {
    case Dtype::f64: ((double*)m.data)[i] = (double)value; return;
    case Dtype::f32: ((float*)m.data)[i] = (float)value; return;
    case Dtype::bf16: ((__nv_bfloat16*)m.data)[i] = __float2bfloat16_rn((float)value); return;
    default: ((__half*)m.data)[i] = __float2half_rn((float)value); return;
  }
}

// Four neighbouring elements from i on, i a multiple of 4.
template <class T>
FASTDIFF_INLINE void load4(const double* data, int64_t i, T v[4]) {
  const double2 a = ((const double2*)data)[i / 2], b = ((const double2*)data)[i / 2 + 1];
  v[0] = (T)a.x, v[1] = (T)a.y, v[2] = (T)b.x, v[3] = (T)b.y;
}

template <class T>
FASTDIFF_INLINE void load4(const float* data, int64_t i, T v[4]) {
  const float4 a = ((const float4*)data)[i / 4];
  v[0] = (T)a.x, v[1] = (T)a.y, v[2] = (T)a.z, v[3] = (T)a.w;
}

template <class T>
FASTDIFF_INLINE void load4(const __nv_bfloat16* data, int64_t i, T v[4]) {
  const uint2 a = ((const uint2*)data)[i / 4];
  v[0] = (T)__uint_as_float(a.x << 16), v[1] = (T)__uint_as_float(a.x & 0xFFFF0000u);
  v[2] = (T)__uint_as_float(a.y << 16), v[3] = (T)__uint_as_float(a.y & 0xFFFF0000u);
}

template <class T>
FASTDIFF_INLINE void load4(const __half* data, int64_t i, T v[4]) {
  const uint2 a = ((const uint2*)data)[i / 4];
  v[0] = (T)__half2float(__ushort_as_half((unsigned short)a.x)),
  v[1] = (T)__half2float(__ushort_as_half((unsigned short)(a.x >> 16)));
  v[2] = (T)__half2float(__ushort_as_half((unsigned short)a.y)),
  v[3] = (T)__half2float(__ushort_as_half((unsigned short)(a.y >> 16)));
}

template <class T>
FASTDIFF_INLINE void load4(const Memory& m, int64_t i, T v[4]) {
  switch (m.dtype) {
    case Dtype::f64: return load4((const double*)m.data, i, v);
    case Dtype::f32: return load4((const float*)m.data, i, v);
    case Dtype::bf16: return load4((const __nv_bfloat16*)m.data, i, v);
    default: return load4((const __half*)m.data, i, v);
  }
}

template <class T>
FASTDIFF_INLINE void store4(const Memory& m, int64_t i, const T v[4]) {
  switch (m.dtype) {
    case Dtype::f64:
      ((double2*)m.data)[i / 2] = make_double2((double)v[0], (double)v[1]);
      ((double2*)m.data)[i / 2 + 1] = make_double2((double)v[2], (double)v[3]);
      return;
    case Dtype::f32: ((float4*)m.data)[i / 4] = make_float4((float)v[0], (float)v[1], (float)v[2], (float)v[3]); return;
    case Dtype::bf16: {
      const __nv_bfloat162 a = __floats2bfloat162_rn((float)v[0], (float)v[1]),
                           b = __floats2bfloat162_rn((float)v[2], (float)v[3]);
      ((uint2*)m.data)[i / 4] = make_uint2(*(const uint32_t*)&a, *(const uint32_t*)&b);
      return;
    }
    default: {
      const __half2 a = __floats2half2_rn((float)v[0], (float)v[1]), b = __floats2half2_rn((float)v[2], (float)v[3]);
      ((uint2*)m.data)[i / 4] = make_uint2(*(const uint32_t*)&a, *(const uint32_t*)&b);
      return;
    }
  }
}

// The shape of a launch. Threads own Philox blocks of logical elements; memory order may differ (channels last).
struct Shape {
  int64_t n;         // elements of a sample
  int64_t channels;  // > 1 where they are innermost in memory and the logical order matters
  uint32_t blocks;   // thread blocks of a sample, one even where it is empty, so that its sum is written; below 2^31 in all
  bool wide;         // four neighbouring elements of every operand can move at once

  Shape(const Layout& layout, bool wide)
      : n(layout.n),
        channels(layout.channels),
        blocks((uint32_t)std::max<int64_t>((layout.n + 4 * kThreads - 1) / (4 * kThreads), 1)),
        wide(wide && layout.n % 4 == 0 && layout.channels == 1) {}
};

// Where a thread works.
struct Place {
  int64_t sample, first;  // first of its four logical elements within the sample
  FASTDIFF_METHOD explicit Place(const Shape& shape)
      : sample(blockIdx.x / shape.blocks), first(((int64_t)(blockIdx.x % shape.blocks) * kThreads + threadIdx.x) * 4) {}
  // Offset in memory of the j-th of the four.
  FASTDIFF_METHOD int64_t offset(const Shape& shape, int j) const {
    const int64_t e = first + j;
    if (shape.channels == 1) return sample * shape.n + e;
    const int64_t spatial = shape.n / shape.channels;
    return sample * shape.n + (e % spatial) * shape.channels + e / spatial;
  }
};

template <class T>
FASTDIFF_INLINE void load_four(const Memory& m, const Shape& shape, const Place& place, T v[4]) {
  if (shape.wide) return load4(m, place.sample * shape.n + place.first, v);
  for (int j = 0; j < 4; ++j) v[j] = place.first + j < shape.n ? load<T>(m, place.offset(shape, j)) : T(0);
}

template <class T>
FASTDIFF_INLINE void store_four(const Memory& m, const Shape& shape, const Place& place, const T v[4]) {
  if (shape.wide) return store4(m, place.sample * shape.n + place.first, v);
  for (int j = 0; j < 4; ++j)
    if (place.first + j < shape.n) store(m, place.offset(shape, j), v[j]);
}

// The tensors that a launch reads, in one layout; copies of those that lie otherwise live until it is queued.
class Inputs {
 public:
  explicit Inputs(const Layout& layout) : layout_(layout) {}
  Memory add(const View& t, const OutputSet* outputs = nullptr) {
    const View& laid = has_layout(t, layout_) ? t : copies_[used_++].emplace(with_layout(t, layout_));
    if (outputs) outputs->check_against(laid);
    const Memory memory(laid);
    wide_ = wide_ && memory.wide;
    return memory;
  }
  bool wide() const { return wide_; }

 private:
  Layout layout_;
  std::optional<View> copies_[10];
  int used_ = 0;
  bool wide_ = true;
};

// The stream and the device of a launch.
class Launch {
 public:
  explicit Launch(const View& x) : guard_(x.device) {
    void* stream = nullptr;
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(x.device, &stream) == AOTI_TORCH_SUCCESS, "no CUDA stream");
    stream_ = (cudaStream_t)stream;
  }
  template <class Kernel, class... Arguments>
  void operator()(Kernel kernel, int64_t thread_blocks, const Arguments&... arguments) const {
    if (thread_blocks == 0) return;
    if (thread_blocks > 0x7FFFFFFF)
      throw std::invalid_argument("x: expected at most 2**31 - 1 thread blocks of elements, got more");
    kernel<<<(unsigned)thread_blocks, kThreads, 0, stream_>>>(arguments...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  void zero(void* data, int64_t bytes) const { STD_CUDA_CHECK(cudaMemsetAsync(data, 0, (size_t)bytes, stream_)); }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

}  // namespace fastdiff::cuda
