// The block kernels, compiled once per instruction set: included inside its namespace after its lanes and formulas.h.
// Operands may alias only where they coincide (in-place updates), hence the ivdep.

constexpr int64_t kGroup = 4 * kWidth;  // elements of a group: kWidth counters of four words
// Groups made side by side: one alone is a chain of latencies (ten rounds, a logarithm, a square root) that leaves half of
// the CPU idle; two fill it. Measured +50 % with AVX-512 and +15 % with AVX2; three gain nothing more.
constexpr int kGroups = 2;

// The round keys as vectors in memory, where the rounds read them as operands.
struct VectorKeys {
  u64 words[20];
  explicit VectorKeys(uint64_t key) {
    const RoundKeys scalar{(uint32_t)key, (uint32_t)(key >> 32)};
    for (int round = 0; round < 10; ++round) {
      words[2 * round] = broadcast<u64>(scalar.first(round));
      words[2 * round + 1] = broadcast<u64>(scalar.second(round));
    }
    asm volatile("" : "+m"(words));  // else the compiler makes all twenty again from scalars in every pass
  }
  FASTDIFF_METHOD u64 first(int round) const { return words[2 * round]; }
  FASTDIFF_METHOD u64 second(int round) const { return words[2 * round + 1]; }
};

// The words of one group, from those of its even and odd counters. (Eight arguments: GCC leaves arrays of vectors in memory.)
FASTDIFF_INLINE void pack_words(u64 e0, u64 e1, u64 e2, u64 e3, u64 o0, u64 o1, u64 o2, u64 o3, u32 w[4]) {
  const u64 low = broadcast<u64>(0xFFFFFFFFu);
  w[0] = (u32)((e0 & low) | (o0 << 32));
  w[1] = (u32)((e1 & low) | (o1 << 32));
  w[2] = (u32)((e2 & low) | (o2 << 32));
  w[3] = (u32)((e3 & low) | (o3 << 32));
}

// The words of one group from its counters, whose lanes are permuted so that transpose4 leaves the natural order.
FASTDIFF_INLINE void group_words(u64 even, u64 odd, const NoiseKey& key, const VectorKeys& keys, u32 w[4]) {
  u64 e1 = broadcast<u64>((uint32_t)key.draw), e2 = broadcast<u64>((uint32_t)(key.draw >> 32)), e3 = broadcast<u64>(key.stream);
  u64 o1 = e1, o2 = e2, o3 = e3;
  philox4x32_10(even, e1, e2, e3, keys);
  philox4x32_10(odd, o1, o2, o3, keys);
  pack_words(even, e1, e2, e3, odd, o1, o2, o3, w);
}

// The values of one group from its words.
template <Noise kind>
FASTDIFF_INLINE void group_values(const u32 w[4], f32 z[4]) {
  if constexpr (kind == Noise::normal) {
    box_muller(w[0], w[1], z[0], z[1]);
    box_muller(w[2], w[3], z[2], z[3]);
  } else {
    for (int j = 0; j < 4; ++j) z[j] = kind == Noise::uniform ? unit_open_above(w[j]) : word_sign(w[j]);
  }
  transpose4(z[0], z[1], z[2], z[3]);
}

// Counters of a group's even and odd 64-bit lanes: 32-bit lane p holds counter (kWidth/4)*(p%4) + p/4.
FASTDIFF_INLINE void group_counters(u64& even, u64& odd) {
  for (int q = 0; q < kWidth / 2; ++q) {
    even[q] = kWidth / 4 * (2 * q % 4) + 2 * q / 4;
    odd[q] = kWidth / 4 * ((2 * q + 1) % 4) + (2 * q + 1) / 4;
  }
}

