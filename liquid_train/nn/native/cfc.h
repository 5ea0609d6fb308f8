// A CfC cell over whole sequences. Names and shapes are those of native_cfc.py, which fills the structure.
//
// Shapes: T steps, B batch, C input channels, H hidden units, L backbone layers of width K, N heads.

#pragma once

#include <cstdint>

// Rows [T, B, ·] of contiguous numbers that lie apart as their owner has them.
template <class Number>
struct Sequence {
  Number* data;
  int64_t step, row;  // numbers from one step to the next, and from one sample to the next

  Number* at(int64_t t, int64_t b) const { return data + t * step + b * row; }
};

struct CfC {
  int64_t T, B, C, H, L, K;
  int64_t mode;         // 0 default, 1 no_gate, 2 pure
  int64_t activation;   // of the backbone, gain · f(scale · x): activation.h has f
  int64_t threads;
  float gain, scale;
  float span;           // of every step where spans is null
  float unused;

  Sequence<const float> x;  // [T, B, C]
  const float* initial;     // state [B, H]
  const float* spans;       // [T, B] or null
  const float* const* backbone;  // weight [K, ·], bias [K] of each layer
  const float* const* heads;     // weight [H, ·], bias [H] of ff1 or of ff1, ff2, time_a, time_b
  const float* mask;       // [H, ·] of ff1 and ff2, or null
  const float* time_mask;  // likewise of time_a and time_b
  const float* a;          // [H], mode pure only
  const float* w_tau;      // likewise

  Sequence<float> out;  // states after each step [T, B, H]

  // What the backward pass needs, all null where there will be none.
  float* states;  // [T + 1, B, H]
  float* values;  // [L, T, B, K], after the activation, or before it if keeps_argument
  float* u;       // [T, B, N · H]: tanh of ff1 and ff2, the gate, time_a if there are spans; or ff1

  Sequence<const float> grads;  // [T, B, H]
  Sequence<float> d_x;          // [T, B, C], or no data
  float* d_initial;    // [B, H]
  float* d_spans;      // [T, B] or null
  float* d_closed;     // [threads, 2, H]: of a and w_tau, given as zeros
  float* const* d_maps;  // weight and bias of each backbone layer, then of each head
};

extern "C" {
void cfc_forward(const CfC* cfc);
void cfc_backward(const CfC* cfc);

// One step of a batch: x [batch, C], h and out [batch, H], spans [batch] or null. The cell's own fields of
// the structure are read. The last argument is there for the likeness with ltc_step.
void cfc_step(const CfC* cfc, const float* x, const float* h, const float* spans, float span, int64_t batch,
              float* out, float*);
}
