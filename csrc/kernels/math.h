/* Vector exp, expm1, log, log1p, tanh, sigmoid, sqrt and normal distribution, within about 2 ulp over the whole range; and loads of partial vectors.
 * Method: Cody-Waite range reduction and polynomials (own minimax fits of degree 5 and 8), as in Cephes. */
#ifndef FASTCNN_KERNELS_MATH_H
#define FASTCNN_KERNELS_MATH_H

#include "vec.h"

/* The first `count` < VW floats of p, 0 in the other lanes. */
INLINE vec tail_load(const float *p, int64_t count) {
    float lane[VW] = {0};
    for (int64_t i = 0; i < count; i++) lane[i] = p[i];
    return vload(lane);
}

INLINE void tail_store(float *p, vec v, int64_t count) {
    float lane[VW];
    vstore(lane, v);
    for (int64_t i = 0; i < count; i++) p[i] = lane[i];
}

INLINE vec vabs(vec x) { return (vec)((ivec)x & iset(0x7fffffff)); }

INLINE vec vsqrt(vec x) {
    for (int i = 0; i < VW; i++) x[i] = __builtin_sqrtf(x[i]);
    return x;
}

/* x = n ln2 + r, |r| <= ln2 / 2; returns r and n. */
INLINE vec exp_reduce(vec x, ivec *n) {
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the rounded integer in the low bits */
    vec shifted = x * 1.44269504f + round;
    vec count = shifted - round;
    *n = (ivec)shifted - (ivec)vset(round);
    return (x - count * 0.693359375f) - count * -2.12194440e-4f;
}

/* exp(r) - 1 for a reduced r. */
INLINE vec exp_core(vec r) {
    vec p = r * 0.00019845885f + 0.0013940721f;
    p = p * r + 0.0083333896f;
    p = p * r + 0.041666359f;
    p = p * r + 0.16666666f;
    p = p * r + 0.5f;
    return r + r * r * p;
}

INLINE vec power_of_two(ivec n) { return (vec)((n + 127) << 23); }

INLINE vec vexp(vec x) {
    x = vselect((ivec)(x > vset(89.0f)), vset(89.0f), x);
    x = vselect((ivec)(x < vset(-104.0f)), vset(-104.0f), x);
    ivec n;
    vec r = exp_reduce(x, &n);
    vec y = 1.0f + exp_core(r);
    ivec half = n >> 1; /* two factors, for 2^n may be out of range where the result is not */
    return y * power_of_two(half) * power_of_two(n - half);
}

/* exp(x) - 1 for x <= 40. */
INLINE vec vexpm1(vec x) {
    x = vselect((ivec)(x < vset(-40.0f)), vset(-40.0f), x);
    ivec n;
    vec r = exp_reduce(x, &n);
    vec scale = power_of_two(n);
    return scale * exp_core(r) + (scale - 1.0f);
}

INLINE vec vlog(vec x) {
    const ivec tiny = (ivec)(x < vset(1.17549435e-38f));
    vec scaled = vselect(tiny, x * 16777216.0f, x);
    ivec bits = (ivec)scaled - 0x3f3504f3; /* sqrt(1/2): the mantissa comes out in [sqrt(1/2), sqrt(2)) */
    ivec n = (bits >> 23) + (tiny & iset(-24));
    vec f = (vec)((bits & 0x007fffff) + 0x3f3504f3) - 1.0f;
    vec e = __builtin_convertvector(n, vec);
    vec p = f * 0.067466013f - 0.11675641f;
    p = p * f + 0.11888175f;
    p = p * f - 0.12405591f;
    p = p * f + 0.14219551f;
    p = p * f - 0.16667996f;
    p = p * f + 0.20002119f;
    p = p * f - 0.25000009f;
    p = p * f + 0.33333313f;
    vec square = f * f;
    vec y = square * f * p + e * -2.12194440e-4f;
    y = (f + (y - 0.5f * square)) + e * 0.693359375f;
    y = vselect((ivec)(x == vset(0.0f)), vset(-__builtin_inff()), y);
    y = vselect((ivec)(x == vset(__builtin_inff())), x, y);
    return vselect((ivec)(x >= vset(0.0f)), y, vset(__builtin_nanf("")));
}

INLINE vec vtanh(vec x) {
    vec size = vabs(x);
    size = vselect((ivec)(size > vset(10.0f)), vset(10.0f), size);
    vec e = vexpm1(2.0f * size);
    return (vec)((ivec)(e / (e + 2.0f)) | ((ivec)x & iset((int32_t)0x80000000)));
}

INLINE vec vsigmoid(vec x) {
    vec e = vexp(-vabs(x));
    return vselect((ivec)(x < vset(0.0f)), e, vset(1.0f)) / (1.0f + e);
}

/* log(1 + x) for x >= 0: the rounding of 1 + x is made good by the ratio x / ((1 + x) - 1). */
INLINE vec vlog1p(vec x) {
    vec u = 1.0f + x, rounded = u - 1.0f;
    return vselect((ivec)(rounded == vset(0.0f)), x, vlog(u) * x / vselect((ivec)(rounded == vset(0.0f)), vset(1.0f), rounded));
}

/* The normal distribution function. For t = |x|, Phi(-t) = exp(-t^2 / 2) * h(t); h(t) * (1 + t) is a polynomial (own minimax
 * fit of degree 10, to 14, where Phi(-t) is 0 in float) of q = (t - 3) / (t + 3). */
INLINE vec vnormal_cdf(vec x) {
    vec t = vabs(x);
    t = vselect((ivec)(t > vset(14.0f)), vset(14.0f), t);
    vec q = (t - 3.0f) / (t + 3.0f);
    vec p = q * 4.52796521e-05f + 9.58828787e-06f;
    p = p * q - 0.000470040104f;
    p = p * q - 0.000338430546f;
    p = p * q + 0.00299187284f;
    p = p * q + 0.00115465384f;
    p = p * q - 0.0227268599f;
    p = p * q + 0.0451646745f;
    p = p * q - 0.0164323449f;
    p = p * q - 0.0965267867f;
    p = p * q + 0.486055791f;
    vec tail = vexp(t * t * -0.5f) * p / (1.0f + t);
    return vselect((ivec)(x > vset(0.0f)), 1.0f - tail, tail);
}

/* The error function: 2 * Phi(x * sqrt 2) - 1, or near 0 its power series, to x^13. */
INLINE vec verf(vec x) {
    vec s = x * x, p = s * 1.20553330e-04f - 8.54832701e-04f;
    p = p * s + 5.22397763e-03f;
    p = p * s - 2.68661706e-02f;
    p = p * s + 1.12837917e-01f;
    p = p * s - 3.76126389e-01f;
    p = p * s + 1.12837917f;
    vec far = 2.0f * vnormal_cdf(x * 1.41421356f) - 1.0f;
    return vselect((ivec)(vabs(x) < vset(0.5f)), p * x, far);
}

#endif