// each(element, z) for every group of kGroup elements, z its four vectors; rest(element, z) for a shorter last one.
template <Noise kind, class Each, class Rest>
FASTDIFF_INLINE void for_groups(const NoiseKey& key, int64_t first, int64_t blocks, const Each& each, const Rest& rest) {
  const VectorKeys keys(key.key);
  u64 even{}, odd{};
  group_counters(even, odd);
  even += broadcast<u64>(first);
  odd += broadcast<u64>(first);
  const u64 step = broadcast<u64>(kWidth);
  u32 w[kGroups][4];
  f32 z[kGroups][4];
  int64_t element = 0;
  for (; blocks >= kGroups * kWidth; blocks -= kGroups * kWidth) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g, even += step, odd += step) group_words(even, odd, key, keys, w[g]);
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) group_values<kind>(w[g], z[g]);
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g, element += kGroup) each(element, z[g]);
  }
  for (; blocks > 0; blocks -= kWidth, element += kGroup, even += step, odd += step) {
    group_words(even, odd, key, keys, w[0]);
    group_values<kind>(w[0], z[0]);
    blocks >= kWidth ? each(element, z[0]) : rest(element, z[0]);
  }
}

template <Noise kind>
static void noise_blocks(float* out, const NoiseKey& key, int64_t first, int64_t blocks) {
  for_groups<kind>(
      key, first, blocks, [&](int64_t at, const f32* z) { std::memcpy(out + at, z, kGroup * sizeof(float)); },
      [&](int64_t at, const f32* z) { std::memcpy(out + at, z, (4 * blocks - at) * sizeof(float)); });
}

static void perturb_fused(
    float mean_coef, const float* x0, float std, NoiseKey key, int64_t first, int64_t blocks, float* out) {
  const f32 m = broadcast<f32>(mean_coef), s = broadcast<f32>(std);
  for_groups<Noise::normal>(
      key, first, blocks,
      [&](int64_t at, const f32* z) {
        for (int j = 0; j < 4; ++j) {
          f32 x;
          std::memcpy(&x, x0 + at + j * kWidth, sizeof x);
          x = perturb_formula(m, x, s, z[j]);
          std::memcpy(out + at + j * kWidth, &x, sizeof x);
        }
      },
      [&](int64_t at, const f32* z) {
        float rest[kGroup];
        std::memcpy(rest, z, sizeof rest);
        for (int64_t i = at; i < 4 * blocks; ++i) out[i] = perturb_formula<float>(mean_coef, x0[i], std, rest[i - at]);
      });
}

// Many draws of the same elements share most of Philox's first two rounds: what depends on the elements alone is made once for
// all draws, what depends on the draw alone is made with scalars.
struct DrawRounds {
  u64 c0, c2, c3;
  FASTDIFF_METHOD DrawRounds(uint64_t draw, uint64_t key) {
    const uint64_t p1 = (draw >> 32) * 0xCD9E8D57u,
                   p0 = (uint64_t)((uint32_t)(p1 >> 32) ^ (uint32_t)draw ^ (uint32_t)key) * 0xD2511F53u;
    c0 = broadcast<u64>((uint32_t)p1);
    c2 = broadcast<u64>((uint32_t)(p0 >> 32));
    c3 = broadcast<u64>((uint32_t)p0);
  }
};
struct ElementRounds {
  u64 c0, c1, c2;
  FASTDIFF_METHOD ElementRounds(u64 counter, uint32_t stream, const VectorKeys& keys) {
    const u64 p0 = mul32(counter, broadcast<u64>(0xD2511F53u));
    c1 = mul32(high32(p0) ^ broadcast<u64>(stream) ^ keys.second(0), broadcast<u64>(0xCD9E8D57u));
    c0 = high32(c1) ^ keys.first(1);
    c2 = p0 ^ keys.second(1);
  }
};

// The words of one group for one draw.
FASTDIFF_INLINE void draw_words(
    const ElementRounds& even, const ElementRounds& odd, const DrawRounds& draw, const VectorKeys& keys, u32 w[4]) {
  u64 e0 = even.c0 ^ draw.c0, e1 = even.c1, e2 = even.c2 ^ draw.c2, e3 = draw.c3;
  u64 o0 = odd.c0 ^ draw.c0, o1 = odd.c1, o2 = odd.c2 ^ draw.c2, o3 = draw.c3;
  philox4x32_10(e0, e1, e2, e3, keys, 2);
  philox4x32_10(o0, o1, o2, o3, keys, 2);
  pack_words(e0, e1, e2, e3, o0, o1, o2, o3, w);
}

