// Which instruction set the block kernels use: the best that the CPU has, or the one that the caller forces.
#include <atomic>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace fastdiff::cpu {
namespace {

struct Choices {
  const Kernels* all[3];
  int count = 0;
  Choices() {
    all[count++] = &portable::table;
#ifdef FASTDIFF_X86_DISPATCH
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
      all[count++] = &avx2::table;
      if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl"))
        all[count++] = &avx512::table;
    }
#endif
  }
  const Kernels* best() const { return all[count - 1]; }
};

const Choices& choices() {
  static const Choices found;
  return found;
}

std::atomic<const Kernels*>& active() {
  static std::atomic<const Kernels*> chosen{choices().best()};
  return chosen;
}

}  // namespace

const Kernels& kernels() { return *active().load(std::memory_order_relaxed); }

int supported(const char* names[3]) {
  for (int i = 0; i < choices().count; ++i) names[i] = choices().all[i]->name;
  return choices().count;
}

void set_capability(const char* name) {
  if (!*name) return active().store(choices().best());
  std::string known;
  for (int i = 0; i < choices().count; ++i) {
    if (std::string(name) == choices().all[i]->name) return active().store(choices().all[i]);
    known += std::string(i ? ", " : "") + choices().all[i]->name;
  }
  throw std::invalid_argument("capability: expected one of " + known + ", got " + name);
}

}  // namespace fastdiff::cpu
