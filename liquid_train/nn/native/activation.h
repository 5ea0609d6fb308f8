// The activations of a backbone.

#pragma once

#include "vector.h"

enum : int64_t { TANH, RELU, SILU, GELU };

// The last two have slopes that are no function of their values: what they take is kept instead.
INLINE bool keeps_argument(int64_t activation) { return activation >= SILU; }

INLINE vec activate(int64_t activation, vec x) {
  switch (activation) {
    case TANH: return hyperbolic_tangent(x);
    case RELU: return x < 0.0f ? vec{} : x;
    case SILU: return x * logistic(x);
    default: return x * normal_distribution(x);
  }
}

// The derivative, from the value or what was kept instead.
INLINE vec slope(int64_t activation, vec kept) {
  switch (activation) {
    case TANH: return 1.0f - kept * kept;
    case RELU: return kept > 0.0f ? splat(1.0f) : vec{};
    case SILU: {
      vec s = logistic(kept);
      return s + kept * s * (1.0f - s);
    }
    default: return normal_distribution(kept) + kept * 0.39894228f * exponential(kept * kept * -0.5f);
  }
}
