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
  std::vector<Floats> biases;
  Panels heads;
  Floats head_biases;  // [units in vectors][N][W]
};

template <int N>
void pack_heads(const CfC& c, Maps& maps) {
  Heads heads(c);
  auto column = [&](const Floats& from, int64_t width) {
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
    int64_t rows = inputs_of(c, layer);
    maps.backbone.push_back(pack_columns(rows, vectors(c.K), 1, [&](int64_t vector, int lane) {
      int64_t column = vector * W + lane;
      return column < c.K ? weight + column * rows : nullptr;
    }));
    maps.biases.emplace_back(vectors(c.K) * W, 0.0f);
    std::copy(bias, bias + c.K, maps.biases.back().begin());
  }
  int64_t heads = head_count(c);
  heads == 1 ? pack_heads<1>(c, maps) : heads == 3 ? pack_heads<3>(c, maps) : pack_heads<4>(c, maps);
  return maps;
}

// A thread's share of the forward pass: blocks of rows, each through all steps.
template <int N>
class Forward {
 public:
  Forward(const CfC& c, const Maps& maps) : c(c), maps(maps), kept(c) {}

  void run(int64_t first, int64_t last) {
    std::copy_n(c.initial + first * c.H, (last - first) * c.H, kept.state(0, first));
    for (int64_t t = 0; t < c.T; t++) {
      for (int64_t layer = 0; layer < c.L; layer++) run_backbone(layer, t, first, last - first);
      run_heads(t, first, last - first);
    }
  }

 private:
  void run_backbone(int64_t layer, int64_t t, int64_t first, int64_t rows) {
    Sources from = kept.sources(layer, t, first, rows);
    const Panels& panels = maps.backbone[layer];
    float* out = kept.values(layer, t, first);
    across(c.K, [&](auto width, int64_t column, int64_t vector) INLINE_LAMBDA {
      constexpr int P = decltype(width)::value;
      const float* bias = maps.biases[layer].data() + column;
      tiles<tile_rows<P>()>(0, rows, [&](auto tile, int64_t row) INLINE_LAMBDA {
        constexpr int M = decltype(tile)::value;
        vec acc[M][P];
        for (int r = 0; r < M; r++)
          for (int j = 0; j < P; j++) acc[r][j] = load(bias + j * W);
        product<M, P>(acc, from, row, panels.at(vector));
        for (int r = 0; r < M; r++)
          for (int j = 0; j < P; j++) {
            vec y = acc[r][j];
            if (!keeps_argument(c.activation)) y = c.gain * activate(c.activation, c.scale * y);
            store(out + (row + r) * c.K + column + j * W, y, c.K - column - j * W);
          }
      });
    });
  }

  void run_heads(int64_t t, int64_t first, int64_t rows) {
    Sources from = kept.sources(c.L, t, first, rows);
    float* state = kept.state(t + 1, first);
    for (int64_t column = 0, panel = 0; column < c.H; column += W, panel++) {
      const float* bias = maps.head_biases.data() + panel * N * W;
      tiles<tile_rows<N>()>(0, rows, [&](auto tile, int64_t row) INLINE_LAMBDA {
        constexpr int M = decltype(tile)::value;
        vec acc[M][N];
        for (int r = 0; r < M; r++)
          for (int j = 0; j < N; j++) acc[r][j] = load(bias + j * W);
        product<M, N>(acc, from, row, maps.heads.at(panel));
        for (int64_t r = 0; r < M; r++) {
          int64_t sample = t * c.B + first + row + r, left = c.H - column;
          vec h = close(acc[r], sample, column);
          store(state + (row + r) * c.H + column, h, left);
          store(c.out.at(t, first + row + r) + column, h, left);
        }
      });
    }
  }

  // Turn heads into a new state; what the backward pass needs of them goes to u.
  INLINE vec close(const vec (&head)[N], int64_t sample, int64_t column) {
    int64_t left = c.H - column;
    float* u = c.u ? c.u + sample * N * c.H + column : nullptr;
    if constexpr (N == 1) {
      vec a = load(c.a + column, left), rate = absolute(load(c.w_tau + column, left)) + absolute(head[0]);
      if (u) store(u, head[0], left);
      return a - a * exponential(-(c.spans ? c.spans[sample] : c.span) * rate) * head[0];
    } else {
      vec p = hyperbolic_tangent(head[0]), q = hyperbolic_tangent(head[1]), s = head[2];
      if constexpr (N == 4) s += head[3] * c.spans[sample];
      s = logistic(s);
      if (u) {
        store(u, p, left);
        store(u + c.H, q, left);
        store(u + 2 * c.H, s, left);
        if constexpr (N == 4) store(u + 3 * c.H, head[3], left);
      }
      return c.mode == 0 ? p + s * (q - p) : p + s * q;
    }
  }

  const CfC& c;
  const Maps& maps;
  Kept kept;
};

template <int N>
void forward(const CfC& c) {
  Maps maps = pack_forward(c);
  share(c.B, c.threads, [&](int64_t, int64_t first, int64_t last) {
    Forward<N> pass(c, maps);
    for (; first < last; first += BLOCK) pass.run(first, std::min(first + BLOCK, last));
  });
}

}  // namespace

void cfc_forward(const CfC* c) {
  head_count(*c) == 1 ? forward<1>(*c) : head_count(*c) == 3 ? forward<3>(*c) : forward<4>(*c);
}