// kCount groups of sum_m weights[m]*z(draws[m]), the sum in registers; its elements are put in order once, at the end.
template <int kCount>
FASTDIFF_INLINE void sum_groups(const NoiseKey& key, const VectorKeys& keys, int64_t count, const int64_t* draws,
    const float* weights, u64 even, u64 odd, f32 total[kCount][4]) {
  const u64 step = broadcast<u64>(kWidth);
  const ElementRounds elements[4] = {
      {even, key.stream, keys}, {odd, key.stream, keys}, {even + step, key.stream, keys}, {odd + step, key.stream, keys}};
  for (int g = 0; g < kCount; ++g)
    for (int j = 0; j < 4; ++j) total[g][j] = broadcast<f32>(0.0f);
  u32 w[kCount][4];
  for (int64_t m = 0; m < count; ++m) {
    const DrawRounds draw((uint64_t)draws[m], key.key);
    const f32 weight = broadcast<f32>(weights[m]);
#pragma GCC unroll 2
    for (int g = 0; g < kCount; ++g) draw_words(elements[2 * g], elements[2 * g + 1], draw, keys, w[g]);
#pragma GCC unroll 2
    for (int g = 0; g < kCount; ++g)
#pragma GCC unroll 2
      for (int j = 0; j < 4; j += 2) {
        f32 z0, z1;
        box_muller(w[g][j], w[g][j + 1], z0, z1);
        total[g][j] = with_term(total[g][j], weight, z0);
        total[g][j + 1] = with_term(total[g][j + 1], weight, z1);
      }
  }
  for (int g = 0; g < kCount; ++g) transpose4(total[g][0], total[g][1], total[g][2], total[g][3]);
}

static void normal_sum(
    float* out, NoiseKey key, int64_t count, const int64_t* draws, const float* weights, int64_t first, int64_t blocks) {
  const VectorKeys keys(key.key);
  u64 even{}, odd{};
  group_counters(even, odd);
  even += broadcast<u64>(first);
  odd += broadcast<u64>(first);
  const u64 step = broadcast<u64>(kWidth);
  f32 total[kGroups][4];
  for (; blocks >= kGroups * kWidth; blocks -= kGroups * kWidth, out += kGroups * kGroup) {
    sum_groups<kGroups>(key, keys, count, draws, weights, even, odd, total);
    std::memcpy(out, total, sizeof total);
    even += kGroups * step;
    odd += kGroups * step;
  }
  for (; blocks > 0; blocks -= kWidth, out += kGroup, even += step, odd += step) {
    sum_groups<1>(key, keys, count, draws, weights, even, odd, total);
    std::memcpy(out, total, (blocks >= kWidth ? kGroup : 4 * blocks) * sizeof(float));
  }
}

// Philox and two logarithms for four normals: their squares need neither square roots nor angles. Block i is added to lane
// i % kLanes whatever the width of a vector.
static double noise_square_sum(NoiseKey key, int64_t first, int64_t blocks) {
  constexpr int kLanes = 2 * 16;  // two groups of the widest vectors, made side by side
  const VectorKeys keys(key.key);
  u64 even{}, odd{};
  for (int q = 0; q < kWidth / 2; ++q) even[q] = first + 2 * q, odd[q] = first + 2 * q + 1;
  const u64 step = broadcast<u64>(kWidth);
  double sum[kLanes] = {};
  for (; blocks > 0; blocks -= kLanes)
    for (int at = 0; at < kLanes && at < blocks; at += kGroups * kWidth) {
      u32 w[kGroups][4];
      f32 squares[kGroups];
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g, even += step, odd += step) group_words(even, odd, key, keys, w[g]);
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) squares[g] = radius_squared(w[g][0]) + radius_squared(w[g][2]);
      float values[kGroups * kWidth];
      std::memcpy(values, squares, sizeof values);
      if (blocks >= at + kGroups * kWidth) {
        for (int j = 0; j < kGroups * kWidth; ++j) sum[at + j] += values[j];
      } else {
        for (int j = 0; at + j < blocks && j < kGroups * kWidth; ++j) sum[at + j] += values[j];
      }
    }
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) sum[j] += sum[j + half];
  return sum[0];
}

