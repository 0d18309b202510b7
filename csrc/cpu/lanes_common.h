// What the CPU lane types share: GCC/Clang vector extensions give arithmetic, bit operations and comparisons.
// Included inside an instruction set's namespace, after f32, u32, i32, u64 and kWidth.

template <class V, class S>
FASTDIFF_INLINE V broadcast(S value) {
  using Element = std::remove_reference_t<decltype(std::declval<V&>()[0])>;
  return V{} + static_cast<Element>(value);
}
FASTDIFF_INLINE f32 to_float(i32 v) { return __builtin_convertvector(v, f32); }
FASTDIFF_INLINE i32 as_i32(u32 v) { return (i32)v; }
FASTDIFF_INLINE u32 as_u32(f32 v) { return (u32)v; }
FASTDIFF_INLINE u32 as_u32(i32 v) { return (u32)v; }
FASTDIFF_INLINE f32 as_f32(u32 v) { return (f32)v; }
template <class Mask>
FASTDIFF_INLINE f32 select(Mask mask, f32 a, f32 b) {
  return mask ? a : b;
}
FASTDIFF_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FASTDIFF_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
