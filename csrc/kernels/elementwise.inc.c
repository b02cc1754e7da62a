/* Elementwise maps, products and sums. Tails go through the same vector code, so a float's bits depend on it alone. */
#include "math.h"
#include "rows.h"

/* Runs `expression` over vectors p, q read from p_row, q_row into out_row. */
#define EACH_VECTOR(count, p_row, q_row, out_row, expression)                         \
    do {                                                                              \
        int64_t i = 0;                                                                \
        for (; i + VW <= (count); i += VW) {                                          \
            vec p = vload((p_row) + i), q = vload((q_row) + i);                       \
            (void)p, (void)q;                                                         \
            vstore((out_row) + i, expression);                                        \
        }                                                                             \
        if (i < (count)) {                                                            \
            vec p = tail_load((p_row) + i, (count) - i), q = tail_load((q_row) + i, (count) - i); \
            (void)p, (void)q;                                                         \
            tail_store((out_row) + i, expression, (count) - i);                       \
        }                                                                             \
    } while (0)

/* Derivatives from the input. */
INLINE vec dsilu(vec x) {
    vec s = vsigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

INLINE vec dgelu(vec x) { return vnormal_cdf(x) + x * 0.39894228f * vexp(x * x * -0.5f); }

INLINE vec gelu_tanh_inner(vec x) { return vtanh(0.79788456f * (x + 0.044715f * x * x * x)); }

INLINE vec dgelu_tanh(vec x) {
    vec t = gelu_tanh_inner(x);
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.79788456f * (1.0f + 0.134145f * x * x);
}

INLINE vec vsoftplus(vec x) { return VGREATER(vset(0.0f), x) + vlog1p(vexp(-vabs(x))); }

INLINE vec dmish(vec x) {
    vec t = vtanh(vsoftplus(x));
    return t + x * (1.0f - t * t) * vsigmoid(x);
}

INLINE vec clamp_to(vec x, vec low, vec high) {
    vec y = VGREATER(low, x); /* a NaN stays */
    return vselect((ivec)(y > high), high, y);
}

/* dy where the lanes of `pass` are -1, else 0. */
INLINE vec where(ivec pass, vec dy) { return (vec)(pass & (ivec)dy); }

FC_DEFINE(map) {
    const vec alpha = vset((float)a->alpha), beta = vset((float)a->beta), zero = vset(0.0f), six = vset(6.0f);
    int64_t strides[2][3] = {{a->x_n, a->x_c, a->x_h}, {a->y_n, a->y_c, a->y_h}};
    rows r = rows_share(a->n, a->c, a->h, a->len, strides, 2, ith, nth);
    while (rows_next(&r)) {
        const float *x = ROW_AT(r, a->x, a->x_n, a->x_c, a->x_h);
        float *y = ROW_AT(r, a->y, a->y_n, a->y_c, a->y_h);
        switch (a->kind) {
        case FC_RELU: EACH_VECTOR(r.count, x, x, y, vrelu(p)); break;
        case FC_LEAKY_RELU: EACH_VECTOR(r.count, x, x, y, vselect((ivec)(p > zero), p, alpha * p)); break;
        case FC_ELU: EACH_VECTOR(r.count, x, x, y, vselect((ivec)(p > zero), p, alpha * vexpm1(p))); break;
        case FC_SIGMOID: EACH_VECTOR(r.count, x, x, y, vsigmoid(p)); break;
        case FC_TANH: EACH_VECTOR(r.count, x, x, y, vtanh(p)); break;
        case FC_EXP: EACH_VECTOR(r.count, x, x, y, vexp(p)); break;
        case FC_SCALE: EACH_VECTOR(r.count, x, x, y, alpha * p); break;
        case FC_SQRT: EACH_VECTOR(r.count, x, x, y, vsqrt(p)); break;
        case FC_CLAMP:
        case FC_HARDTANH: EACH_VECTOR(r.count, x, x, y, clamp_to(p, alpha, beta)); break;
        case FC_HARDSIGMOID: EACH_VECTOR(r.count, x, x, y, clamp_to(p + 3.0f, zero, six) / 6.0f); break;
        case FC_HARDSWISH: EACH_VECTOR(r.count, x, x, y, p * clamp_to(p + 3.0f, zero, six) / 6.0f); break;
        case FC_SILU: EACH_VECTOR(r.count, x, x, y, p * vsigmoid(p)); break;
        case FC_GELU: EACH_VECTOR(r.count, x, x, y, p * vnormal_cdf(p)); break;
        case FC_GELU_TANH: EACH_VECTOR(r.count, x, x, y, 0.5f * p * (1.0f + gelu_tanh_inner(p))); break;
        case FC_SOFTPLUS:
            EACH_VECTOR(r.count, x, x, y, vselect((ivec)(alpha * p > beta), p, vsoftplus(alpha * p) / alpha));
            break;
        case FC_MISH: EACH_VECTOR(r.count, x, x, y, p * vtanh(vsoftplus(p))); break;
        case FC_LOG: EACH_VECTOR(r.count, x, x, y, vlog(p)); break;
        case FC_ABS: EACH_VECTOR(r.count, x, x, y, vabs(p)); break;
        case FC_SQUARE: EACH_VECTOR(r.count, x, x, y, p * p); break;
        case FC_ERF: EACH_VECTOR(r.count, x, x, y, verf(p)); break;
        default: EACH_VECTOR(r.count, x, x, y, p + alpha); break;
        }
    }
}

FC_DEFINE(map_bwd) {
    const vec alpha = vset((float)a->alpha), beta = vset((float)a->beta), zero = vset(0.0f), three = vset(3.0f);
    int64_t strides[3][3] = {
        {a->s_n, a->s_c, a->s_h}, {a->y_n, a->y_c, a->y_h}, {a->x_n, a->x_c, a->x_h}};
    rows r = rows_share(a->n, a->c, a->h, a->len, strides, 3, ith, nth);
    while (rows_next(&r)) {
        const float *s = ROW_AT(r, a->s, a->s_n, a->s_c, a->s_h);
        const float *dy = ROW_AT(r, a->dy, a->y_n, a->y_c, a->y_h);
        float *dx = ROW_AT(r, a->dx, a->x_n, a->x_c, a->x_h);
        switch (a->kind) {
        case FC_RELU: EACH_VECTOR(r.count, s, dy, dx, (vec)(~(ivec)(p <= zero) & (ivec)q)); break;
        case FC_LEAKY_RELU: EACH_VECTOR(r.count, s, dy, dx, vselect((ivec)(p > zero), q, alpha * q)); break;
        case FC_ELU: EACH_VECTOR(r.count, s, dy, dx, vselect((ivec)(p > zero), q, q * (p + alpha))); break;
        case FC_SIGMOID: EACH_VECTOR(r.count, s, dy, dx, q * (p * (1.0f - p))); break;
        case FC_TANH: EACH_VECTOR(r.count, s, dy, dx, q * (1.0f - p * p)); break;
        case FC_EXP: EACH_VECTOR(r.count, s, dy, dx, q * p); break;
        case FC_SCALE: EACH_VECTOR(r.count, dy, dy, dx, alpha * q); break;
        case FC_SQRT: EACH_VECTOR(r.count, s, dy, dx, q / (p + p)); break;
        case FC_CLAMP: EACH_VECTOR(r.count, s, dy, dx, where((ivec)(p >= alpha) & (ivec)(p <= beta), q)); break;
        case FC_HARDTANH: EACH_VECTOR(r.count, s, dy, dx, where((ivec)(p > alpha) & (ivec)(p < beta), q)); break;
        case FC_HARDSIGMOID:
            EACH_VECTOR(r.count, s, dy, dx, where((ivec)(p > -three) & (ivec)(p < three), q / 6.0f));
            break;
        case FC_HARDSWISH:
            EACH_VECTOR(r.count, s, dy, dx,
                        vselect((ivec)(p >= three), q, where((ivec)(p > -three), q * (p / 3.0f + 0.5f))));
            break;
        case FC_SILU: EACH_VECTOR(r.count, s, dy, dx, q * dsilu(p)); break;
        case FC_GELU: EACH_VECTOR(r.count, s, dy, dx, q * dgelu(p)); break;
        case FC_GELU_TANH: EACH_VECTOR(r.count, s, dy, dx, q * dgelu_tanh(p)); break;
        case FC_SOFTPLUS:
            EACH_VECTOR(r.count, s, dy, dx, vselect((ivec)(alpha * p > beta), q, q * vsigmoid(alpha * p)));
            break;
        case FC_MISH: EACH_VECTOR(r.count, s, dy, dx, q * dmish(p)); break;
        case FC_LOG: EACH_VECTOR(r.count, s, dy, dx, q / p); break;
        case FC_ABS: EACH_VECTOR(r.count, s, dy, dx, where((ivec)(p > zero), q) - where((ivec)(p < zero), q)); break;
        case FC_SQUARE: EACH_VECTOR(r.count, s, dy, dx, 2.0f * p * q); break;
        case FC_ERF: EACH_VECTOR(r.count, s, dy, dx, q * 1.12837917f * vexp(-p * p)); break;
        default: EACH_VECTOR(r.count, dy, dy, dx, q); break;
        }
    }
}

FC_DEFINE(zip) {
    int64_t strides[3][3] = {
        {a->a_n, a->a_c, a->a_h}, {a->b_n, a->b_c, a->b_h}, {a->y_n, a->y_c, a->y_h}};
    rows r = rows_share(a->n, a->c, a->h, a->len, strides, 3, ith, nth);
    while (rows_next(&r)) {
        const float *left = ROW_AT(r, a->a, a->a_n, a->a_c, a->a_h);
        const float *right = ROW_AT(r, a->b, a->b_n, a->b_c, a->b_h);
        float *y = ROW_AT(r, a->y, a->y_n, a->y_c, a->y_h);
        switch (a->kind) {
        case FC_ADD: EACH_VECTOR(r.count, left, right, y, p + q); break;
        case FC_SUB: EACH_VECTOR(r.count, left, right, y, p - q); break;
        case FC_MUL: EACH_VECTOR(r.count, left, right, y, p * q); break;
        default: EACH_VECTOR(r.count, left, right, y, p / q); break;
        }
    }
}

FC_DEFINE(scale_by) {
    const vec factor = vset((float)(a->alpha * a->s[0]));
    int64_t strides[1][3] = {{0}};
    rows r = rows_share(1, 1, 1, a->size, strides, 1, ith, nth);
    while (rows_next(&r)) {
        float *y = a->y + r.at;
        if (a->x)
            EACH_VECTOR(r.count, a->x + r.at, a->x + r.at, y, factor * p);
        else
            for (int64_t i = 0; i < r.count; i++) y[i] = factor[0];
    }
}

/* 16 running sums whatever VW is: the same bits on every ISA, too. */
FC_DEFINE(sum_all) {
    (void)nth;
    if (ith != 0) return;
    double sum[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= a->size; i += 16)
        for (int lane = 0; lane < 16; lane++) sum[lane] += a->x[i + lane];
    for (int lane = 0; i < a->size; i++, lane++) sum[lane] += a->x[i];
    for (int width = 8; width > 0; width /= 2)
        for (int lane = 0; lane < width; lane++) sum[lane] += sum[lane + width];
    a->y[0] = (float)(a->alpha * sum[0]);
}
