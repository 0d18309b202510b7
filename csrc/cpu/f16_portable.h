// float16 conversions in plain arithmetic, from torch's header-only library.
template <class T>
static void load_f16(const void* in, T* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = (T)torch::headeronly::detail::fp16_ieee_to_fp32_value(((const uint16_t*)in)[i]);
}

template <class T>
static void store_f16(const T* in, void* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) ((uint16_t*)out)[i] = torch::headeronly::detail::fp16_ieee_from_fp32_value((float)in[i]);
}
