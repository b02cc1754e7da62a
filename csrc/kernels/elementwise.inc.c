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

FC_DEFINE(map) {
    const vec alpha = vset((float)a->alpha), zero = vset(0.0f);
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
        default: EACH_VECTOR(r.count, x, x, y, p + alpha); break;
        }
    }
}

FC_DEFINE(map_bwd) {
    const vec alpha = vset((float)a->alpha), zero = vset(0.0f);
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
