#include "cfc.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "product.h"
#include "threads.h"

namespace {

constexpr int PAIR = 2;  // vectors of a panel of a plain map

// Heads that one panel holds for the same units: ff1 alone; ff1, ff2, gate; or with time_a of its own.
int64_t head_count(const CfC& c) { return c.mode == 2 ? 1 : c.spans ? 4 : 3; }

int64_t features(const CfC& c) { return c.L > 0 ? c.K : c.C + c.H; }

float head_weight(const CfC& c, int64_t head, int64_t unit, int64_t k) {
  int64_t index = unit * features(c) + k;
  if (head < 2) return c.heads[2 * head][index] * (c.mask ? c.mask[index] : 1.0f);
  float mask = c.time_mask ? c.time_mask[index] : 1.0f;
  float own = c.heads[4][index], constant = c.heads[6][index];
  if (c.spans) return mask * (head == 2 ? constant : own);
  return mask * (constant + c.span * own);
}

float head_bias(const CfC& c, int64_t head, int64_t unit) {
  if (head < 2) return c.heads[2 * head + 1][unit];
  float own = c.heads[5][unit], constant = c.heads[7][unit];
  if (c.spans) return head == 2 ? constant : own;
  return constant + c.span * own;
}

// Rows that a map reads: the first reads the input, then the state.
struct Source {
  const float* a;
  int64_t stride, rows;
};

struct Sources {
  Source parts[2];
  int count;
};

Sources sources_of(const CfC& c, int64_t layer, int64_t t) {
  if (layer == 0) return {{{c.x + t * c.B * c.C, c.C, c.C}, {c.states + t * c.B * c.H, c.H, c.H}}, 2};
  return {{{c.values + ((layer - 1) * c.T + t) * c.B * c.K, c.K, c.K}, {}}, 1};
}

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
  auto inside = [&](int64_t panel, int lane) { return panel * W + lane < c.H; };
  maps.heads = pack<N>(features(c), vectors(c.H), [&](int64_t k, int64_t panel, int head, int lane) {
    return inside(panel, lane) ? head_weight(c, head, panel * W + lane, k) : 0.0f;
  });
  maps.head_biases = pack<N>(1, vectors(c.H), [&](int64_t, int64_t panel, int head, int lane) {
    return inside(panel, lane) ? head_bias(c, head, panel * W + lane) : 0.0f;
  }).data;
}

Maps pack_forward(const CfC& c) {
  Maps maps;
  for (int64_t layer = 0; layer < c.L; layer++) {
    const float *weight = c.backbone[2 * layer], *bias = c.backbone[2 * layer + 1];
    int64_t rows = layer == 0 ? c.C + c.H : c.K, panels = (vectors(c.K) + PAIR - 1) / PAIR;
    maps.backbone.push_back(pack<PAIR>(rows, panels, [&](int64_t k, int64_t panel, int j, int lane) {
      int64_t column = (panel * PAIR + j) * W + lane;
      return column < c.K ? weight[column * rows + k] : 0.0f;
    }));
    maps.biases.emplace_back(panels * PAIR * W);
    std::copy(bias, bias + c.K, maps.biases.back().begin());
  }
  head_count(c) == 1 ? pack_heads<1>(c, maps) : head_count(c) == 3 ? pack_heads<3>(c, maps) : pack_heads<4>(c, maps);
  return maps;
}