static void noise(Noise kind, float* out, NoiseKey key, int64_t first, int64_t blocks) {
  if (kind == Noise::normal) return noise_blocks<Noise::normal>(out, key, first, blocks);
  if (kind == Noise::uniform) return noise_blocks<Noise::uniform>(out, key, first, blocks);
  return noise_blocks<Noise::rademacher>(out, key, first, blocks);
}

template <class T>
static void perturb(int64_t n, const T* x0, const float* z, T mean_coef, T std, T* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) out[i] = perturb_formula<T>(mean_coef, x0[i], std, (T)z[i]);
}

template <class T, bool kUncond, bool kKeepD, int kTerms>
static void step_loop(int64_t n, const T* coef, const StepBlock<T>& block) {
  const T a = coef[kA], b = coef[kB], b_u = coef[kBu], lo = coef[kLo], hi = coef[kHi], c_x = coef[kCx], c_D = coef[kCd];
  const T *x = block.x, *F = block.F, *F_u = block.F_u;
  const T *t0 = block.term[0], *t1 = block.term[1], *t2 = block.term[2], *t3 = block.term[3], *t4 = block.term[4];
  const T c0 = block.term_coef[0], c1 = block.term_coef[1], c2 = block.term_coef[2], c3 = block.term_coef[3],
          c4 = block.term_coef[4];
  T *y = block.y, *D = block.D;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    T d = denoised_formula(a, x[i], b, F[i]);
    if constexpr (kUncond) d = with_term(d, b_u, F_u[i]);
    d = clip_formula(d, lo, hi);
    if constexpr (kKeepD) D[i] = d;
    T v = advanced_formula(c_x, x[i], c_D, d);
    if constexpr (kTerms > 0) v = with_term(v, c0, t0[i]);
    if constexpr (kTerms > 1) v = with_term(v, c1, t1[i]);
    if constexpr (kTerms > 2) v = with_term(v, c2, t2[i]);
    if constexpr (kTerms > 3) v = with_term(v, c3, t3[i]);
    if constexpr (kTerms > 4) v = with_term(v, c4, t4[i]);
    y[i] = v;
  }
}

template <class T, bool kUncond, bool kKeepD>
static void step_terms(int64_t n, const T* coef, const StepBlock<T>& block) {
  switch (block.terms) {
    case 0: return step_loop<T, kUncond, kKeepD, 0>(n, coef, block);
    case 1: return step_loop<T, kUncond, kKeepD, 1>(n, coef, block);
    case 2: return step_loop<T, kUncond, kKeepD, 2>(n, coef, block);
    case 3: return step_loop<T, kUncond, kKeepD, 3>(n, coef, block);
    case 4: return step_loop<T, kUncond, kKeepD, 4>(n, coef, block);
    default: return step_loop<T, kUncond, kKeepD, 5>(n, coef, block);
  }
}

template <class T>
static void step(int64_t n, const T* coef, const StepBlock<T>& block) {
  if (block.F_u) return block.D ? step_terms<T, true, true>(n, coef, block) : step_terms<T, true, false>(n, coef, block);
  return block.D ? step_terms<T, false, true>(n, coef, block) : step_terms<T, false, false>(n, coef, block);
}

template <class T>
static void scale(int64_t n, T factor, const T* in, T* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) out[i] = factor * in[i];
}

template <class T>
static void blend(int64_t n, const T* mask, T k_x, const T* known, T k_n, const T* z, T* y) {
  if (z) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = blended_formula(y[i], mask[i], with_term(k_x * known[i], k_n, z[i]));
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = blended_formula(y[i], mask[i], k_x * known[i]);
  }
}

