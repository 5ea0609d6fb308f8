#include <algorithm>
#include <vector>

#include "cfc_maps.h"
#include "product.h"
#include "threads.h"

namespace {

template <int M, int N>
INLINE void product(vec (&acc)[M][N], const Sources& from, int64_t row, const float* panel) {
  for (int i = 0; i < from.count; i++) {
    const Source& part = from.parts[i];
    accumulate<M, N>(acc, part.a + row * part.stride, part.stride, part.rows, panel);
    panel += part.rows * N * W;
  }
}

struct Maps {
  std::vector<Panels> backbone;
  std::vector<std::vector<float>> biases;
  Panels heads;
  std::vector<float> head_biases;  // [units in vectors][N][W]
};

template <int N>
void pack_heads(const CfC& c, Maps& maps) {
  Heads heads(c);
  auto column = [&](const std::vector<float>& from, int64_t width) {
    return [&from, width, &c](int64_t panel, int head, int lane) -> const float* {
      int64_t unit = panel * W + lane;
      return unit < c.H ? &from[(head * c.H + unit) * width] : nullptr;
    };
  };
  maps.heads = pack<N>(features(c), vectors(c.H), 1, column(heads.weight, features(c)));
  maps.head_biases = pack<N>(1, vectors(c.H), 1, column(heads.bias, 1)).data;
}

Maps pack_forward(const CfC& c) {
  Maps maps;
  for (int64_t layer = 0; layer < c.L; layer++) {
    const float *weight = c.backbone[2 * layer], *bias = c.backbone[2 * layer + 1];
    int64_t rows = layer == 0 ? c.C + c.H : c.K, panels = (vectors(c.K) + PAIR - 1) / PAIR;
    maps.backbone.push_back(pack<PAIR>(rows, panels, 1, [&](int64_t panel, int j, int lane) {
      int64_t column = (panel * PAIR + j) * W + lane;
      return column < c.K ? weight + column * rows : nullptr;
    }));
    maps.biases.emplace_back(panels * PAIR * W);
    std::copy(bias, bias + c.K, maps.biases.back().begin());
  }
  int64_t heads = head_count(c);
  heads == 1 ? pack_heads<1>(c, maps) : heads == 3 ? pack_heads<3>(c, maps) : pack_heads<4>(c, maps);
  return maps;
}

void run_backbone(const CfC& c, const Maps& maps, int64_t layer, int64_t t, int64_t first, int64_t last) {
  Sources from = sources_of(c, layer, t);
  const Panels& panels = maps.backbone[layer];
  float* out = c.values + (layer * c.T + t) * c.B * c.K;
  for (int64_t column = 0, panel = 0; column < c.K; column += PAIR * W, panel++) {
    const float* bias = maps.biases[layer].data() + column;
    tiles<tile_rows<PAIR>()>(first, last, [&](auto tile, int64_t row) INLINE_LAMBDA {
      constexpr int M = decltype(tile)::value;
      vec acc[M][PAIR];
      for (int r = 0; r < M; r++)
        for (int j = 0; j < PAIR; j++) acc[r][j] = load(bias + j * W);
      product<M, PAIR>(acc, from, row, panels.at(panel));
      for (int r = 0; r < M; r++)
        for (int j = 0; j < PAIR && column + j * W < c.K; j++) {
          vec y = acc[r][j];
          y = c.activation == 0 ? c.gain * hyperbolic_tangent(c.scale * y) : (y < 0.0f ? vec{} : y);
          store(out + (row + r) * c.K + column + j * W, y, c.K - column - j * W);
        }
    });
  }
}

// Turn heads into a new state; what the backward pass needs of them goes to u.
template <int N>
INLINE void close(const CfC& c, const vec (&head)[N], int64_t sample, int64_t column, float* u,
                  float* state) {
  int64_t left = c.H - column;
  if constexpr (N == 1) {
    vec a = load(c.a + column, left), rate = absolute(load(c.w_tau + column, left)) + absolute(head[0]);
    store(u, head[0], left);
    store(state, a - a * exponential(-(c.spans ? c.spans[sample] : c.span) * rate) * head[0], left);
  } else {
    vec p = hyperbolic_tangent(head[0]), q = hyperbolic_tangent(head[1]), s = head[2];
    if constexpr (N == 4) s += head[3] * c.spans[sample];
    s = logistic(s);
    store(u, p, left);
    store(u + c.H, q, left);
    store(u + 2 * c.H, s, left);
    if constexpr (N == 4) store(u + 3 * c.H, head[3], left);
    store(state, c.mode == 0 ? p + s * (q - p) : p + s * q, left);
  }
}

template <int N>
void run_heads(const CfC& c, const Maps& maps, int64_t t, int64_t first, int64_t last) {
  Sources from = sources_of(c, c.L, t);
  float* state = c.states + (t + 1) * c.B * c.H;
  float* u = c.u + t * c.B * N * c.H;
  for (int64_t column = 0, panel = 0; column < c.H; column += W, panel++) {
    const float* bias = maps.head_biases.data() + panel * N * W;
    tiles<tile_rows<N>()>(first, last, [&](auto tile, int64_t row) INLINE_LAMBDA {
      constexpr int M = decltype(tile)::value;
      vec acc[M][N];
      for (int r = 0; r < M; r++)
        for (int j = 0; j < N; j++) acc[r][j] = load(bias + j * W);
      product<M, N>(acc, from, row, maps.heads.at(panel));
      for (int64_t r = 0; r < M; r++)
        close<N>(c, acc[r], t * c.B + row + r, column, u + (row + r) * N * c.H + column,
                 state + (row + r) * c.H + column);
    });
  }
}

template <int N>
void forward(const CfC& c) {
  Maps maps = pack_forward(c);
  share(c.B, c.threads, [&](int64_t, int64_t first, int64_t last) {
    for (; first < last; first += BLOCK)
      for (int64_t t = 0; t < c.T; t++) {
        int64_t end = std::min(first + BLOCK, last);
        for (int64_t layer = 0; layer < c.L; layer++) run_backbone(c, maps, layer, t, first, end);
        run_heads<N>(c, maps, t, first, end);
      }
  });
}

}  // namespace

void cfc_forward(const CfC* c) {
  head_count(*c) == 1 ? forward<1>(*c) : head_count(*c) == 3 ? forward<3>(*c) : forward<4>(*c);
}
