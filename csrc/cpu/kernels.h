// The block kernels that exist once per instruction set, and the table that a driver calls them through.
#pragma once

#include <cstdint>

#include "../coef.h"
#include "../dtype.h"
#include "../noise_key.h"

namespace fastdiff::cpu {

// Pointers to n consecutive elements of each operand of a step; F_u, D may be null.
template <class T>
struct StepBlock {
  const T *x, *F, *F_u;
  const T* term[kMaxTerms];
  T term_coef[kMaxTerms];
  int terms;
  T *y, *D;
};

struct Kernels {
  const char* name;
  // out[0 .. 4*blocks) = noise of Philox blocks first .. first + blocks of a sample.
  void (*noise)(Noise kind, float* out, NoiseKey key, int64_t first, int64_t blocks);
  // out[0 .. 4*blocks) = sum_m weights[m]*normals of draws[m], the sum staying in registers; key.draw is not read.
  void (*normal_sum)(
      float* out, NoiseKey key, int64_t count, const int64_t* draws, const float* weights, int64_t first, int64_t blocks);
  // The sum of the squared normals of Philox blocks first .. first + blocks, in an order that depends on `blocks` alone.
  double (*noise_square_sum)(NoiseKey key, int64_t first, int64_t blocks);
  // out = mean_coef*x0 + std*z over whole Philox blocks, the noise staying in registers.
  void (*perturb_fused)(float mean_coef, const float* x0, float std, NoiseKey key, int64_t first, int64_t blocks, float* out);
  void (*perturb_f32)(int64_t n, const float* x0, const float* z, float mean_coef, float std, float* out);
  void (*perturb_f64)(int64_t n, const double* x0, const float* z, double mean_coef, double std, double* out);
  void (*step_f32)(int64_t n, const float* coef, const StepBlock<float>& block);
  void (*step_f64)(int64_t n, const double* coef, const StepBlock<double>& block);
  void (*scale_f32)(int64_t n, float factor, const float* in, float* out);
  void (*scale_f64)(int64_t n, double factor, const double* in, double* out);
  // y = (1 - mask)*y + mask*(k_x*known + k_n*z); z may be null
  void (*blend_f32)(int64_t n, const float* mask, float k_x, const float* known, float k_n, const float* z, float* y);
  void (*blend_f64)(int64_t n, const double* mask, double k_x, const double* known, double k_n, const double* z, double* y);
  // out = base + sum_m w[m]*terms[m] for count terms; base may be null for 0
  void (*combine_f32)(int64_t n, const float* base, int count, const float* w, const float* const* terms, float* out);
  void (*combine_f64)(int64_t n, const double* base, int count, const double* w, const double* const* terms, double* out);
  // Sums, in an order that depends on n alone: of a*z, and of (e/(atol + rtol*max(|x0|, |y|)))^2.
  double (*dot_f32)(int64_t n, const float* a, const float* z);
  double (*dot_f64)(int64_t n, const double* a, const double* z);
  double (*error_f32)(int64_t n, const float* e, const float* x0, const float* y, float rtol, float atol);
  double (*error_f64)(int64_t n, const double* e, const double* x0, const double* y, double rtol, double atol);
  // sum of (e_x*x + e_D*D)^2, in an order that depends on n alone
  double (*eps_f32)(int64_t n, float e_x, float e_D, const float* x, const float* D);
  double (*eps_f64)(int64_t n, double e_x, double e_D, const double* x, const double* D);
  // sum of (b*F + p*x0 + q*z)^2 for coef = {b, p, q}, in an order that depends on n alone
  double (*residual_f32)(int64_t n, const float* coef, const float* F, const float* x0, const float* z);
  double (*residual_f64)(int64_t n, const double* coef, const double* F, const double* x0, const float* z);
  // sums[0] += sum (x - pivot), sums[1] += sum (x - pivot)^2, in float64 and in an order that depends on n alone
  void (*moments_f32)(int64_t n, const float* x, float pivot, double* sums);
  void (*moments_f64)(int64_t n, const double* x, double pivot, double* sums);
  // out = u = (x - mean)*a + b, or silu(u)
  void (*normalize_f32)(int64_t n, const float* x, float mean, float a, float b, bool silu, float* out);
  void (*normalize_f64)(int64_t n, const double* x, double mean, double a, double b, bool silu, double* out);
  // du = g, or g*silu'(u); sums[0] += sum du, sums[1] += sum du*(x - mean), likewise
  void (*normalize_backward_f32)(
      int64_t n, const float* x, const float* g, float mean, float a, float b, bool silu, float* du, double* sums);
  void (*normalize_backward_f64)(
      int64_t n, const double* x, const double* g, double mean, double a, double b, bool silu, double* du, double* sums);
  // du = k[0]*du + k[1]*(x - mean) + k[2]
  void (*norm_gradient_f32)(int64_t n, const float* x, float mean, const float* k, float* du);
  void (*norm_gradient_f64)(int64_t n, const double* x, double mean, const double* k, double* du);
  void (*load_f32)(Dtype from, const void* in, float* out, int64_t n);
  void (*load_f64)(Dtype from, const void* in, double* out, int64_t n);
  void (*store_f32)(Dtype to, const float* in, void* out, int64_t n);
  void (*store_f64)(Dtype to, const double* in, void* out, int64_t n);
};

// The kernels in use: the best that this CPU runs, unless overridden.
const Kernels& kernels();

// Names that this CPU runs, worst first; override by name (throws std::invalid_argument), "" for the best again.
int supported(const char* names[3]);
void set_capability(const char* name);

namespace portable {
extern const Kernels table;
}
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FASTDIFF_X86_DISPATCH 1
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

}  // namespace fastdiff::cpu