template <class T, int kTerms>
static void combine_loop(int64_t n, const T* base, const T* w, const T* const* terms, T* out) {
  T weight[kTerms ? kTerms : 1];
  const T* term[kTerms ? kTerms : 1];
  for (int m = 0; m < kTerms; ++m) weight[m] = w[m], term[m] = terms[m];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    T v = base ? base[i] : T(0);
#pragma GCC unroll 8
    for (int m = 0; m < kTerms; ++m) v = with_term(v, weight[m], term[m][i]);
    out[i] = v;
  }
}

template <class T>
static void combine(int64_t n, const T* base, int count, const T* w, const T* const* terms, T* out) {
  switch (count) {
    case 0: return combine_loop<T, 0>(n, base, w, terms, out);
    case 1: return combine_loop<T, 1>(n, base, w, terms, out);
    case 2: return combine_loop<T, 2>(n, base, w, terms, out);
    case 3: return combine_loop<T, 3>(n, base, w, terms, out);
    case 4: return combine_loop<T, 4>(n, base, w, terms, out);
    case 5: return combine_loop<T, 5>(n, base, w, terms, out);
    case 6: return combine_loop<T, 6>(n, base, w, terms, out);
    case 7: return combine_loop<T, 7>(n, base, w, terms, out);
    default: return combine_loop<T, 8>(n, base, w, terms, out);
  }
}

// The sum of f(i) over 0 .. n - 1, in the same lanes whatever the instruction set, so that it is the same. (32 lanes: four
// vectors of eight, since one sum alone waits for its own additions.)
template <class F>
FASTDIFF_INLINE double lane_sum(int64_t n, const F& f) {
  constexpr int kLanes = 32;
  double sum[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes; ++j) sum[j] += f(i + j);
  for (int j = 0; i + j < n; ++j) sum[j] += f(i + j);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) sum[j] += sum[j + half];
  return sum[0];
}

template <class T>
static double eps(int64_t n, T e_x, T e_D, const T* x, const T* D) {
  return lane_sum(n, [&](int64_t i) FASTDIFF_LAMBDA {
    const double e = eps_formula(e_x, x[i], e_D, D[i]);
    return e * e;
  });
}

template <class T>
static double dot(int64_t n, const T* a, const T* z) {
  return lane_sum(n, [&](int64_t i) FASTDIFF_LAMBDA { return (double)(a[i] * z[i]); });
}

template <class T>
static double error(int64_t n, const T* e, const T* x0, const T* y, T rtol, T atol) {
  return lane_sum(n, [&](int64_t i) FASTDIFF_LAMBDA {
    const double ratio = e[i] / tolerance_formula(rtol, atol, x0[i], y[i]);
    return ratio * ratio;
  });
}

template <class T>
static double residual(int64_t n, const T* coef, const T* F, const T* x0, const float* z) {
  const T b = coef[0], p = coef[1], q = coef[2];
  return lane_sum(n, [&](int64_t i) FASTDIFF_LAMBDA {
    const double r = residual_formula(b, F[i], p, x0[i], q, (T)z[i]);
    return r * r;
  });
}

// Two sums at once, as lane_sum: sums[k] += the sum of f(i, k) over 0 .. n - 1.
template <class F>
FASTDIFF_INLINE void pair_sum(int64_t n, double* sums, const F& f) {
  constexpr int kLanes = 16;
  double first[kLanes] = {}, second[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes; ++j) f(i + j, first[j], second[j]);
  for (int j = 0; i + j < n; ++j) f(i + j, first[j], second[j]);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) first[j] += first[j + half], second[j] += second[j + half];
  sums[0] += first[0];
  sums[1] += second[0];
}

// A vector of `count` elements, all kWidth of them or fewer and the rest `fill`; and back.
FASTDIFF_INLINE f32 load_lanes(const float* in, int64_t count, float fill) {
  f32 v;
  if (count >= kWidth) {
    std::memcpy(&v, in, sizeof v);
  } else {
    for (int j = 0; j < kWidth; ++j) v[j] = j < count ? in[j] : fill;
  }
  return v;
}
FASTDIFF_INLINE void store_lanes(f32 v, float* out, int64_t count) {
  if (count >= kWidth) {
    std::memcpy(out, &v, sizeof v);
  } else {
    for (int j = 0; j < count; ++j) out[j] = v[j];
  }
}

