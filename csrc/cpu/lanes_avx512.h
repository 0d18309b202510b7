// Lanes of x86-64-v4: 512-bit vectors.
constexpr int kWidth = 16;
typedef float f32 __attribute__((vector_size(64)));
typedef uint32_t u32 __attribute__((vector_size(64)));
typedef int32_t i32 __attribute__((vector_size(64)));
typedef uint64_t u64 __attribute__((vector_size(64)));

FASTDIFF_INLINE f32 fma(f32 a, f32 b, f32 c) { return (f32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
FASTDIFF_INLINE f32 sqrt(f32 a) { return (f32)_mm512_sqrt_ps((__m512)a); }
FASTDIFF_INLINE u64 mul32(u64 a, u64 b) { return (u64)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
// By a shuffle: the shifter shares its port with the multiplier.
FASTDIFF_INLINE u64 high32(u64 a) { return (u64)_mm512_shuffle_epi32((__m512i)a, (_MM_PERM_ENUM)0xF5); }

// Transpose 4x4 within each 128 bits: v_k[j] becomes v_j[k].
FASTDIFF_INLINE void transpose4(f32& a, f32& b, f32& c, f32& d) {
  const __m512 ab_lo = _mm512_unpacklo_ps((__m512)a, (__m512)b), ab_hi = _mm512_unpackhi_ps((__m512)a, (__m512)b);
  const __m512 cd_lo = _mm512_unpacklo_ps((__m512)c, (__m512)d), cd_hi = _mm512_unpackhi_ps((__m512)c, (__m512)d);
  a = (f32)_mm512_shuffle_ps(ab_lo, cd_lo, 0x44);
  b = (f32)_mm512_shuffle_ps(ab_lo, cd_lo, 0xEE);
  c = (f32)_mm512_shuffle_ps(ab_hi, cd_hi, 0x44);
  d = (f32)_mm512_shuffle_ps(ab_hi, cd_hi, 0xEE);
}
