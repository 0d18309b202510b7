// The block kernels of the table by computing type, for drivers that are templates over it.
#pragma once

#include "kernels.h"

namespace fastdiff::cpu {

template <class T>
struct Typed;

template <>
struct Typed<float> {
  static constexpr auto step = &Kernels::step_f32;
  static constexpr auto scale = &Kernels::scale_f32;
  static constexpr auto blend = &Kernels::blend_f32;
  static constexpr auto combine = &Kernels::combine_f32;
  static constexpr auto dot = &Kernels::dot_f32;
  static constexpr auto error = &Kernels::error_f32;
  static constexpr auto eps = &Kernels::eps_f32;
  static constexpr auto residual = &Kernels::residual_f32;
  static constexpr auto moments = &Kernels::moments_f32;
  static constexpr auto normalize = &Kernels::normalize_f32;
  static constexpr auto normalize_backward = &Kernels::normalize_backward_f32;
  static constexpr auto norm_gradient = &Kernels::norm_gradient_f32;
  static constexpr auto perturb = &Kernels::perturb_f32;
};

template <>
struct Typed<double> {
  static constexpr auto step = &Kernels::step_f64;
  static constexpr auto scale = &Kernels::scale_f64;
  static constexpr auto blend = &Kernels::blend_f64;
  static constexpr auto combine = &Kernels::combine_f64;
  static constexpr auto dot = &Kernels::dot_f64;
  static constexpr auto error = &Kernels::error_f64;
  static constexpr auto eps = &Kernels::eps_f64;
  static constexpr auto residual = &Kernels::residual_f64;
  static constexpr auto moments = &Kernels::moments_f64;
  static constexpr auto normalize = &Kernels::normalize_f64;
  static constexpr auto normalize_backward = &Kernels::normalize_backward_f64;
  static constexpr auto norm_gradient = &Kernels::norm_gradient_f64;
  static constexpr auto perturb = &Kernels::perturb_f64;
};

}  // namespace fastdiff::cpu
