// ode_stage on CUDA: one launch, one pass over memory.
#include "../ode_stage.h"

#include "estimate.cuh"
#include "slopes.cuh"

namespace fastdiff::cuda {
namespace {

struct Stage {
  Network network;
  Memory G, x0;
  Slopes slopes;
  Memory k, y, net_in;
};

// A double's slopes take two registers each: half as many threads then, rather than memory for what does not fit.
template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : 4)
    stage_kernel(const __grid_constant__ Stage stage, const __grid_constant__ Shape shape) {
  const Place place(shape);
  if (place.first >= shape.n) return;
  T x[4], k[4], y[4];
  guided_four(stage.network, stage.G, shape, place, x, k);
  load_four(stage.x0, shape, place, y);
  add_slopes(stage.slopes, shape, place, y);
  const T w = stage.slopes.weight<T>(place.sample, stage.slopes.count);
  for (int j = 0; j < 4; ++j) y[j] = with_term(y[j], w, k[j]);
  store_four(stage.k, shape, place, k);  // only now: its memory may be x, x0 or K
  store_four(stage.y, shape, place, y);
  if (stage.net_in) {
    for (int j = 0; j < 4; ++j) y[j] = stage.network.coefficient<T>(place.sample, kCin) * y[j];
    store_four(stage.net_in, shape, place, y);
  }
}

void stage_into(const StageOperands& in, const StageOutputs& out) {
  const Layout layout = rows_of(in.x);
  OutputSet outputs(layout);
  Inputs inputs(layout);
  bool wide = true;
  const auto output = [&](const char* name, const View& t) {
    const Memory memory(outputs.add(name, t));
    wide = wide && memory.wide;
    return memory;
  };
  const View coef = dense(in.coef);
  Stage stage{.slopes = Slopes(in.K, in.weights, in.x.numel)};
  stage.k = output("out", out.k);
  stage.y = output("y", out.y);
  if (out.net_in) stage.net_in = output("net_in", *out.net_in);
  stage.network.x = inputs.add(in.x, &outputs);
  stage.network.F = inputs.add(in.F, &outputs);
  stage.x0 = inputs.add(in.x0, &outputs);
  if (in.F_u) stage.network.F_u = inputs.add(*in.F_u, &outputs);
  if (in.G) stage.G = inputs.add(*in.G, &outputs);
  outputs.check_against(in.K);
  stage.network.coef = (const double*)coef.data();
  stage.network.coef_per_sample = coef.dim() == 2;

  // Where nothing depends on the sample, the batch is one row.
  const bool flat = !stage.network.coef_per_sample && stage.slopes.weight_stride == 0;
  const Layout rows = flat ? Layout{layout.n ? 1 : 0, in.x.numel, 1} : layout;
  const Shape shape(rows, wide && inputs.wide() && stage.slopes.K.wide);
  const Launch launch(in.x);
  launch(in.x.dtype == Dtype::f64 ? stage_kernel<double> : stage_kernel<float>, rows.batch * shape.blocks, stage, shape);
  outputs.finish();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("ode_stage", TORCH_BOX(&ode_stage<stage_into>));
  m.impl("ode_stage.out", TORCH_BOX(&ode_stage_out<stage_into>));
}

}  // namespace fastdiff::cuda
