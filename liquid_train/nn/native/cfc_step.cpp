// One step of a CfC cell for few samples, from the weights as they are: packing them would take longer than
// the step, and packed ones kept from an earlier step could be old.

#include <algorithm>
#include <vector>

#include "activation.h"
#include "cfc.h"
#include "vector.h"

namespace {

// Adds up products with rows of a matrix [·, n]. The last vector of a row reaches back to be whole: there z
// is zero where it overlaps the one before.
struct Rows {
  const float* z;
  int64_t n, whole;
  vec tail = {};

  Rows(const float* z, int64_t n) : z(z), n(n), whole(n / W * W) {
    float last[W] = {};
    if (n >= W)
      for (int64_t k = whole; k < n; k++) last[k - n + W] = z[k];
    else
      std::copy_n(z, n, last);
    tail = load(last);
  }

  // out[r] = sum of w[r, :] · mask[r, :] · z, and the like for M rows at once.
  template <int M, class Weight>
  INLINE void dots(float* out, Weight weight) const {
    vec acc[M] = {};
    for (int64_t k = 0; k < whole; k += W) {
      vec v = load(z + k);
#pragma GCC unroll 4
      for (int r = 0; r < M; r++) acc[r] += weight(r * n + k, W) * v;
    }
    if (whole < n)
#pragma GCC unroll 4
      for (int r = 0; r < M; r++)
        acc[r] += weight(r * n + (n >= W ? n - W : 0), n >= W ? W : n) * tail;
#pragma GCC unroll 4
    for (int r = 0; r < M; r++) out[r] = sum(acc[r]);
  }

  template <class Weight>
  INLINE void all(int64_t rows, float* out, Weight weight) const {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4)
      dots<4>(out + r, [&](int64_t at, int64_t left) INLINE_LAMBDA { return weight(r * n + at, left); });
    for (; r < rows; r++)
      dots<1>(out + r, [&](int64_t at, int64_t left) INLINE_LAMBDA { return weight(r * n + at, left); });
  }

  // Rows of a weight, masked or not.
  void apply(int64_t rows, const float* weight, const float* mask, float* out) const {
    if (mask)
      all(rows, out, [=](int64_t at, int64_t left) INLINE_LAMBDA {
        return load(weight + at, left) * load(mask + at, left);
      });
    else
      all(rows, out, [=](int64_t at, int64_t left) INLINE_LAMBDA { return load(weight + at, left); });
  }

  // Rows of b + t · a.
  void apply(int64_t rows, const float* a, const float* b, float t, const float* mask, float* out) const {
    if (mask)
      all(rows, out, [=](int64_t at, int64_t left) INLINE_LAMBDA {
        return (load(b + at, left) + t * load(a + at, left)) * load(mask + at, left);
      });
    else
      all(rows, out, [=](int64_t at, int64_t left) INLINE_LAMBDA {
        return load(b + at, left) + t * load(a + at, left);
      });
  }
};

void finish(const CfC& c, const float* bias, float* z) {
  for (int64_t k = 0; k < c.K; k += W) {
    int64_t left = c.K - k;
    vec y = load(z + k, left) + load(bias + k, left);
    store(z + k, c.gain * activate(c.activation, c.scale * y), left);
  }
}

void close(const CfC& c, const Rows& rows, float t, float* f, float* state) {
  float *f1 = f, *f2 = f + c.H, *gate = f + 2 * c.H;
  rows.apply(c.H, c.heads[0], c.mask, f1);
  if (c.mode != 2) {
    rows.apply(c.H, c.heads[2], c.mask, f2);
    rows.apply(c.H, c.heads[4], c.heads[6], t, c.time_mask, gate);
  }
  for (int64_t i = 0; i < c.H; i += W) {
    int64_t left = c.H - i;
    vec p = load(f1 + i, left) + load(c.heads[1] + i, left);
    if (c.mode == 2) {
      vec a = load(c.a + i, left), rate = absolute(load(c.w_tau + i, left)) + absolute(p);
      store(state + i, a - a * exponential(-t * rate) * p, left);
      continue;
    }
    p = hyperbolic_tangent(p);
    vec q = hyperbolic_tangent(load(f2 + i, left) + load(c.heads[3] + i, left));
    vec s = logistic(load(gate + i, left) + load(c.heads[7] + i, left) + t * load(c.heads[5] + i, left));
    store(state + i, c.mode == 0 ? p + s * (q - p) : p + s * q, left);
  }
}

}  // namespace

void cfc_step(const CfC* cfc, const float* x, const float* h, const float* spans, float span, int64_t batch,
              float* out, float*) {
  const CfC& c = *cfc;
  thread_local std::vector<float> scratch;
  int64_t width = std::max(c.C + c.H, c.K);
  scratch.resize(2 * width + 3 * c.H);
  float *z = scratch.data(), *next = z + width, *heads = next + width;
  for (int64_t row = 0; row < batch; row++) {
    std::copy_n(h + row * c.H, c.H, std::copy_n(x + row * c.C, c.C, z));
    int64_t n = c.C + c.H;
    for (int64_t layer = 0; layer < c.L; layer++) {
      Rows(z, n).apply(c.K, c.backbone[2 * layer], nullptr, next);
      finish(c, c.backbone[2 * layer + 1], next);
      std::swap(z, next);
      n = c.K;
    }
    close(c, Rows(z, n), spans ? spans[row] : span, heads, out + row * c.H);
  }
}
