// Sums over each sample, in double and in a fixed order: every thread block leaves its part in memory, and the last of a
// sample to arrive adds them.
#pragma once

#include "device.cuh"

namespace fastdiff::cuda {

// K sums over a thread block, in thread 0. Every thread of the block must come here.
template <int K>
FASTDIFF_INLINE void block_sum(double (&value)[K]) {
  __shared__ double warp_sums[kThreads / 32][K];
  for (int k = 0; k < K; ++k)
    for (int offset = 16; offset; offset /= 2) value[k] += __shfl_down_sync(0xFFFFFFFFu, value[k], offset);
  __syncthreads();  // thread 0 may still be reading the sums of the last call
  if (threadIdx.x % 32 == 0)
    for (int k = 0; k < K; ++k) warp_sums[threadIdx.x / 32][k] = value[k];
  __syncthreads();
  if (threadIdx.x == 0)
    for (int w = 1; w < kThreads / 32; ++w)
      for (int k = 0; k < K; ++k) value[k] += warp_sums[w][k];
}

// Whether this thread block is the last of `count` that count themselves here, true for all its threads or for none. What
// thread 0 of the others wrote before they came is then visible, through L2: this SM's L1 may hold older lines.
FASTDIFF_INLINE bool last_to_arrive(unsigned* arrived, unsigned count) {
  bool last = false;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(arrived, 1u) == count - 1;
    __threadfence();
  }
  return __syncthreads_or(last);
}

template <int K>
struct Sums {
  double* parts;      // [thread blocks of all samples, K]
  unsigned* arrived;  // [batch + 1], zero: thread blocks of each sample, and a counter for the samples themselves
};

// The sums over a sample of its threads' values. True in the last of its thread blocks to arrive, where thread 0 then has
// them in `value`. Every thread of every block must come here.
template <int K>
FASTDIFF_INLINE bool sample_sum(const Sums<K>& sums, const Shape& shape, int64_t sample, double (&value)[K]) {
  block_sum(value);
  if (shape.blocks == 1) return true;
  if (threadIdx.x == 0)
    for (int k = 0; k < K; ++k) sums.parts[(int64_t)blockIdx.x * K + k] = value[k];
  if (!last_to_arrive(sums.arrived + sample, shape.blocks)) return false;
  const double* const parts = sums.parts + sample * shape.blocks * K;
  for (int k = 0; k < K; ++k) value[k] = 0;
  for (int64_t i = threadIdx.x; i < shape.blocks; i += kThreads)
    for (int k = 0; k < K; ++k) value[k] += __ldcg(parts + i * K + k);
  block_sum(value);
  return true;
}

// The memory of a launch's sums, whose counters a memset clears in stream order, so that a CUDA graph can hold it. Where each
// sample is one thread block and nothing is summed over the batch, none is needed.
template <int K>
class SumMemory {
 public:
  SumMemory(const View& x, const Shape& shape, const Launch& launch, bool over_batch = false) {
    if (x.batch() == 0 || (shape.blocks == 1 && !over_batch)) return;
    const int64_t parts = x.batch() * shape.blocks * K, counters = x.batch() + 1;
    const int64_t size[1] = {parts + (counters + 1) / 2};
    memory_.emplace(torch::stable::new_empty(x.tensor, {size, 1}, ScalarType::Double));
    sums_.parts = (double*)memory_->data();
    sums_.arrived = (unsigned*)(sums_.parts + parts);
    launch.zero(sums_.arrived, counters * (int64_t)sizeof(unsigned));
  }
  const Sums<K>& sums() const { return sums_; }

 private:
  std::optional<View> memory_;
  Sums<K> sums_{};
};

}  // namespace fastdiff::cuda
