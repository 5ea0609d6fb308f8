// The maps of a CfC cell: how wide they are, what they read, and the heads as one of them.

#pragma once

#include <algorithm>

#include "activation.h"
#include "cfc.h"
#include "memory.h"
#include "vector.h"

// Rows that are taken through all steps together: their data stays in the cache.
constexpr int64_t BLOCK = 64;

// Heads that one panel holds for the same units: ff1 alone; ff1, ff2, gate; or with time_a of its own.
inline int64_t head_count(const CfC& c) { return c.mode == 2 ? 1 : c.spans ? 4 : 3; }

inline int64_t features(const CfC& c) { return c.L > 0 ? c.K : c.C + c.H; }

// The heads as one map, masked: ff1, ff2, gate and, with spans, what the span multiplies. Weight
// [N · H, features] and bias [N · H].
struct Heads {
  Floats weight, bias;

  explicit Heads(const CfC& c) : weight(head_count(c) * c.H * features(c)), bias(head_count(c) * c.H) {
    int64_t size = c.H * features(c);
    for (int64_t head = 0; head < head_count(c); head++)
      for (int part = 0; part < 2; part++) {
        int64_t count = part == 0 ? size : c.H;
        float* out = (part == 0 ? weight.data() : bias.data()) + head * count;
        const float* mask = part > 0 ? nullptr : head < 2 ? c.mask : c.time_mask;
        fill(c, head, part, count, mask, out);
      }
  }

  static void fill(const CfC& c, int64_t head, int part, int64_t count, const float* mask, float* out) {
    if (head < 2)
      std::copy_n(c.heads[2 * head + part], count, out);
    else if (c.spans)
      std::copy_n(c.heads[(head == 2 ? 6 : 4) + part], count, out);
    else
      for (int64_t i = 0; i < count; i++) out[i] = c.heads[6 + part][i] + c.span * c.heads[4 + part][i];
    for (int64_t i = 0; mask && i < count; i++) out[i] *= mask[i];
  }
};

// Rows that a map reads: the first reads the input, then the state.
struct Source {
  const float* a;
  int64_t stride, rows;
};

struct Sources {
  Source parts[2];
  int count;
};

// Where the states and backbone values of some rows are: in the tensors for the backward pass, or if there
// are none in a buffer that keeps what the step at hand needs.
class Kept {
 public:
  explicit Kept(const CfC& c)
      : c(c), buffer(c.states ? 0 : BLOCK * (2 * c.H + c.L * c.K)),
        activated(keeps_argument(c.activation) ? BLOCK * c.K : 0) {}

  // The state of row `first` before step t.
  float* state(int64_t t, int64_t first) {
    return c.states ? c.states + (t * c.B + first) * c.H : buffer.data() + t % 2 * BLOCK * c.H;
  }

  float* values(int64_t layer, int64_t t, int64_t first) {
    if (c.states) return c.values + ((layer * c.T + t) * c.B + first) * c.K;
    return buffer.data() + BLOCK * (2 * c.H + layer * c.K);
  }

  // What a map reads for some rows from `first` on.
  Sources sources(int64_t layer, int64_t t, int64_t first, int64_t rows) {
    if (layer == 0) return {{{c.x.at(t, first), c.x.row, c.C}, {state(t, first), c.H, c.H}}, 2};
    const float* read = values(layer - 1, t, first);
    if (keeps_argument(c.activation)) {
      for (int64_t i = 0; i < rows * c.K; i += W) {
        int64_t left = rows * c.K - i;
        store(&activated[i], activate(c.activation, load(read + i, left)), left);
      }
      read = activated.data();
    }
    return {{{read, c.K, c.K}, {}}, 1};
  }

 private:
  const CfC& c;
  Floats buffer, activated;
};

inline int64_t width_of(const CfC& c, int64_t layer) { return layer == c.L ? head_count(c) * c.H : c.K; }

inline int64_t inputs_of(const CfC& c, int64_t layer) { return layer == 0 ? c.C + c.H : c.K; }
