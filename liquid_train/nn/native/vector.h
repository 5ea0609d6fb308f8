// Vectors of floats as wide as the target has them, and the two functions of them that networks need.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int W = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int W = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int W = 4, REGISTERS = 32;
#else
constexpr int W = 4, REGISTERS = 16;
#endif

typedef float vec __attribute__((vector_size(W * sizeof(float))));
typedef int32_t ivec __attribute__((vector_size(W * sizeof(int32_t))));

INLINE vec splat(float x) { return x - vec{}; }

// Hold v in a register. GCC would load it anew for each product that it is in, and a core loads no faster than
// it multiplies.
INLINE void hold(vec& v) {
#if defined(__AVX__)
  asm("" : "+v"(v));
#endif
}

INLINE vec load(const float* p) {
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE void store(float* p, vec v) { memcpy(p, &v, sizeof v); }

// The first n elements, of W or more; the others are zero.
INLINE vec load(const float* p, int64_t n) {
  if (n >= W) return load(p);
#if defined(__AVX512F__)
  return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
  vec v = {};
  memcpy(&v, p, n * sizeof(float));
  return v;
#endif
}

INLINE void store(float* p, vec v, int64_t n) {
  if (n >= W) {
    store(p, v);
    return;
  }
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
  memcpy(p, &v, n * sizeof(float));
#endif
}

INLINE float sum(vec v) {
#if !defined(__clang__)
  ivec lane;
  for (int i = 0; i < W; i++) lane[i] = i;
  for (int half = W / 2; half > 0; half /= 2) v += __builtin_shuffle(v, lane + half);
  return v[0];
#else
  float total = 0;
  for (int i = 0; i < W; i++) total += v[i];
  return total;
#endif
}

// x brought between two bounds; NaN stays.
INLINE vec clamp(vec x, float low, float high) {
#if defined(__AVX512F__)
  return (vec)_mm512_min_ps((__m512)splat(high), _mm512_max_ps((__m512)splat(low), (__m512)x));
#elif defined(__AVX__)
  return (vec)_mm256_min_ps((__m256)splat(high), _mm256_max_ps((__m256)splat(low), (__m256)x));
#else
  x = x < low ? splat(low) : x;
  return x > high ? splat(high) : x;
#endif
}

INLINE vec absolute(vec x) { return x < 0.0f ? -x : x; }

// 1 / x for positive x that are neither huge nor tiny: within a unit in the last place, and 1 of 1. A saturated
// function that came out below 1 would have a slope, and large inputs and time spans magnify it.
INLINE vec inverse(vec x) {
#if defined(__AVX512F__)
  vec guess = (vec)_mm512_rcp14_ps((__m512)x), error = 1.0f - x * guess;
  return guess + guess * error;
#elif defined(__AVX__)
  vec guess = (vec)_mm256_rcp_ps((__m256)x), error = 1.0f - x * guess;
  return guess + guess * (error + error * error);
#else
  return 1.0f / x;
#endif
}

// 2^n times a polynomial of r = x - n, |r| <= 1/2: within two units in the last place.
INLINE vec power_of_two(vec x) {
  x = clamp(x, -126.0f, 126.0f);
#if defined(__AVX512F__)
  vec n = (vec)_mm512_roundscale_ps((__m512)x, 0);
#else
  const vec magic = splat(12582912.0f);  // adding it leaves the nearest whole number in the low bits
  vec shifted = x + magic, n = shifted - magic;
#endif
  vec r = x - n, p = splat(1.5403530e-4f);
  p = p * r + 1.3333558e-3f;
  p = p * r + 9.6181291e-3f;
  p = p * r + 5.5504109e-2f;
  p = p * r + 2.4022651e-1f;
  p = p * r + 6.9314718e-1f;
  p = p * r + 1.0f;
#if defined(__AVX512F__)
  return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return p * (vec)(((ivec)shifted + 127) << 23);
#endif
}

INLINE vec exponential(vec x) { return power_of_two(x * 1.44269504f); }

INLINE vec logistic(vec x) { return inverse(1.0f + power_of_two(x * -1.44269504f)); }

INLINE vec hyperbolic_tangent(vec x) { return 2.0f * inverse(1.0f + power_of_two(x * -2.88539008f)) - 1.0f; }

// The standard normal distribution function, within 1e-7: Abramowitz and Stegun, 7.1.26.
INLINE vec normal_distribution(vec x) {
  vec t = inverse(1.0f + 0.23164189f * absolute(x)), p = splat(0.5307027f);
  p = p * t - 0.7265760f;
  p = p * t + 0.7107069f;
  p = p * t - 0.1422484f;
  p = p * t + 0.1274148f;
  vec upper = p * t * exponential(x * x * -0.5f);
  return x < 0.0f ? upper : 1.0f - upper;
}
