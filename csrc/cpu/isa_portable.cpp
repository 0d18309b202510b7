// The block kernels for any CPU.
#include <torch/headeronly/util/Half.h>

#include <cstring>
#include <type_traits>

#include "kernels.h"

#define FASTDIFF_INLINE static inline __attribute__((always_inline))
#define FASTDIFF_METHOD inline __attribute__((always_inline))
#define FASTDIFF_LAMBDA __attribute__((always_inline))
#define FASTDIFF_UNROLL _Pragma("GCC unroll 10")
#define FASTDIFF_ISA "portable"

namespace fastdiff::cpu::portable {
#include "lanes_portable.h"
//
#include "lanes_common.h"
//
#include "../formulas.h"
//
#include "f16_portable.h"
//
#include "blocks.h"
}  // namespace fastdiff::cpu::portable