// Two sums at once in sixteen float lanes, whatever the width of a vector, which go to double after sixteen terms each: the
// error is that of a few roundings, the cost a quarter of pair_sum's. f(i, count, a, b) adds elements i .. i + count.
template <class F>
FASTDIFF_INLINE void pair_sum_in_float(int64_t n, double* sums, const F& f) {
  constexpr int kLanes = 16, kVectors = kLanes / kWidth, kTerms = 16;
  for (int64_t i = 0; i < n;) {
    f32 a[kVectors] = {}, b[kVectors] = {};
    const int64_t end = i + kLanes * kTerms < n ? i + kLanes * kTerms : n;
    for (; i + kLanes <= end; i += kLanes)
      for (int v = 0; v < kVectors; ++v) f(i + v * kWidth, (int64_t)kWidth, a[v], b[v]);
    for (int v = 0; v < kVectors; ++v)
      if (i + v * kWidth < end) f(i + v * kWidth, end - i - v * kWidth, a[v], b[v]);
    i = end;
    float x[kLanes], y[kLanes];
    std::memcpy(x, a, sizeof x);
    std::memcpy(y, b, sizeof y);
    for (int half = kLanes / 2; half > 0; half /= 2)
      for (int j = 0; j < half; ++j) x[j] += x[j + half], y[j] += y[j + half];
    sums[0] += x[0];
    sums[1] += y[0];
  }
}

static void moments(int64_t n, const float* x, float pivot, double* sums) {
  const f32 center = broadcast<f32>(pivot);
  pair_sum_in_float(n, sums, [&](int64_t i, int64_t count, f32& sum, f32& squares) FASTDIFF_LAMBDA {
    const f32 d = load_lanes(x + i, count, pivot) - center;
    sum += d;
    squares = fma(d, d, squares);
  });
}
static void moments(int64_t n, const double* x, double pivot, double* sums) {
  pair_sum(n, sums, [&](int64_t i, double& sum, double& squares) FASTDIFF_LAMBDA {
    const double d = x[i] - pivot;
    sum += d;
    squares = fma(d, d, squares);
  });
}

// out[i] = f(x[i]), in vectors.
template <class F>
FASTDIFF_INLINE void map_lanes(int64_t n, const float* x, float* out, const F& f) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store_lanes(f(load_lanes(x + i, kWidth, 0.0f)), out + i, kWidth);
  if (i < n) store_lanes(f(load_lanes(x + i, n - i, 0.0f)), out + i, n - i);
}
template <class F>
FASTDIFF_INLINE void map_lanes(int64_t n, const double* x, double* out, const F& f) {
  for (int64_t i = 0; i < n; ++i) out[i] = f(x[i]);
}
FASTDIFF_INLINE double sigmoid(double u) { return 1.0 / (1.0 + __builtin_exp(-u)); }

template <class T>
using Lanes = std::conditional_t<sizeof(T) == 4, f32, double>;
template <class T>
FASTDIFF_INLINE Lanes<T> spread(T value) {
  return Lanes<T>{} + value;
}

template <class T>
static void normalize(int64_t n, const T* x, T mean, T a, T b, bool silu, T* out) {
  using V = Lanes<T>;
  const V m = spread(mean), slope = spread(a), offset = spread(b);
  if (!silu) return map_lanes(n, x, out, [&](V v) FASTDIFF_LAMBDA { return normalized_formula(v, m, slope, offset); });
  map_lanes(n, x, out, [&](V v) FASTDIFF_LAMBDA {
    const V u = normalized_formula(v, m, slope, offset);
    return u * sigmoid(u);
  });
}

