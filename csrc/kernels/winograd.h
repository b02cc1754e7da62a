/* The transforms of winograd.inc.c and winograd_weights.inc.c: Winograd's F(m x m, r x r), r = 2, 3 or 5 taps and m = 7 - r
 * outputs a side, on tiles of 6x6 inputs (Lavin and Gray, 2015). Points of a dimension are in the order 0, infinity, 1, -1, 2, -2:
 * by pairs that share their sums. What has `taps` values a side, weights or outputs or their gradients, is a polynomial of so many
 * coefficients. Transforms go by pairs of rows, whose values stay in registers; they are functions of their own because GCC, where
 * it sees several of them, shares their loads and spills them all. */
#ifndef FASTCNN_KERNELS_WINOGRAD_H
#define FASTCNN_KERNELS_WINOGRAD_H

#include "transpose.h"

#define SIDE 6
#define POINTS 36
#define PAIR_POINTS 12 /* points of a pair of rows */
#define MOST_WEIGHTS 36 /* of a filter: 6x6, stride 2 */
#define NOINLINE static __attribute__((noinline))

/* Outputs a side of a whole tile. */
INLINE int64_t winograd_step(int64_t r) { return SIDE + 1 - r; }

/* A tile at an image's edge has fewer outputs than m, and is computed from the first points alone, as many as its inputs: with
 * the maps of just these points the weights' values are the same. `n` below is the number of points of a dimension. */

/* A pair of points of one dimension of the input's transform. */
INLINE void winograd_input(int pair, int n, vec *t, const vec *d) {
    if (n == 6) {
        vec even = pair == 1 ? d[4] - 4.0f * d[2] : d[4] - d[2], odd = pair == 1 ? d[3] - 4.0f * d[1] : 2.0f * (d[3] - d[1]);
        t[0] = even + odd;
        t[1] = even - odd;
        if (pair == 0) t[0] = (4.0f * d[0] + d[4]) - 5.0f * d[2], t[1] = (4.0f * d[1] + d[5]) - 5.0f * d[3];
    } else if (n == 5) { /* 0, infinity, 1, -1, 2 */
        vec odd = d[3] - d[1];
        t[0] = pair == 0 ? 4.0f * (d[0] - d[2]) + 2.0f * odd : pair == 1 ? 3.0f * (d[3] - d[2]) - 6.0f * d[1] : 4.0f * odd;
        t[1] = pair == 0 ? (d[4] - d[2]) - 2.0f * odd : (d[3] + 2.0f * d[1]) - 3.0f * d[2];
    } else if (n == 4) { /* 0, infinity, 1, -1 */
        t[0] = pair == 0 ? 4.0f * (d[0] - d[2]) : -3.0f * (d[1] + d[2]);
        t[1] = pair == 0 ? d[3] - d[1] : 3.0f * (d[1] - d[2]);
    } else if (n == 3) { /* 0, infinity, 1 */
        t[0] = pair == 0 ? 4.0f * (d[0] - d[1]) : -6.0f * d[1];
        t[1] = d[2] - d[1];
    } else { /* 0, infinity */
        t[0] = 4.0f * d[0];
        t[1] = d[1];
    }
}

/* A pair of points of what is multiplied with it: the values of a polynomial, scaled. */
INLINE void winograd_of_taps(const int pair, const int taps, vec *u, const vec *g) {
    vec even = g[0], odd = {0};
    if (taps > 1) odd = (float)pair * g[1];
    float power = (float)(pair * pair);
#pragma GCC unroll 5
    for (int k = 2; k < taps; k++, power *= (float)pair) {
        if (k % 2)
            odd += power * g[k];
        else
            even += power * g[k];
    }
    const float scale = pair == 1 ? -1.0f / 6 : 1.0f / 24;
    u[0] = (even + odd) * scale;
    u[1] = (even - odd) * scale;
    if (pair == 0) u[0] = 0.25f * g[0], u[1] = g[taps - 1];
}

/* The way back from the n points m of one dimension. */
INLINE void winograd_to_taps(const int taps, const int n, vec *y, const vec *m) {
    vec sum[2] = {{0}, {0}}, sum2[2] = {{0}, {0}};
    if (n == 3) sum[0] = m[2], sum[1] = m[2];
    if (n > 3) sum[0] = m[2] + m[3], sum[1] = m[2] - m[3];
    if (n == 5) sum2[0] = m[4], sum2[1] = m[4];
    if (n == 6) sum2[0] = m[4] + m[5], sum2[1] = m[4] - m[5];
    y[0] = m[0] + sum[0] + sum2[0];
    float power = 2.0f;
#pragma GCC unroll 5
    for (int k = 1; k < taps; k++, power *= 2.0f) y[k] = sum[k % 2] + power * sum2[k % 2];
    y[taps - 1] += m[1];
}

/* The points of a pair of rows of one tile of rows x cols inputs of one block of channels, pixels x_w apart: v[point * v_p]. */
INLINE void winograd_pair_in(const int pair, const int rows, const int cols, const int x_w, const float *x, int64_t x_h,
                             float *v, int64_t v_p) {
    vec t[2][SIDE] = {{{0}}}, d[SIDE] = {{0}}, out[2];
#pragma GCC unroll 6
    for (int j = 0; j < cols; j++) {
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) d[i] = vload(x + i * x_h + j * x_w);
        winograd_input(pair, rows, out, d);
        t[0][j] = out[0], t[1][j] = out[1];
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        if (2 * pair + i >= rows) break;
#pragma GCC unroll 3
        for (int column = 0; column < 3; column++) {
            if (2 * column >= cols) break;
            winograd_input(column, cols, out, t[i]);
            vstore(v + (SIDE * i + 2 * column) * v_p, out[0]);
            if (2 * column + 1 < cols) vstore(v + (SIDE * i + 2 * column + 1) * v_p, out[1]);
        }
    }
}

