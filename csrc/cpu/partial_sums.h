// Sums over samples whose ranges are summed in parallel: the same result whatever the thread count.
#pragma once

#include <vector>

#include "driver.h"

namespace fastdiff::cpu {

class PartialSums {
 public:
  explicit PartialSums(const Layout& layout)
      : range_(range_length(layout)), ranges_((layout.n + range_ - 1) / range_), sums_(layout.batch * ranges_) {}
  double& at(int64_t sample, int64_t begin) { return sums_[sample * ranges_ + begin / range_]; }
  double total(int64_t sample) const {
    double sum = 0;
    for (int64_t r = 0; r < ranges_; ++r) sum += sums_[sample * ranges_ + r];
    return sum;
  }

 private:
  int64_t range_, ranges_;
  std::vector<double> sums_;
};

// out[sample] = value of each sample, out dense float64 or float32.
template <class F>
void write_per_sample(const View& out, int64_t batch, const F& value) {
  for (int64_t b = 0; b < batch; ++b)
    if (out.dtype == Dtype::f64)
      ((double*)out.data())[b] = value(b);
    else
      ((float*)out.data())[b] = (float)value(b);
}

}  // namespace fastdiff::cpu
