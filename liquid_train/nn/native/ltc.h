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
  int64_t M, constrain;  // for ltc_step: motor neurons; whether a softplus makes w, cm and gleak positive
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

  const float *input_w, *input_b;    // [C] or null, for ltc_step: elsewhere x is mapped already
  const float *output_w, *output_b;  // [M] or null, likewise
};

extern "C" {
void ltc_forward(const LTC* ltc);
void ltc_backward(const LTC* ltc);

// One step of a batch: x [batch, C], v and out [batch, H], output [batch, M], spans [batch] or null. The
// cell's own fields of the structure are read, w, cm and gleak as the cell has them.
void ltc_step(const LTC* ltc, const float* x, const float* v, const float* spans, float span, int64_t batch,
              float* out, float* output);
}
