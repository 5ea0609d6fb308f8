// An LTC cell over whole sequences. Names are those of ltc_cell.py; native_ltc.py fills the structure.
//
// Shapes: T steps, B batch, C input channels, H neurons, S sources of synapses (C or H).

#pragma once

#include <cstdint>

// Synapses between every source and every neuron, [S, H] each; those whose mask is 0 are absent.
struct Parameters {
  const float *w, *mu, *sigma, *erev, *mask;
  float *d_w, *d_mu, *d_sigma, *d_erev;  // given as zeros
};

struct LTC {
  int64_t T, B, C, H, unfolds, threads;
  float span;     // length of a solver part where spans is null
  float epsilon;

  const float* x;      // [T, B, C]
  const float* spans;  // length of a solver part [T, B], or null
  const float *cm, *gleak, *vleak;  // [H]
  Parameters sensory, neural;

  float* states;  // [T + 1, B, H], the first given

  const float* grads;  // [T, B, H]
  float* d_x;          // [T, B, C]
  float* d_initial;    // [B, H]
  float* d_spans;      // [T, B] or null
  float *d_cm, *d_gleak, *d_vleak;  // [H], given as zeros
};

extern "C" {
void ltc_forward(const LTC* ltc);
void ltc_backward(const LTC* ltc);

// One step of a batch: x [batch, C], v and out [batch, H], spans [batch] or null. w, cm and gleak are as the
// cell has them, constrain says whether a softplus makes them positive. Only the cell's own fields are read.
void ltc_step(const LTC* ltc, const float* x, const float* v, const float* spans, float span, int64_t batch,
              int64_t constrain, float* out);
}
