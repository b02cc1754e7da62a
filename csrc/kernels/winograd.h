/* The transforms of winograd.inc.c: Winograd's F(m x m, r x r), r = 3 or 5 taps and m = 7 - r outputs a side, on tiles of
 * 6x6 inputs (Lavin and Gray, 2015). Points of a dimension are in the order 0, infinity, 1, -1, 2, -2: by pairs that share their
 * sums. What has `taps` values a side, weights or outputs or their gradients, is a polynomial of so many coefficients.
 * Transforms go by pairs of rows, whose values stay in registers; they are functions of their own because GCC, where it sees
 * several of them, shares their loads and spills them all. */
#ifndef FASTCNN_KERNELS_WINOGRAD_H
#define FASTCNN_KERNELS_WINOGRAD_H

#include "transpose.h"

#define SIDE 6
#define POINTS 36
#define PAIR_POINTS 12 /* points of a pair of rows */
#define NOINLINE static __attribute__((noinline))

/* Outputs a side of a tile. */
INLINE int64_t winograd_step(int64_t r) { return SIDE + 1 - r; }

/* A pair of points of one dimension of the input's transform. */
INLINE void winograd_input(int pair, vec *t, const vec *d) {
    vec even = pair == 1 ? d[4] - 4.0f * d[2] : d[4] - d[2], odd = pair == 1 ? d[3] - 4.0f * d[1] : 2.0f * (d[3] - d[1]);
    t[0] = even + odd;
    t[1] = even - odd;
    if (pair == 0) t[0] = (4.0f * d[0] + d[4]) - 5.0f * d[2], t[1] = (4.0f * d[1] + d[5]) - 5.0f * d[3];
}

/* A pair of points of what is multiplied with it: the values of a polynomial, scaled. */
INLINE void winograd_of_taps(const int pair, const int taps, vec *u, const vec *g) {
    vec even = g[0], odd = (float)pair * g[1];
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

/* The way back from the points m of one dimension. */
INLINE void winograd_to_taps(const int taps, vec *y, const vec *m) {
    vec sum[2] = {m[2] + m[3], m[2] - m[3]}, sum2[2] = {m[4] + m[5], m[4] - m[5]};
    y[0] = m[0] + sum[0] + sum2[0];
    float power = 2.0f;
#pragma GCC unroll 5
    for (int k = 1; k < taps; k++, power *= 2.0f) y[k] = sum[k % 2] + power * sum2[k % 2];
    y[taps - 1] += m[1];
}

/* The 12 points of a pair of rows of one tile of one block of channels: v[point * v_p]. */
INLINE void winograd_pair_in(const int pair, const float *x, int64_t x_h, float *v, int64_t v_p) {
    vec t[2][SIDE], d[SIDE], out[2];
#pragma GCC unroll 6
    for (int j = 0; j < SIDE; j++) {
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++) d[i] = vload(x + i * x_h + j * VW);
        winograd_input(pair, out, d);
        t[0][j] = out[0], t[1][j] = out[1];
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
#pragma GCC unroll 3
        for (int column = 0; column < 3; column++, v += 2 * v_p) {
            winograd_input(column, out, t[i]);
            vstore(v, out[0]);
            vstore(v + v_p, out[1]);
        }
}

NOINLINE void winograd_tile_in(int pair, const float *x, int64_t x_h, float *v, int64_t v_p) {
    if (pair == 0) winograd_pair_in(0, x, x_h, v, v_p);
    if (pair == 1) winograd_pair_in(1, x, x_h, v, v_p);
    if (pair == 2) winograd_pair_in(2, x, x_h, v, v_p);
}

/* The same of a tile of dy's m x m pixels, of which there are rows x cols. */
INLINE void winograd_pair_dy(const int pair, const int m, const float *dy, int64_t y_h, int64_t rows, int64_t cols,
                             float *v, int64_t v_p) {
    vec t[2][4], g[4], out[2];
#pragma GCC unroll 4
    for (int j = 0; j < m; j++) {
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) g[i] = i < rows && j < cols ? vload(dy + i * y_h + j * VW) : (vec){0};
        winograd_of_taps(pair, m, out, g);
        t[0][j] = out[0], t[1][j] = out[1];
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
#pragma GCC unroll 3
        for (int column = 0; column < 3; column++, v += 2 * v_p) {
            winograd_of_taps(column, m, out, t[i]);
            vstore(v, out[0]);
            vstore(v + v_p, out[1]);
        }
}

#define WINOGRAD_TILE_DY(r)                                                                                          \
    NOINLINE void winograd_tile_dy_##r(int pair, const float *dy, int64_t y_h, int64_t rows, int64_t cols, float *v, \
                                       int64_t v_p) {                                                                \
        if (pair == 0) winograd_pair_dy(0, SIDE + 1 - r, dy, y_h, rows, cols, v, v_p);                               \
        if (pair == 1) winograd_pair_dy(1, SIDE + 1 - r, dy, y_h, rows, cols, v, v_p);                               \
        if (pair == 2) winograd_pair_dy(2, SIDE + 1 - r, dy, y_h, rows, cols, v, v_p);                               \
    }
WINOGRAD_TILE_DY(3)
WINOGRAD_TILE_DY(5)

/* All points u[point * u_p] of r x r weights, a vector apart (taps reversed where flip). */
INLINE void winograd_tile_weights(const int r, const float *taps, int flip, float *u, int64_t u_p) {
    vec t[SIDE][5], g[5];
#pragma GCC unroll 5
    for (int j = 0; j < r; j++) {
        int at = flip ? r * r - 1 - j : j, row = flip ? -r : r;
        vec column[SIDE];
#pragma GCC unroll 5
        for (int i = 0; i < r; i++) g[i] = vload(taps + (at + i * row) * VW);
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

/* And back, of the sums of the slots' points. */
INLINE void winograd_tile_taps(const int r, const float *u, int64_t u_p, int64_t slots, float *taps) {
    vec t[5][SIDE];
#pragma GCC unroll 6
    for (int j = 0; j < SIDE; j++) {
        vec m[SIDE], column[5];
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++) {
            m[i] = vload(u + (SIDE * i + j) * u_p);
            for (int64_t slot = 1; slot < slots; slot++) m[i] += vload(u + (slot * POINTS + SIDE * i + j) * u_p);
        }
        winograd_to_taps(r, column, m);
#pragma GCC unroll 5
        for (int i = 0; i < r; i++) t[i][j] = column[i];
    }
#pragma GCC unroll 5
    for (int i = 0; i < r; i++) {
        vec row[5];
        winograd_to_taps(r, row, t[i]);
#pragma GCC unroll 5
        for (int j = 0; j < r; j++) vstore(taps + (r * i + j) * VW, row[j]);
    }
}

#endif
