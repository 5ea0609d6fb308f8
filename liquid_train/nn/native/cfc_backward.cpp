#include <algorithm>
#include <vector>

#include "cfc_maps.h"
#include "product.h"
#include "threads.h"

namespace {

// Some columns of a map's weight [·, stride], which bring gradients down to what they read.
Panels pack_back(const CfC& c, int64_t layer, const float* weight, int64_t first, int64_t columns) {
  return pack_columns(width_of(c, layer), vectors(columns), inputs_of(c, layer), [&](int64_t vector, int lane) {
    int64_t column = vector * W + lane;
    return column < columns ? weight + first + column : nullptr;
  });
}

struct BackMaps {
  std::vector<Panels> below;  // to the map below, the first to the state
  Panels input;
};

BackMaps pack_backward(const CfC& c) {
  BackMaps maps;
  Heads heads(c);
  auto weight = [&](int64_t layer) { return layer == c.L ? heads.weight.data() : c.backbone[2 * layer]; };
  maps.below.push_back(pack_back(c, 0, weight(0), c.C, c.H));
  for (int64_t layer = 1; layer <= c.L; layer++)
    maps.below.push_back(pack_back(c, layer, weight(layer), 0, c.K));
  if (c.d_x.data) maps.input = pack_back(c, 0, weight(0), 0, c.C);
  return maps;
}

// Rows of d, apart by a stride, times the panels; finish(row, column, left, value) takes each vector. Not in
// line: among all that a step does GCC would keep sums of its loops in memory.
template <class Finish>
__attribute__((noinline)) void bring_down(const Panels& panels, const float* d, int64_t stride, int64_t columns,
                                          int64_t rows, Finish finish) {
  across(columns, [&](auto width, int64_t column, int64_t vector) INLINE_LAMBDA {
    constexpr int N = decltype(width)::value;
    tiles<tile_rows<N>()>(0, rows, [&](auto tile, int64_t row) INLINE_LAMBDA {
      constexpr int M = decltype(tile)::value;
      vec acc[M][N] = {};
      accumulate<M, N>(acc, d + row * stride, stride, panels.rows, panels.at(vector));
      for (int r = 0; r < M; r++)
        for (int j = 0; j < N; j++) finish(row + r, column + j * W, columns - column - j * W, acc[r][j]);
    });
  });
}

// Gradients of the heads from that of the state, for W units of one sample; returns that of the span.
template <int N>
INLINE vec open(const CfC& c, vec dh, const float* u, float* d_u, int64_t sample, int64_t column,
                float* closed) {
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

// The stride of rows that are read column by column: an odd number of vectors, so that they do not all fall
// in the same sets of the cache.
inline int64_t stride_of(int64_t columns) { return (vectors(columns) / 2 * 2 + 1) * W; }

// What a map read and the gradients of what it gave, for some steps of some rows; from them its gradients.
struct MapGradients {
  int64_t width, inputs, d_stride, stride;
  Floats d, read, weight, bias;

  MapGradients(int64_t width, int64_t inputs, int64_t rows)
      : width(width), inputs(inputs), d_stride(stride_of(width)), stride(stride_of(inputs)),
        d(rows * d_stride), read(rows * stride, 0.0f), weight(width * stride, 0.0f), bias(d_stride, 0.0f) {}

  void add(int64_t rows) {
    tiles<4>(0, vectors(width), [&](auto count, int64_t first) INLINE_LAMBDA {
      constexpr int N = decltype(count)::value;
      vec sums[N];
      for (int j = 0; j < N; j++) sums[j] = load(&bias[(first + j) * W]);
      for (int64_t row = 0; row < rows; row++)
        for (int j = 0; j < N; j++) sums[j] += load(&d[row * d_stride + (first + j) * W]);
      for (int j = 0; j < N; j++) store(&bias[(first + j) * W], sums[j]);
    });
    across(inputs, [&](auto vectors, int64_t column, int64_t) INLINE_LAMBDA {
      constexpr int N = decltype(vectors)::value;
      tiles<tile_rows<N>()>(0, width, [&](auto tile, int64_t row) INLINE_LAMBDA {
        constexpr int M = decltype(tile)::value;
        vec acc[M][N];
        for (int r = 0; r < M; r++)
          for (int j = 0; j < N; j++) acc[r][j] = load(&weight[(row + r) * stride + column + j * W]);
        accumulate_outer<M, N>(acc, &d[row], d_stride, &read[column], stride, rows);
        for (int r = 0; r < M; r++)
          for (int j = 0; j < N; j++) store(&weight[(row + r) * stride + column + j * W], acc[r][j]);
      });
    });
  }
};

// A thread's share of the backward pass: blocks of rows, each through all steps.
template <int N>
class Backward {
 public:
  Backward(const CfC& c, const BackMaps& maps, int64_t block, float* closed)
      : c(c), maps(maps), block(block), chunk(std::min(c.T, (BLOCK + block - 1) / block)), closed(closed), kept(c) {
    for (int64_t layer = 0; layer <= c.L; layer++)
      gradients.emplace_back(width_of(c, layer), inputs_of(c, layer), block * chunk);
  }

  void run(int64_t first, int64_t last) {
    int64_t rows = last - first, filled = 0;
    std::fill(c.d_initial + first * c.H, c.d_initial + last * c.H, 0.0f);
    for (int64_t t = c.T - 1; t >= 0; t--) {
      step(t, first, last, filled * rows);
      if (++filled == chunk || t == 0) {
        for (MapGradients& map : gradients) map.add(filled * rows);
        filled = 0;
      }
    }
  }

  std::vector<MapGradients> gradients;

 private:
  // at: where in the buffers the rows of this step begin.
  void step(int64_t t, int64_t first, int64_t last, int64_t at) {
    int64_t rows = last - first;
    keep(t, first, last, at);
    int64_t stride = gradients[c.L].d_stride;
    float* d = &gradients[c.L].d[at * stride];
    for (int64_t row = 0; row < rows; row++) {
      int64_t sample = t * c.B + first + row;
      vec d_span = {};
      for (int64_t column = 0; column < c.H; column += W) {
        int64_t left = c.H - column;
        vec dh = load(c.grads.at(t, first + row) + column, left) +
                 load(c.d_initial + (first + row) * c.H + column, left);
        const float* u = c.u + sample * N * c.H + column;
        d_span += open<N>(c, dh, u, d + row * stride + column, sample, column, closed);
        // The gradients of one step may lie far apart: ask for those of the next.
        if (t > 0) __builtin_prefetch(c.grads.at(t - 1, first + row) + column);
      }
      if (c.d_spans) c.d_spans[sample] = sum(d_span);
    }
    for (int64_t layer = c.L - 1; layer >= 0; layer--) {
      const float* z = kept.values(layer, t, first);
      int64_t out_stride = gradients[layer].d_stride;
      float *out = &gradients[layer].d[at * out_stride];
      const Panels& below = maps.below[layer + 1];
      bring_down(below, d, stride, c.K, rows, [&](int64_t row, int64_t i, int64_t left, vec v) INLINE_LAMBDA {
        vec kept = load(z + row * c.K + i, left) * (1.0f / c.gain);
        store(out + row * out_stride + i, v * (c.gain * c.scale) * slope(c.activation, kept), left);
      });
      d = out;
      stride = out_stride;
    }
    const Panels& below = maps.below[0];
    bring_down(below, d, stride, c.H, rows, [&](int64_t row, int64_t i, int64_t left, vec v) INLINE_LAMBDA {
      store(c.d_initial + (first + row) * c.H + i, v, left);
    });
    if (!c.d_x.data) return;
    const Panels& input = maps.input;
    bring_down(input, d, stride, c.C, rows, [&](int64_t row, int64_t i, int64_t left, vec v) INLINE_LAMBDA {
      store(c.d_x.at(t, first + row) + i, v, left);
    });
  }

  // Copy what each map read.
  void keep(int64_t t, int64_t first, int64_t last, int64_t at) {
    for (int64_t layer = 0; layer <= c.L; layer++) {
      MapGradients& map = gradients[layer];
      Sources from = kept.sources(layer, t, first, last - first);
      for (int64_t row = 0; row < last - first; row++) {
        float* out = &map.read[(at + row) * map.stride];
        for (int i = 0; i < from.count; i++) {
          const Source& part = from.parts[i];
          out = std::copy_n(part.a + row * part.stride, part.rows, out);
        }
      }
    }
  }

  const CfC& c;
  const BackMaps& maps;
  int64_t block, chunk;
  float* closed;
  Kept kept;
};

// Set out, or add to it, rows [first, first + count) of a map's gradients, times a factor and a mask.
void collect(const MapGradients& map, int64_t first, int64_t count, bool set, float factor, const float* mask,
             float* const* out) {
  float *weight = out[0], *bias = out[1];
  for (int64_t i = 0; i < count; i++) {
    const float *from = &map.weight[(first + i) * map.stride], *kept = mask ? mask + i * map.inputs : nullptr;
    float* to = weight + i * map.inputs;
    for (int64_t k = 0; k < map.inputs; k++) {
      float value = from[k] * factor * (kept ? kept[k] : 1.0f);
      to[k] = set ? value : to[k] + value;
    }
    bias[i] = (set ? 0.0f : bias[i]) + factor * map.bias[first + i];
  }
}

// Add a thread's gradients to the result, which the first one sets.
void collect(const CfC& c, const std::vector<MapGradients>& gradients, bool set) {
  for (int64_t layer = 0; layer < c.L; layer++)
    collect(gradients[layer], 0, c.K, set, 1.0f, nullptr, c.d_maps + 2 * layer);
  const MapGradients& heads = gradients[c.L];
  float* const* out = c.d_maps + 2 * c.L;
  collect(heads, 0, c.H, set, 1.0f, c.mask, out);
  if (head_count(c) == 1) return;
  collect(heads, c.H, c.H, set, 1.0f, c.mask, out + 2);
  collect(heads, c.spans ? 3 * c.H : 2 * c.H, c.H, set, c.spans ? 1.0f : c.span, c.time_mask, out + 4);
  collect(heads, 2 * c.H, c.H, set, 1.0f, c.time_mask, out + 6);
}

template <int N>
void backward(const CfC& c) {
  BackMaps maps = pack_backward(c);
  int64_t slices = std::min(c.B, c.threads), block = std::min(BLOCK, (c.B + slices - 1) / slices);
  std::vector<Backward<N>> shares;
  for (int64_t slice = 0; slice < slices; slice++)
    shares.emplace_back(c, maps, block, c.d_closed + 2 * slice * c.H);
  share(c.B, c.threads, [&](int64_t slice, int64_t first, int64_t last) {
    for (; first < last; first += block) shares[slice].run(first, std::min(first + block, last));
  });
  for (int64_t slice = 0; slice < slices; slice++) collect(c, shares[slice].gradients, slice == 0);
}

}  // namespace

void cfc_backward(const CfC* c) {
  head_count(*c) == 1 ? backward<1>(*c) : head_count(*c) == 3 ? backward<3>(*c) : backward<4>(*c);
}
