// The coefficient row of sampler_step: the columns of fastdiff/ops/coef.py.
#pragma once

namespace fastdiff {

constexpr int kCoefs = 18;
enum Coef { kA, kB, kBu, kLo, kHi, kCx, kCd, kCg, kCh1, kCh2, kCh3, kCn, kCin, kEx, kEd, kCl, kKx, kKn };

constexpr int kMaxTerms = 5;  // G, H1, H2, H3, z
constexpr int kTermColumns[] = {kCg, kCh1, kCh2, kCh3, kCn};

}  // namespace fastdiff
