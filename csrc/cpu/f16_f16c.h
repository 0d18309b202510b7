// float16 conversions with the F16C instructions, eight at a time; float64 goes through float32 as torch does.
template <class T>
static void load_f16(const void* in, T* out, int64_t n) {
  const uint16_t* h = (const uint16_t*)in;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    float eight[8];
    _mm256_storeu_ps(eight, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(h + i))));
    for (int j = 0; j < 8; ++j) out[i + j] = (T)eight[j];
  }
  for (; i < n; ++i) out[i] = (T)_cvtsh_ss(h[i]);
}

template <class T>
static void store_f16(const T* in, void* out, int64_t n) {
  uint16_t* h = (uint16_t*)out;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    float eight[8];
    for (int j = 0; j < 8; ++j) eight[j] = (float)in[i + j];
    _mm_storeu_si128((__m128i*)(h + i), _mm256_cvtps_ph(_mm256_loadu_ps(eight), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < n; ++i) h[i] = _cvtss_sh((float)in[i], _MM_FROUND_TO_NEAREST_INT);
}