/* The same of a tile of dy's rows x cols pixels, which have row_points x col_points points. */
INLINE void winograd_pair_dy(const int pair, const int rows, const int cols, const int row_points, const int col_points,
                             const float *dy, int64_t y_h, float *v, int64_t v_p) {
    vec t[2][5] = {{{0}}}, g[5] = {{0}}, out[2];
#pragma GCC unroll 5
    for (int j = 0; j < cols; j++) {
#pragma GCC unroll 5
        for (int i = 0; i < rows; i++) g[i] = vload(dy + i * y_h + j * VW);
        winograd_of_taps(pair, rows, out, g);
        t[0][j] = out[0], t[1][j] = out[1];
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        if (2 * pair + i >= row_points) break;
#pragma GCC unroll 3
        for (int column = 0; column < 3; column++) {
            if (2 * column >= col_points) break;
            winograd_of_taps(column, cols, out, t[i]);
            vstore(v + (SIDE * i + 2 * column) * v_p, out[0]);
            if (2 * column + 1 < col_points) vstore(v + (SIDE * i + 2 * column + 1) * v_p, out[1]);
        }
    }
}

/* For whole tiles (of r x r taps), and for any. */
#define WINOGRAD_PAIRS(pair, BODY, ...)         \
    if (pair == 0) BODY(0, __VA_ARGS__);        \
    if (pair == 1) BODY(1, __VA_ARGS__);        \
    if (pair == 2) BODY(2, __VA_ARGS__)

#define WINOGRAD_TILE_IN(name, x_w)                                                                      \
    NOINLINE void winograd_##name(int pair, const float *x, int64_t x_h, float *v, int64_t v_p) {        \
        WINOGRAD_PAIRS(pair, winograd_pair_in, SIDE, SIDE, x_w, x, x_h, v, v_p);                         \
    }
WINOGRAD_TILE_IN(tile_in, VW)
WINOGRAD_TILE_IN(tile_in_apart, 2 * VW)

NOINLINE void winograd_cut_in(int pair, int rows, int cols, int x_w, const float *x, int64_t x_h, float *v, int64_t v_p) {
    WINOGRAD_PAIRS(pair, winograd_pair_in, rows, cols, x_w, x, x_h, v, v_p);
}

#define WINOGRAD_TILE_DY(r)                                                                                        \
    NOINLINE void winograd_tile_dy_##r(int pair, const float *dy, int64_t y_h, float *v, int64_t v_p) {            \
        WINOGRAD_PAIRS(pair, winograd_pair_dy, SIDE + 1 - r, SIDE + 1 - r, SIDE, SIDE, dy, y_h, v, v_p);           \
    }
WINOGRAD_TILE_DY(2)
WINOGRAD_TILE_DY(3)
WINOGRAD_TILE_DY(5)

NOINLINE void winograd_cut_dy(int pair, int r, int rows, int cols, const float *dy, int64_t y_h, float *v, int64_t v_p) {
    WINOGRAD_PAIRS(pair, winograd_pair_dy, rows, cols, rows + r - 1, cols + r - 1, dy, y_h, v, v_p);
}

/* All points u[point * u_p] of r x r taps: vectors order[tap] of w. */
INLINE void winograd_tile_weights(const int r, const float *w, const int64_t *order, float *u, int64_t u_p) {
    vec t[SIDE][5], g[5];
#pragma GCC unroll 5
    for (int j = 0; j < r; j++) {
        vec column[SIDE];
#pragma GCC unroll 5
        for (int i = 0; i < r; i++) g[i] = vload(w + order[i * r + j] * VW);
#pragma GCC unroll 3
        for (int pair = 0; pair < 3; pair++) winograd_of_taps(pair, r, column + 2 * pair, g);
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++) t[i][j] = column[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < SIDE; i++) {
        vec out[SIDE];
#pragma GCC unroll 3
        for (int pair = 0; pair < 3; pair++) winograd_of_taps(pair, r, out + 2 * pair, t[i]);
#pragma GCC unroll 6
        for (int j = 0; j < SIDE; j++) vstore(u + (SIDE * i + j) * u_p, out[j]);
    }
}

/* And back, of the sums of the slots' points; those `ahead` are asked for. */
INLINE void winograd_tile_taps(const int r, const float *u, int64_t u_p, int64_t slots, int64_t ahead, float *taps) {
    vec t[5][SIDE];
#pragma GCC unroll 6
    for (int j = 0; j < SIDE; j++) {
        vec m[SIDE], column[5];
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++) {
            m[i] = vload(u + (SIDE * i + j) * u_p);
            __builtin_prefetch(u + (SIDE * i + j) * u_p + ahead);
            for (int64_t slot = 1; slot < slots; slot++) m[i] += vload(u + (slot * POINTS + SIDE * i + j) * u_p);
        }
        winograd_to_taps(r, SIDE, column, m);
#pragma GCC unroll 5
        for (int i = 0; i < r; i++) t[i][j] = column[i];
    }
#pragma GCC unroll 5
    for (int i = 0; i < r; i++) {
        vec row[5];
        winograd_to_taps(r, SIDE, row, t[i]);
#pragma GCC unroll 5
        for (int j = 0; j < r; j++) vstore(taps + (r * i + j) * VW, row[j]);
    }
}

#endif
