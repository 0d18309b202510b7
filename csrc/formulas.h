// The formulas of every op, once, as inline functions over lanes.
//
// No include guard, on purpose: each CPU instruction set includes this file inside its own namespace after its lane
// types (cpu/lanes_*.h), and CUDA includes it once with scalar lanes. A lane header provides
//   f32, u32, i32   lanes of float, uint32_t, int32_t        u64  lanes of uint64_t, half as many
//   fma, sqrt       correctly rounded
//   mul32(u64, u64) product of the low halves                high32(u64)  the high halves in the low ones, garbage above
//   to_float(i32), as_i32(u32|f32), as_u32(..), as_f32(..), select(mask, a, b), broadcast<lanes>(scalar)
//
// Every product that meets a sum is written as an fma, so no compiler has anything left to contract, and the bits are the
// same whatever the instruction set. FASTDIFF_INLINE, FASTDIFF_METHOD and
// FASTDIFF_UNROLL are set by the includer.

// ---- Noise format 1 (docs/noise.md) ----------------------------------------------------------------------------------

// The key words of each round, from a 64-bit key.
struct RoundKeys {
  uint32_t low, high;
  FASTDIFF_METHOD uint32_t first(int round) const { return low + round * 0x9E3779B9u; }
  FASTDIFF_METHOD uint32_t second(int round) const { return high + round * 0xBB67AE85u; }
};

// Philox4x32-10 (Salmon et al. 2011), from round `first` on. Words live in the low halves of 64-bit lanes; the high halves hold
// garbage, which neither the 32-bit multiply nor the final packing reads.
template <class U64, class Keys>
FASTDIFF_INLINE void philox4x32_10(U64& c0, U64& c1, U64& c2, U64& c3, const Keys& keys, int first = 0) {
  const U64 m0 = broadcast<U64>(0xD2511F53u), m1 = broadcast<U64>(0xCD9E8D57u);
  FASTDIFF_UNROLL
  for (int round = first; round < 10; ++round) {
    const U64 p0 = mul32(c0, m0), p1 = mul32(c2, m1);
    c0 = high32(p1) ^ c1 ^ keys.first(round);
    c2 = high32(p0) ^ c3 ^ keys.second(round);
    c1 = p1;
    c3 = p0;
  }
}

// A word to (0, 1]: the argument of the logarithm.
template <class U32>
FASTDIFF_INLINE auto unit_open_below(U32 w) {
  const auto k = to_float(as_i32(w >> 1));
  using F = decltype(k + k);
  return fma(k, broadcast<F>(0x1p-31f), broadcast<F>(0x1p-32f));
}

// A word to [0, 1), 24 bits, exact.
template <class U32>
FASTDIFF_INLINE auto unit_open_above(U32 w) {
  const auto k = to_float(as_i32(w >> 8));
  using F = decltype(k + k);
  return k * broadcast<F>(0x1p-24f);
}

// A word to -1 or +1: its top bit is the sign.
template <class U32>
FASTDIFF_INLINE auto word_sign(U32 w) {
  return as_f32((w & broadcast<U32>(0x80000000u)) | broadcast<U32>(0x3F800000u));
}

// ln(u) for u in (0, 1]: u = 2^e * (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), ln(1 + f) = f + f^2 P(f).
template <class F32>
FASTDIFF_INLINE F32 log_unit(F32 u) {
  const auto biased = as_u32(u) - broadcast<decltype(as_u32(u))>(0x3F3504F3u);  // 0x3F3504F3: bits of sqrt(1/2)
  const auto exponent = as_i32(biased) >> 23;
  const F32 e = to_float(exponent);
  const F32 f = as_f32(as_u32(u) - (as_u32(exponent) << 23)) - broadcast<F32>(1.0f);
  F32 p = broadcast<F32>(-0x1.383b80p-4f);
  p = fma(p, f, broadcast<F32>(0x1.085db6p-3f));
  p = fma(p, f, broadcast<F32>(-0x1.0f4050p-3f));
  p = fma(p, f, broadcast<F32>(0x1.226e6ep-3f));
  p = fma(p, f, broadcast<F32>(-0x1.5425c0p-3f));
  p = fma(p, f, broadcast<F32>(0x1.99a416p-3f));
  p = fma(p, f, broadcast<F32>(-0x1.000432p-2f));
  p = fma(p, f, broadcast<F32>(0x1.555550p-2f));
  p = fma(p, f, broadcast<F32>(-0x1.fffff8p-2f));
  const F32 f_squared = f * f;
  return fma(e, broadcast<F32>(0x1.62e430p-1f), fma(f_squared, p, f));
}

// Two words to two normals by Box-Muller: radius from w0, angle 2 pi w1 / 2^32 from w1.
template <class U32, class F32>
FASTDIFF_INLINE void box_muller(U32 w0, U32 w1, F32& z0, F32& z1) {
  const F32 radius = sqrt(log_unit(unit_open_below(w0)) * broadcast<F32>(-2.0f));

  // The nearest multiple of a quarter turn, and the rest as a in [-1/4, 1/4) half turns.
  const U32 shifted = w1 + broadcast<U32>(0x20000000u);
  const U32 rest = (shifted & broadcast<U32>(0x3FFFFFFFu)) - broadcast<U32>(0x20000000u);
  const F32 a = to_float(as_i32(rest)) * broadcast<F32>(0x1p-31f);
  const F32 t = a * a;
  F32 s = broadcast<F32>(-0x1.32f65cp-1f);
  s = fma(s, t, broadcast<F32>(0x1.467fdcp+1f));
  s = fma(s, t, broadcast<F32>(-0x1.4abc22p+2f));
  s = fma(s, t, broadcast<F32>(0x1.921fb6p+1f));
  s = s * a;
  F32 c = broadcast<F32>(0x1.d4f7eap-3f);
  c = fma(c, t, broadcast<F32>(-0x1.55b2b6p+0f));
  c = fma(c, t, broadcast<F32>(0x1.03c1b0p+2f));
  c = fma(c, t, broadcast<F32>(-0x1.3bd3ccp+2f));
  c = fma(c, t, broadcast<F32>(1.0f));

  const auto odd = (shifted & broadcast<U32>(0x40000000u)) != broadcast<U32>(0u);
  const U32 sign = broadcast<U32>(0x80000000u);
  const F32 cosine = as_f32(as_u32(select(odd, s, c)) ^ ((shifted + broadcast<U32>(0x40000000u)) & sign));
  const F32 sine = as_f32(as_u32(select(odd, c, s)) ^ (shifted & sign));
  z0 = radius * cosine;
  z1 = radius * sine;
}

