// Lanes for any CPU: 128-bit vectors, fma and sqrt a lane at a time (instructions on aarch64, libm on plain x86-64).
constexpr int kWidth = 4;
typedef float f32 __attribute__((vector_size(16)));
typedef uint32_t u32 __attribute__((vector_size(16)));
typedef int32_t i32 __attribute__((vector_size(16)));
typedef uint64_t u64 __attribute__((vector_size(16)));

FASTDIFF_INLINE f32 fma(f32 a, f32 b, f32 c) {
  for (int j = 0; j < kWidth; ++j) c[j] = __builtin_fmaf(a[j], b[j], c[j]);
  return c;
}
FASTDIFF_INLINE f32 sqrt(f32 a) {
  for (int j = 0; j < kWidth; ++j) a[j] = __builtin_sqrtf(a[j]);
  return a;
}
FASTDIFF_INLINE u64 mul32(u64 a, u64 b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
FASTDIFF_INLINE u64 high32(u64 a) { return a >> 32; }

// Transpose 4x4 within each 128 bits: v_k[j] becomes v_j[k].
FASTDIFF_INLINE void transpose4(f32& a, f32& b, f32& c, f32& d) {
  const f32 t0{a[0], b[0], c[0], d[0]}, t1{a[1], b[1], c[1], d[1]}, t2{a[2], b[2], c[2], d[2]}, t3{a[3], b[3], c[3], d[3]};
  a = t0, b = t1, c = t2, d = t3;
}