void run_backbone(const CfC& c, const Maps& maps, int64_t layer, int64_t t, int64_t first, int64_t last) {
  Sources from = sources_of(c, layer, t);
  const Panels& panels = maps.backbone[layer];
  float* out = c.values + (layer * c.T + t) * c.B * c.K;
  for (int64_t column = 0, panel = 0; column < c.K; column += PAIR * W, panel++) {
    const float* bias = maps.biases[layer].data() + column;
    tiles<tile_rows<PAIR>()>(first, last, [&](auto tile, int64_t row) __attribute__((always_inline)) {
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
INLINE void close(const CfC& c, const vec (&head)[N], int64_t sample, int64_t column, float* u, float* state) {
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
    tiles<tile_rows<N>()>(first, last, [&](auto tile, int64_t row) __attribute__((always_inline)) {
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
    for (int64_t t = 0; t < c.T; t++) {
      for (int64_t layer = 0; layer < c.L; layer++) run_backbone(c, maps, layer, t, first, last);
      run_heads<N>(c, maps, t, first, last);
    }
  });
}

struct BackMaps {
  std::vector<Panels> below;  // what brings gradients to the map below, the first to the state
};

// Columns of the weight that lead to what a layer reads: of the first, the state.
BackMaps pack_backward(const CfC& c) {
  BackMaps maps;
  for (int64_t layer = 0; layer <= c.L; layer++) {
    int64_t rows = layer == c.L ? head_count(c) * c.H : c.K;
    int64_t skip = layer == 0 ? c.C : 0, columns = layer == 0 ? c.H : c.K;
    int64_t stride = skip + columns, panels = (vectors(columns) + PAIR - 1) / PAIR;
    maps.below.push_back(pack<PAIR>(rows, panels, [&](int64_t k, int64_t panel, int j, int lane) {
      int64_t column = (panel * PAIR + j) * W + lane;
      if (column >= columns) return 0.0f;
      if (layer == c.L) return head_weight(c, k / c.H, k % c.H, skip + column);
      return c.backbone[2 * layer][k * stride + skip + column];
    }));
  }
  return maps;
}

// Rows of d [·, rows] times the panels; finish(row, column, left, value) takes each vector.
template <class Finish>
INLINE void bring_down(const Panels& panels, const float* d, int64_t columns, int64_t first, int64_t last,
                       Finish finish) {
  for (int64_t column = 0, panel = 0; column < columns; column += PAIR * W, panel++)
    tiles<tile_rows<PAIR>()>(first, last, [&](auto tile, int64_t row) __attribute__((always_inline)) {
      constexpr int M = decltype(tile)::value;
      vec acc[M][PAIR] = {};
      accumulate<M, PAIR>(acc, d + row * panels.rows, panels.rows, panels.rows, panels.at(panel));
      for (int r = 0; r < M; r++)
        for (int j = 0; j < PAIR && column + j * W < columns; j++)
          finish(row + r, column + j * W, columns - column - j * W, acc[r][j]);
    });
}

// Gradients of the heads from that of the state, for W units of one sample; returns that of the span.
template <int N>
INLINE vec open(const CfC& c, vec dh, const float* u, float* d_u, int64_t sample, int64_t column, float* closed) {
  int64_t left = c.H - column;
  float t = c.spans ? c.spans[sample] : c.span;
  if constexpr (N == 1) {
    vec a = load(c.a + column, left), w = load(c.w_tau + column, left), f = load(u, left);
    vec rate = absolute(w) + absolute(f), decay = exponential(-t * rate), moved = decay * f;
    vec by_exponent = dh * a * moved, sign = w > 0.0f ? splat(1.0f) : (w < 0.0f ? splat(-1.0f) : vec{});
    store(d_u, dh * a * decay * (t * absolute(f) - 1.0f), left);
    store(closed + column, load(closed + column, left) + dh * (1.0f - moved), left);
    closed += c.H;
    store(closed + column, load(closed + column, left) + by_exponent * t * sign, left);
    return by_exponent * rate;
  } else {
    vec p = load(u, left), q = load(u + c.H, left), s = load(u + 2 * c.H, left);
    vec gate = dh * (c.mode == 0 ? q - p : q) * s * (1.0f - s);
    store(d_u, (c.mode == 0 ? dh * (1.0f - s) : dh) * (1.0f - p * p), left);
    store(d_u + c.H, dh * s * (1.0f - q * q), left);
    store(d_u + 2 * c.H, gate, left);
    if constexpr (N == 3) return vec{};
    store(d_u + 3 * c.H, gate * t, left);
    return gate * load(u + 3 * c.H, left);
  }
}

template <int N>
void backward_rows(const CfC& c, const BackMaps& maps, float* closed, int64_t first, int64_t last) {
  float* carried = c.d_initial;
  for (int64_t i = first * c.H; i < last * c.H; i++) carried[i] = 0;
  for (int64_t t = c.T - 1; t >= 0; t--) {
    for (int64_t row = first; row < last; row++) {
      int64_t sample = t * c.B + row;
      vec d_span = {};
      for (int64_t column = 0; column < c.H; column += W) {
        int64_t left = c.H - column, at = sample * N * c.H + column;
        vec dh = load(c.grads + sample * c.H + column, left) + load(carried + row * c.H + column, left);
        d_span += open<N>(c, dh, c.u + at, c.d_u + at, sample, column, closed);
      }
      if (c.d_spans) c.d_spans[sample] = sum(d_span);
    }
    const float* d = c.d_u + t * c.B * N * c.H;
    for (int64_t layer = c.L - 1; layer >= 0; layer--) {
      int64_t offset = (layer * c.T + t) * c.B * c.K;
      const float* z = c.values + offset;
      float *out = c.d_values + offset, peak = c.gain * c.scale, fall = c.scale / c.gain;
      bring_down(maps.below[layer + 1], d, c.K, first, last, [&](int64_t row, int64_t column, int64_t left, vec v) __attribute__((always_inline)) {
        vec y = load(z + row * c.K + column, left);
        v = c.activation == 0 ? v * (peak - fall * y * y) : (y > 0.0f ? v : vec{});
        store(out + row * c.K + column, v, left);
      });
      d = out;
    }
    bring_down(maps.below[0], d, c.H, first, last, [&](int64_t row, int64_t column, int64_t left, vec v) __attribute__((always_inline)) {
      store(carried + row * c.H + column, v, left);
    });
  }
}

template <int N>
void backward(const CfC& c) {
  BackMaps maps = pack_backward(c);
  share(c.B, c.threads, [&](int64_t slice, int64_t first, int64_t last) {
    backward_rows<N>(c, maps, c.d_closed + 2 * slice * c.H, first, last);
  });
}

}  // namespace

void cfc_forward(const CfC* c) {
  head_count(*c) == 1 ? forward<1>(*c) : head_count(*c) == 3 ? forward<3>(*c) : forward<4>(*c);
}

void cfc_backward(const CfC* c) {
  head_count(*c) == 1 ? backward<1>(*c) : head_count(*c) == 3 ? backward<3>(*c) : backward<4>(*c);
}

extern "C" void liquid_sizes(int64_t* sizes) { sizes[0] = sizeof(CfC); }
