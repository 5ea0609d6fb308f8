// One step of a CfC, wired or not, from packed weights; a sample at a time.

#include <algorithm>

#include "activation.h"
#include "stream.h"
#include "vector.h"

namespace {

// One group of a map: out [N, 16] from z [n]. Chains of sums run side by side where registers allow.
template <int N>
INLINE void product(const float* group, const float* z, int64_t n, float* out) {
  constexpr int WIDTH = N * GROUP, ALL = WIDTH / W, PART = ALL > 8 ? 8 : ALL, CHAINS = 8 / PART;
#pragma GCC unroll 8
  for (int part = 0; part < ALL; part += PART) {
    vec acc[CHAINS][PART] = {};
    const float* row = group + part * W;
#pragma GCC unroll 8
    for (int j = 0; j < PART; j++) acc[0][j] = load(row + j * W);
    row += WIDTH;
    int64_t k = 0;
    for (; k + CHAINS <= n; k += CHAINS, row += CHAINS * WIDTH)
#pragma GCC unroll 8
      for (int c = 0; c < CHAINS; c++)
#pragma GCC unroll 8
        for (int j = 0; j < PART; j++) acc[c][j] += z[k + c] * load(row + c * WIDTH + j * W);
    for (; k < n; k++, row += WIDTH)
#pragma GCC unroll 8
      for (int j = 0; j < PART; j++) acc[0][j] += z[k] * load(row + j * W);
#pragma GCC unroll 8
    for (int j = 0; j < PART; j++) {
#pragma GCC unroll 8
      for (int c = 1; c < CHAINS; c++) acc[0][j] += acc[c][j];
      store(out + (part + j) * W, acc[0][j]);
    }
  }
}

void backbone(const StreamCell& c, const float* map, const float* z, int64_t n, float* out) {
  for (int64_t k = 0; k < c.K; k += 4 * GROUP, map += (n + 1) * 4 * GROUP) {
    product<4>(map, z, n, out + k);
    for (int64_t i = k; i < k + 4 * GROUP; i += W) {
      vec y = load(out + i);
      store(out + i, activate(c.activation, y));
    }
  }
}

template <int N>
void heads(const StreamCell& c, const float* z, int64_t n, float t, float* state) {
  const float* map = c.heads;
  for (int64_t unit = 0; unit < c.H; unit += GROUP, map += (n + 1) * N * GROUP) {
    float u[N * GROUP];
    product<N>(map, z, n, u);
    for (int64_t i = 0; i < GROUP && unit + i < c.H; i += W) {
      int64_t at = unit + i, left = c.H - at;
      vec p = load(u + i);
      if constexpr (N == 1) {
        vec a = load(c.a + at, left), rate = load(c.rate + at, left) + absolute(p);
        store(state + at, a - a * exponential(-t * rate) * p, left);
      } else {
        p = hyperbolic_tangent(p);
        vec q = hyperbolic_tangent(load(u + GROUP + i));
        vec s = logistic(load(u + 2 * GROUP + i) + t * load(u + 3 * GROUP + i));
        store(state + at, c.mode == 0 ? p + s * (q - p) : p + s * q, left);
      }
    }
  }
}

void step(const StreamCell& c, const float* input, float* state, float t, float* z, float* next) {
  std::copy_n(state, c.H, std::copy_n(input, c.C, z));
  int64_t n = c.C + c.H;
  for (int64_t layer = 0; layer < c.L; layer++) {
    backbone(c, c.backbone[layer], z, n, next);
    std::swap(z, next);
    n = c.K;
  }
  if (c.mode == 2)
    heads<1>(c, z, n, t, state);
  else
    heads<4>(c, z, n, t, state);
}

void project(const CfCStream& s, const float* z, float* out) {
  const float* map = s.projection;
  for (int64_t at = 0; at < s.projected; at += 4 * GROUP, map += (s.outputs + 1) * 4 * GROUP) {
    float y[4 * GROUP];
    product<4>(map, z, s.outputs, y);
    std::copy_n(y, std::min<int64_t>(4 * GROUP, s.projected - at), out + at);
  }
}

}  // namespace

void cfc_stream(const CfCStream* stream, const float* x, const float* spans, float span, float* out) {
  const CfCStream& s = *stream;
  int64_t width = 0;
  for (int64_t i = 0; i < s.cells; i++) width = std::max({width, s.cell[i].C + s.cell[i].H, s.cell[i].K});
  width = (width + 4 * GROUP - 1) / (4 * GROUP) * (4 * GROUP);
  for (int64_t row = 0; row < s.B; row++) {
    const float* input = x + row * s.cell[0].C;
    for (int64_t i = 0; i < s.cells; i++) {
      const StreamCell& c = s.cell[i];
      float* state = c.state + row * c.H;
      step(c, input, state, spans ? spans[row] : span, s.scratch, s.scratch + width);
      input = state;
    }
    if (s.projected)
      project(s, input, out + row * s.projected);
    else
      std::copy_n(input, s.outputs, out + row * s.outputs);
  }
}
