// ode_stage on the CPU: one pass over memory.
#include "../ode_stage.h"

#include "slopes.h"
#include "typed.h"

namespace fastdiff::cpu {
namespace {

struct Stage {
  Input x, F, x0, F_u, G;
  const double* coef;
  bool coef_per_sample;
  Sink k, y, net_in;
};

template <class T>
void run(const Stage& stage, const Slopes& slopes, const Layout& layout) {
  const Kernels& k = kernels();
  for_ranges(layout, [&](int64_t sample, int64_t begin, int64_t end) {
    T scratch[9][kBlock], slope_scratch[kMaxSlopes][kBlock], coef[kCoefs], w[kMaxSlopes + 1];
    const T* terms[kMaxSlopes + 1];
    for (int c = 0; c < kCoefs; ++c) coef[c] = (T)stage.coef[(stage.coef_per_sample ? sample * kCoefs : 0) + c];
    for (int m = 0; m <= slopes.count; ++m) w[m] = (T)slopes.weights[sample * slopes.weight_stride + m];
    StepBlock<T> block{};
    if (stage.G) block.term_coef[block.terms++] = coef[kCg];
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = std::min(kBlock, end - i), at = sample * layout.n + i;
      block.x = stage.x.block(k, at, n, scratch[0]);
      block.F = stage.F.block(k, at, n, scratch[1]);
      block.F_u = stage.F_u ? stage.F_u.block(k, at, n, scratch[2]) : nullptr;
      if (stage.G) block.term[0] = stage.G.block(k, at, n, scratch[3]);
      block.y = scratch[4];  // kept apart from the output: that may be x, and x0 may be x too
      (k.*Typed<T>::step)(n, coef, block);
      slopes.blocks(k, at, n, slope_scratch, terms);
      terms[slopes.count] = block.y;
      T* y = stage.y.block(at, scratch[5]);
      (k.*Typed<T>::combine)(n, stage.x0.block(k, at, n, scratch[6]), slopes.count + 1, w, terms, y);
      store(k, stage.k.dtype, block.y, stage.k.data + at * stage.k.size, n);
      stage.y.commit(k, at, n, y);
      if (stage.net_in) {
        T* net_in = stage.net_in.block(at, scratch[7]);
        (k.*Typed<T>::scale)(n, coef[kCin], y, net_in);
        stage.net_in.commit(k, at, n, net_in);
      }
    }
  });
}

void stage_into(const StageOperands& in, const StageOutputs& out) {
  const Layout layout = rows_of(in.x);
  OutputSet outputs(layout);
  Stage stage;
  stage.k = Sink(outputs.add("out", out.k));
  stage.y = Sink(outputs.add("y", out.y));
  if (out.net_in) stage.net_in = Sink(outputs.add("net_in", *out.net_in));
  std::optional<View> copies[5];
  int used = 0;
  const auto input = [&](const View& t) {
    const View& laid = copies[used++].emplace(with_layout(t, layout));
    outputs.check_against(laid);
    return Input(laid);
  };
  stage.x = input(in.x);
  stage.F = input(in.F);
  stage.x0 = input(in.x0);
  if (in.F_u) stage.F_u = input(*in.F_u);
  if (in.G) stage.G = input(*in.G);
  outputs.check_against(in.K);
  const View coef = dense(in.coef);
  stage.coef = (const double*)coef.data();
  stage.coef_per_sample = coef.dim() == 2;
  const Slopes slopes(in.K, in.weights, in.x.numel);
  in.x.dtype == Dtype::f64 ? run<double>(stage, slopes, layout) : run<float>(stage, slopes, layout);
  outputs.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("ode_stage", TORCH_BOX(&ode_stage<stage_into>));
  m.impl("ode_stage.out", TORCH_BOX(&ode_stage_out<stage_into>));
}

}  // namespace fastdiff::cpu