template <bool kSilu>
static void slopes(int64_t n, const float* x, const float* g, float mean, float a, float b, float* du, double* sums) {
  const f32 m = broadcast<f32>(mean), slope = broadcast<f32>(a), offset = broadcast<f32>(b);
  pair_sum_in_float(n, sums, [&](int64_t i, int64_t count, f32& sum, f32& dot) FASTDIFF_LAMBDA {
    const f32 v = load_lanes(x + i, count, mean);
    f32 d = load_lanes(g + i, count, 0.0f);
    if constexpr (kSilu) {
      const f32 u = normalized_formula(v, m, slope, offset);
      d *= silu_slope_formula(u, sigmoid(u));
    }
    store_lanes(d, du + i, count);
    sum += d;
    dot = fma(d, v - m, dot);
  });
}
template <bool kSilu>
static void slopes(int64_t n, const double* x, const double* g, double mean, double a, double b, double* du, double* sums) {
  pair_sum(n, sums, [&](int64_t i, double& sum, double& dot) FASTDIFF_LAMBDA {
    double d = g[i];
    if constexpr (kSilu) {
      const double u = normalized_formula(x[i], mean, a, b);
      d *= silu_slope_formula(u, sigmoid(u));
    }
    du[i] = d;
    sum += d;
    dot = fma(d, x[i] - mean, dot);
  });
}
template <class T>
static void normalize_backward(int64_t n, const T* x, const T* g, T mean, T a, T b, bool silu, T* du, double* sums) {
  silu ? slopes<true>(n, x, g, mean, a, b, du, sums) : slopes<false>(n, x, g, mean, a, b, du, sums);
}

template <class T>
static void norm_gradient(int64_t n, const T* x, T mean, const T* k, T* du) {
  const T k1 = k[0], k2 = k[1], k3 = k[2];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) du[i] = norm_gradient_formula(k1, du[i], k2, x[i], mean, k3);
}

// bfloat16 by hand, since no instruction set in use has it: round to nearest even, NaN stays NaN.
FASTDIFF_INLINE float from_bf16(uint16_t h) { return __builtin_bit_cast(float, (uint32_t)h << 16); }
FASTDIFF_INLINE uint16_t to_bf16(float v) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, v);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return (uint16_t)(v != v ? 0x7FC0u : rounded);
}

template <class T>
static void load(Dtype from, const void* in, T* out, int64_t n) {
  switch (from) {
    case Dtype::f64:
      for (int64_t i = 0; i < n; ++i) out[i] = (T)((const double*)in)[i];
      return;
    case Dtype::f32:
      for (int64_t i = 0; i < n; ++i) out[i] = (T)((const float*)in)[i];
      return;
    case Dtype::bf16:
      for (int64_t i = 0; i < n; ++i) out[i] = (T)from_bf16(((const uint16_t*)in)[i]);
      return;
    default: return load_f16(in, out, n);
  }
}

template <class T>
static void store(Dtype to, const T* in, void* out, int64_t n) {
  switch (to) {
    case Dtype::f64:
      for (int64_t i = 0; i < n; ++i) ((double*)out)[i] = (double)in[i];
      return;
    case Dtype::f32:
      for (int64_t i = 0; i < n; ++i) ((float*)out)[i] = (float)in[i];
      return;
    case Dtype::bf16:
      for (int64_t i = 0; i < n; ++i) ((uint16_t*)out)[i] = to_bf16((float)in[i]);
      return;
    default: return store_f16(in, out, n);
  }
}

const Kernels table = {
    FASTDIFF_ISA,
    noise,
    normal_sum,
    noise_square_sum,
    perturb_fused,
    perturb<float>,
    perturb<double>,
    step<float>,
    step<double>,
    scale<float>,
    scale<double>,
    blend<float>,
    blend<double>,
    combine<float>,
    combine<double>,
    dot<float>,
    dot<double>,
    error<float>,
    error<double>,
    eps<float>,
    eps<double>,
    residual<float>,
    residual<double>,
    moments,
    moments,
    normalize<float>,
    normalize<double>,
    normalize_backward<float>,
    normalize_backward<double>,
    norm_gradient<float>,
    norm_gradient<double>,
    load<float>,
    load<double>,
    store<float>,
    store<double>,
};
