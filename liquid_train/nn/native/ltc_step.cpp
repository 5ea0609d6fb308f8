// One step of an LTC cell for few samples, from the parameters as they are; vectors hold neurons.

#include <algorithm>
#include <vector>

#include "ltc.h"
#include "vector.h"

namespace {

// max(x, 0) + log(1 + e^-|x|), the logarithm as 2 atanh(y / (2 + y)).
INLINE vec softplus(vec x) {
  vec y = exponential(-absolute(x)), s = y / (2.0f + y), ss = s * s;
  vec p = splat(2.0f / 13);
  p = p * ss + 2.0f / 11;
  p = p * ss + 2.0f / 9;
  p = p * ss + 2.0f / 7;
  p = p * ss + 2.0f / 5;
  p = p * ss + 2.0f / 3;
  p = p * ss + 2.0f;
  return (x > 0.0f ? x : vec{}) + p * s;
}

struct Step {
  const LTC& c;
  bool constrain;  // whether softplus makes w, cm and gleak positive
  int64_t padded = (c.H + W - 1) / W * W;

  vec positive(vec x) const { return constrain ? softplus(x) : x; }

  // Conductance and driven current of fully open synapses, [S, padded] each.
  void open(const Parameters& p, int64_t sources, float* w, float* driven) const {
    for (int64_t j = 0; j < sources; j++)
      for (int64_t i = 0; i < c.H; i += W) {
        int64_t at = j * c.H + i, left = c.H - i;
        vec conductance = positive(load(p.w + at, left)) * load(p.mask + at, left);
        store(w + j * padded + i, conductance);
        store(driven + j * padded + i, conductance * load(p.erev + at, left));
      }
  }

  // Add what sources at potentials v let through to neurons [i, i + W).
  INLINE void gather(const Parameters& p, int64_t sources, const float* v, const float* w,
                     const float* driven, int64_t i, vec& g, vec& current) const {
    for (int64_t j = 0; j < sources; j++) {
      int64_t at = j * c.H + i, left = c.H - i;
      vec driven_by = load(p.sigma + at, left) * (v[j] - load(p.mu + at, left));
      vec opened = logistic(driven_by);
      g += opened * load(w + j * padded + i);
      current += opened * load(driven + j * padded + i);
    }
  }
};

void affine(int64_t count, const float* x, const float* scale, const float* shift, float* out) {
  for (int64_t k = 0; k < count; k++) out[k] = x[k] * (scale ? scale[k] : 1.0f) + (shift ? shift[k] : 0.0f);
}

}  // namespace

void ltc_step(const LTC* ltc, const float* x, const float* v, const float* spans, float span, int64_t batch,
              float* out, float* output) {
  Step step{*ltc, ltc->constrain != 0};
  const LTC& c = *ltc;
  int64_t P = step.padded;
  thread_local std::vector<float> scratch;
  scratch.resize(2 * (c.H + c.C) * P + 4 * P + c.C);
  float *w = scratch.data(), *driven = w + c.H * P, *w_in = driven + c.H * P, *driven_in = w_in + c.C * P;
  float *g_in = driven_in + c.C * P, *current_in = g_in + P, *old = current_in + P;
  float *now = old + P, *mapped = now + P;
  step.open(c.neural, c.H, w, driven);
  step.open(c.sensory, c.C, w_in, driven_in);
  for (int64_t row = 0; row < batch; row++) {
    vec d = splat(spans ? spans[row] : span) / float(c.unfolds);
    affine(c.C, x + row * c.C, c.input_w, c.input_b, mapped);
    for (int64_t i = 0; i < c.H; i += W) {
      vec gleak = step.positive(load(c.gleak + i, c.H - i));
      vec g = gleak + c.epsilon, current = gleak * load(c.vleak + i, c.H - i);
      step.gather(c.sensory, c.C, mapped, w_in, driven_in, i, g, current);
      store(g_in + i, g);
      store(current_in + i, current);
    }
    std::copy_n(v + row * c.H, c.H, old);
    for (int64_t part = 0; part < c.unfolds; part++) {
      for (int64_t i = 0; i < c.H; i += W) {
        vec g = load(g_in + i), current = load(current_in + i), cm = step.positive(load(c.cm + i, c.H - i));
        step.gather(c.neural, c.H, old, w, driven, i, g, current);
        store(now + i, (cm * load(old + i) + d * current) / (cm + d * g));
      }
      std::swap(old, now);
    }
    std::copy_n(old, c.H, out + row * c.H);
    affine(c.M, old, c.output_w, c.output_b, output + row * c.M);
  }
}