// z0^2 + z1^2 of the two normals that box_muller makes of w0 and any w1: the angle does not matter.
template <class U32>
FASTDIFF_INLINE auto radius_squared(U32 w0) {
  const auto log = log_unit(unit_open_below(w0));
  return log * broadcast<decltype(log + log)>(-2.0f);
}

// ---- perturb: x_t = m*x0 + s*z --------------------------------------------------------------------------------------

template <class T>
FASTDIFF_INLINE T perturb_formula(T mean_coef, T x0, T std, T z) {
  return fma(std, z, mean_coef * x0);
}

// ---- sampler_step: D = clip(a*x + b*F + b_u*F_u), y = c_x*x + c_D*D + further terms -----------------------------------

template <class T>
FASTDIFF_INLINE T denoised_formula(T a, T x, T b, T F) {
  return fma(b, F, a * x);
}

template <class T>
FASTDIFF_INLINE T clip_formula(T d, T lo, T hi) {
  d = d < lo ? lo : d;
  return d > hi ? hi : d;
}

template <class T>
FASTDIFF_INLINE T advanced_formula(T c_x, T x, T c_D, T d) {
  return fma(c_D, d, c_x * x);
}

// A further term of D or of y.
template <class T>
FASTDIFF_INLINE T with_term(T sum, T c, T term) {
  return fma(c, term, sum);
}

// y outside the mask, the target inside it.
template <class T>
FASTDIFF_INLINE T blended_formula(T y, T mask, T target) {
  return fma(mask, target - y, y);
}

template <class T>
FASTDIFF_INLINE T eps_formula(T e_x, T x, T e_D, T d) {
  return fma(e_D, d, e_x * x);
}

// ---- ode_error: what a Runge-Kutta step may err by -------------------------------------------------------------------

template <class T>
FASTDIFF_INLINE T tolerance_formula(T rtol, T atol, T x0, T y) {
  x0 = x0 < T(0) ? -x0 : x0;
  y = y < T(0) ? -y : y;
  return fma(rtol, x0 > y ? x0 : y, atol);  // in this order a NaN in y stays
}

// ---- denoising_loss: what it squares, b*F + p*x0 + q*z ---------------------------------------------------------------

template <class T>
FASTDIFF_INLINE T residual_formula(T b, T F, T p, T x0, T q, T z) {
  return fma(q, z, fma(p, x0, b * F));
}

// ---- group_norm_silu: u = (x - mean)*a + b, y = u*sigmoid(u) ----------------------------------------------------------

// exp(x) within 1.1 ulp: 2^n * exp(r) with |r| <= ln(2)/2. From -87.3 to 88.3; beyond, what it is there.
template <class F32>
FASTDIFF_INLINE F32 exp_formula(F32 x) {
  const F32 low = broadcast<F32>(-87.3f), high = broadcast<F32>(88.3f);
  x = select(x < low, low, x);
  x = select(x > high, high, x);  // in this form a NaN stays
  // Adding 1.5*2^23 leaves the nearest integer to x/ln 2 in the low bits.
  const F32 magic = broadcast<F32>(0x1.8p+23f);
  const F32 shifted = fma(x, broadcast<F32>(0x1.715476p+0f), magic);
  const F32 n = shifted - magic;
  const F32 r = fma(n, broadcast<F32>(0x1.bd0106p-13f), fma(n, broadcast<F32>(-0x1.63p-1f), x));
  F32 p = broadcast<F32>(0x1.6a5228p-10f);
  p = fma(p, r, broadcast<F32>(0x1.12396cp-7f));
  p = fma(p, r, broadcast<F32>(0x1.5558aap-5f));
  p = fma(p, r, broadcast<F32>(0x1.555492p-3f));
  p = fma(p, r, broadcast<F32>(0x1.fffffcp-2f));
  const F32 r_squared = r * r;
  const F32 e = fma(r_squared, p, r) + broadcast<F32>(1.0f);
  return as_f32(as_u32(e) + (as_u32(shifted) << 23));
}

template <class F32>
FASTDIFF_INLINE F32 sigmoid(F32 u) {
  return broadcast<F32>(1.0f) / (exp_formula(-u) + broadcast<F32>(1.0f));
}

// x - mean before the product: a large mean then costs no digits.
template <class T>
FASTDIFF_INLINE T normalized_formula(T x, T mean, T a, T b) {
  return fma(x - mean, a, b);
}

// d(u*s)/du with s = sigmoid(u): s + u*s*(1 - s).
template <class T>
FASTDIFF_INLINE T silu_slope_formula(T u, T s) {
  return fma(u * s, 1.0f - s, s);
}

// dx = k1*du + k2*(x - mean) + k3
template <class T>
FASTDIFF_INLINE T norm_gradient_formula(T k1, T du, T k2, T x, T mean, T k3) {
  return fma(k1, du, fma(k2, x - mean, k3));
}
