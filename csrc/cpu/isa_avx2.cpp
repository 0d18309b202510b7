// The block kernels for x86 with AVX2. System headers come before the pragma: their inline functions must stay baseline.
#include "kernels.h"

#ifdef FASTDIFF_X86_DISPATCH
#include <immintrin.h>

#include <cstring>
#include <type_traits>

#pragma GCC target("avx2,fma,f16c,bmi2,prefer-vector-width=256")
#define FASTDIFF_INLINE static inline __attribute__((always_inline))
#define FASTDIFF_METHOD inline __attribute__((always_inline))
#define FASTDIFF_LAMBDA __attribute__((always_inline))
#define FASTDIFF_UNROLL _Pragma("GCC unroll 10")
#define FASTDIFF_ISA "avx2"

namespace fastdiff::cpu::avx2 {
#include "lanes_avx2.h"
//
#include "lanes_common.h"
//
#include "../formulas.h"
//
#include "f16_f16c.h"
//
#include "blocks.h"
}  // namespace fastdiff::cpu::avx2
#endif
