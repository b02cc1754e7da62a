/* The transforms of winograd.inc.c and winograd_weights.inc.c: Winograd's F(m x m, r x r) on tiles of side x side inputs,
 * m = side + 1 - r outputs a side (Lavin and Gray, 2015): side 4 for r = 3 taps, side 6 for 2, 3 and 5, side 9 for 3, 4
 * and 5. Points of a dimension (winograd_points.h) are in pairs that share their sums: of side 6 0 and infinity, 1 and -1, 2
 * and -2, of which side 4 has the first four; of side 9 those of +-at, and 0 alone. What has `taps` values a side, weights
 * or outputs or their gradients, is a polynomial of so many coefficients. Transforms go by pairs of rows, whose values stay
 * in registers; they are functions of their own because GCC, where it sees several of them, shares their loads and spills
 * them all. */
#ifndef FASTCNN_KERNELS_WINOGRAD_H
#define FASTCNN_KERNELS_WINOGRAD_H

#include "transpose.h"
#include "winograd_points.h"

#define TAPS_MOST 7     /* of weights, outputs and their gradients, a side of a tile */
#define MOST_WEIGHTS 400 /* of a filter and what counts as its phases */
#define NOINLINE static __attribute__((noinline))

/* BODY(side, r) for the tiles at hand, both literals. */
#define WINOGRAD_KINDS(side, r, BODY)            \
    do {                                         \
        if ((side) == 4 && (r) == 3) BODY(4, 3); \
        if ((side) == 6 && (r) == 2) BODY(6, 2); \
        if ((side) == 6 && (r) == 3) BODY(6, 3); \
        if ((side) == 6 && (r) == 5) BODY(6, 5); \
        if ((side) == 9 && (r) == 3) BODY(9, 3); \
        if ((side) == 9 && (r) == 4) BODY(9, 4); \
        if ((side) == 9 && (r) == 5) BODY(9, 5); \
    } while (0)

/* Outputs a side of a whole tile. */
INLINE int64_t winograd_step(int64_t side, int64_t r) { return side + 1 - r; }

/* Pairs of a dimension's points, of which an odd side's last has but one, and the points of such a pair of rows. */
INLINE int winograd_pairs(int64_t side) { return (int)(side + 1) / 2; }
INLINE int64_t winograd_pair_points(int64_t side, int pair) { return (side - 2 * pair < 2 ? 1 : 2) * side; }

/* A tile at an image's edge has fewer outputs than m, and is computed from the first points alone, as many as its inputs: with
 * the maps of just these points the weights' values are the same. `n` below is the number of points of a dimension. */

/* A pair of points of one dimension of the input's transform; of side 9 for whole tiles alone. */
INLINE void winograd_input(const int side, int pair, int n, vec *t, const vec *d) {
    if (side == 9) {
        const float *row = point_rows[POINTS_OF(9)][(pair + 1) % 5]; /* there 0 is the first, not the last */
        vec even = row[2] * d[2] + row[4] * d[4] + row[6] * d[6] + d[8];
        if (pair == 4) {
            t[0] = even + row[0] * d[0];
        } else {
            vec odd = row[2] * d[1] + row[4] * d[3] + row[6] * d[5] + d[7];
            t[0] = even + point_at[1][pair] * odd;
            t[1] = even - point_at[1][pair] * odd;
        }
    } else if (n == 6) {
        vec even = pair == 1 ? d[4] - 4.0f * d[2] : d[4] - d[2],
            odd = pair == 1 ? d[3] - 4.0f * d[1] : 2.0f * (d[3] - d[1]);
        t[0] = even + odd;
        t[1] = even - odd;
        if (pair == 0) t[0] = (4.0f * d[0] + d[4]) - 5.0f * d[2], t[1] = (4.0f * d[1] + d[5]) - 5.0f * d[3];
    } else if (n == 5) { /* 0, infinity, 1, -1, 2 */
        vec odd = d[3] - d[1];
        t[0] = pair == 0   ? 4.0f * (d[0] - d[2]) + 2.0f * odd
               : pair == 1 ? 3.0f * (d[3] - d[2]) - 6.0f * d[1]
                           : 4.0f * odd;
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
INLINE void winograd_of_taps(const int side, const int pair, const int taps, vec *u, const vec *g) {
    const float *factors = point_factors[POINTS_OF(side)];
    if (side % 2 == 0 && pair == 0) {
        u[0] = factors[0] * g[0], u[1] = g[taps - 1];
    } else if (side == 9 && pair == 4) {
        u[0] = factors[0] * g[0];
    } else {
        const int at_pair = side % 2 ? pair : pair - 1;
        const float at = point_at[side > 8][at_pair], scale = factors[at_pair + 1];
        vec even = g[0], odd = {0};
        if (taps > 1) odd = at * g[1];
        float power = at * at;
#pragma GCC unroll 7
        for (int k = 2; k < taps; k++, power *= at) {
            if (k % 2)
                odd += power * g[k];
            else
                even += power * g[k];
        }
        u[0] = (even + odd) * scale;
        u[1] = (even - odd) * scale;
    }
}

/* The way back from the n points m of one dimension. */
INLINE void winograd_to_taps(const int side, const int taps, const int n, vec *y, const vec *m) {
    const int pairs = winograd_pairs(side), first = side % 2 == 0;
    vec sums[5], differences[5];
#pragma GCC unroll 4
    for (int pair = 0; pair < side / 2; pair++) {
        sums[pair] = differences[pair] = 2 * pair < n ? m[2 * pair] : (vec){0};
        if (pair >= first && 2 * pair + 1 < n) sums[pair] += m[2 * pair + 1], differences[pair] -= m[2 * pair + 1];
    }
    if (side % 2) sums[pairs - 1] = n == side ? m[side - 1] : (vec){0};
    float powers[5] = {1, 1, 1, 1, 1};
#pragma GCC unroll 7
    for (int k = 0; k < taps; k++) {
        const vec *of = (k % 2 ? differences : sums) + first;
        vec sum = powers[0] * of[0];
#pragma GCC unroll 4
        for (int i = 1; i < pairs - 1; i++) sum += powers[i] * of[i];
#pragma GCC unroll 4
        for (int i = 0; i < pairs - 1; i++) powers[i] *= point_at[side > 8][i];
        if (k == 0) sum += sums[first ? 0 : 4]; /* at 0 */
        y[k] = sum;
    }
    if (first) y[taps - 1] += m[1];
}

/* The points of a pair of rows of one tile of rows x cols inputs of one block of channels, pixels x_w apart: v[point * v_p]. */
INLINE void winograd_pair_in(const int side, const int pair, const int rows, const int cols, const int x_w,
                             const float *x, int64_t x_h, float *v, int64_t v_p) {
    vec t[2][SIDE_MOST] = {{{0}}}, d[SIDE_MOST] = {{0}}, out[2] = {{0}};
#pragma GCC unroll 9
    for (int j = 0; j < cols; j++) {
#pragma GCC unroll 9
        for (int i = 0; i < rows; i++) d[i] = vload(x + i * x_h + j * x_w);
        winograd_input(side, pair, rows, out, d);
        t[0][j] = out[0], t[1][j] = out[1];
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        if (2 * pair + i >= rows) break;
#pragma GCC unroll 5
        for (int column = 0; column < winograd_pairs(side); column++) {
            if (2 * column >= cols) break;
            winograd_input(side, column, cols, out, t[i]);
            vstore(v + (side * i + 2 * column) * v_p, out[0]);
            if (2 * column + 1 < cols) vstore(v + (side * i + 2 * column + 1) * v_p, out[1]);
        }
    }
}

/* Of side 9, the map of n inputs to the first n points: row i has the coefficients of the product of x - at[l] over the other l < n,
 * times at[i] - at[l] of those left out, which the factor of the weights' map divides by. */
typedef float winograd_map[SIDE_MOST][SIDE_MOST];

static void winograd_map_of(int64_t n, winograd_map map) {
    double at[9] = {0};
    for (int i = 0; i < 8; i++) at[i] = (i % 2 ? -1 : 1) * point_at[1][i / 2];
    for (int i = 0; i < n; i++) {
        double c[10] = {1}, scale = 1;
        for (int l = 0; l < 9; l++) {
            if (l == i) continue;
            if (l >= n) {
                scale *= at[i] - at[l];
                continue;
            }
            for (int k = 9; k > 0; k--) c[k] = c[k - 1] - at[l] * c[k];
            c[0] *= -at[l];
        }
        for (int j = 0; j < n; j++) map[i][j] = (float)(scale * c[j]);
    }
}

/* As winograd_pair_in, of any such tile. */
NOINLINE void winograd_mapped_in(int pair, int rows, int cols, const winograd_map row_map, const winograd_map col_map,
                                 const float *x, int64_t x_h, float *v, int64_t v_p) {
    for (int row = 2 * pair; row < rows && row < 2 * pair + 2; row++) {
        vec t[SIDE_MOST];
        for (int j = 0; j < cols; j++) {
            t[j] = (vec){0};
            for (int i = 0; i < rows; i++) t[j] += row_map[row][i] * vload(x + i * x_h + j * VW);
        }
        for (int point = 0; point < cols; point++, v += v_p) {
            vec sum = {0};
            for (int j = 0; j < cols; j++) sum += col_map[point][j] * t[j];
            vstore(v, sum);
        }
        v += (9 - cols) * v_p;
    }
}

/* The same of a tile of dy's rows x cols pixels, which have row_points x col_points points. */
INLINE void winograd_pair_dy(const int side, const int pair, const int rows, const int cols, const int row_points,
                             const int col_points, const float *dy, int64_t y_h, float *v, int64_t v_p) {
    vec t[2][TAPS_MOST] = {{{0}}}, g[TAPS_MOST] = {{0}}, out[2] = {{0}};
#pragma GCC unroll 7
    for (int j = 0; j < cols; j++) {
#pragma GCC unroll 7
        for (int i = 0; i < rows; i++) g[i] = vload(dy + i * y_h + j * VW);
        winograd_of_taps(side, pair, rows, out, g);
        t[0][j] = out[0], t[1][j] = out[1];
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        if (2 * pair + i >= row_points) break;
#pragma GCC unroll 5
        for (int column = 0; column < winograd_pairs(side); column++) {
            if (2 * column >= col_points) break;
            winograd_of_taps(side, column, cols, out, t[i]);
            vstore(v + (side * i + 2 * column) * v_p, out[0]);
            if (2 * column + 1 < col_points) vstore(v + (side * i + 2 * column + 1) * v_p, out[1]);
        }
    }
}

/* For whole tiles (of r x r taps), and for any. */
#define WINOGRAD_PAIRS(side, pair, BODY, ...)              \
    if (pair == 0) BODY(side, 0, __VA_ARGS__);             \
    if (pair == 1) BODY(side, 1, __VA_ARGS__);             \
    if (pair == 2 && side > 4) BODY(side, 2, __VA_ARGS__); \
    if (pair == 3 && side > 6) BODY(side, 3, __VA_ARGS__); \
    if (pair == 4 && side > 6) BODY(side, 4, __VA_ARGS__)

#define WINOGRAD_TILE_IN(name, side, x_w)                                                         \
    NOINLINE void winograd_##name(int pair, const float *x, int64_t x_h, float *v, int64_t v_p) { \
        WINOGRAD_PAIRS(side, pair, winograd_pair_in, side, side, x_w, x, x_h, v, v_p);            \
    }
WINOGRAD_TILE_IN(tile_in_4, 4, VW)
WINOGRAD_TILE_IN(tile_in_6, 6, VW)
WINOGRAD_TILE_IN(tile_in_9, 9, VW)
WINOGRAD_TILE_IN(tile_in_apart, 6, 2 * VW)

#define WINOGRAD_CUT_IN(side)                                                                                          \
    NOINLINE void winograd_cut_in_##side(int pair, int rows, int cols, int x_w, const float *x, int64_t x_h, float *v, \
                                         int64_t v_p) {                                                                \
        WINOGRAD_PAIRS(side, pair, winograd_pair_in, rows, cols, x_w, x, x_h, v, v_p);                                 \
    }
WINOGRAD_CUT_IN(4)
WINOGRAD_CUT_IN(6)

typedef void (*winograd_tile_dy)(int pair, const float *dy, int64_t y_h, float *v, int64_t v_p);
#define WINOGRAD_TILE_DY(side, r)                                                                                \
    NOINLINE void winograd_tile_dy_##side##_##r(int pair, const float *dy, int64_t y_h, float *v, int64_t v_p) { \
        WINOGRAD_PAIRS(side, pair, winograd_pair_dy, side + 1 - r, side + 1 - r, side, side, dy, y_h, v, v_p);   \
    }
WINOGRAD_TILE_DY(4, 3)
WINOGRAD_TILE_DY(6, 2)
WINOGRAD_TILE_DY(6, 3)
WINOGRAD_TILE_DY(6, 5)
WINOGRAD_TILE_DY(9, 3)
WINOGRAD_TILE_DY(9, 4)
WINOGRAD_TILE_DY(9, 5)

#define WINOGRAD_CUT_DY(side)                                                                                         \
    NOINLINE void winograd_cut_dy_##side(int pair, int r, int rows, int cols, const float *dy, int64_t y_h, float *v, \
                                         int64_t v_p) {                                                               \
        WINOGRAD_PAIRS(side, pair, winograd_pair_dy, rows, cols, rows + r - 1, cols + r - 1, dy, y_h, v, v_p);        \
    }
WINOGRAD_CUT_DY(4)
WINOGRAD_CUT_DY(6)
WINOGRAD_CUT_DY(9)

/* All points u[point * u_p] of r x r taps: vectors order[tap] of w; those `ahead` are asked for. */
INLINE void winograd_tile_weights(const int side, const int r, const float *w, const int64_t *order, float *u,
                                  int64_t u_p, int64_t ahead) {
    vec t[SIDE_MOST][5], g[5];
#pragma GCC unroll 5
    for (int j = 0; j < r; j++) {
        vec column[SIDE_MOST + 1];
#pragma GCC unroll 5
        for (int i = 0; i < r; i++) g[i] = vload(w + order[i * r + j] * VW);
#pragma GCC unroll 5
        for (int pair = 0; pair < winograd_pairs(side); pair++) winograd_of_taps(side, pair, r, column + 2 * pair, g);
#pragma GCC unroll 9
        for (int i = 0; i < side; i++) t[i][j] = column[i];
    }
#pragma GCC unroll 9
    for (int i = 0; i < side; i++) {
        vec out[SIDE_MOST + 1];
#pragma GCC unroll 5
        for (int pair = 0; pair < winograd_pairs(side); pair++) winograd_of_taps(side, pair, r, out + 2 * pair, t[i]);
#pragma GCC unroll 9
        for (int j = 0; j < side; j++) {
            vstore(u + (side * i + j) * u_p, out[j]);
            __builtin_prefetch(u + (side * i + j) * u_p + ahead, 1);
        }
    }
}

/* And back, of the sums of the slots' points; those `ahead` are asked for. */
INLINE void winograd_tile_taps(const int side, const int r, const float *u, int64_t u_p, int64_t slots, int64_t ahead,
                               float *taps) {
    vec t[5][SIDE_MOST];
#pragma GCC unroll 9
    for (int j = 0; j < side; j++) {
        vec m[SIDE_MOST], column[5];
#pragma GCC unroll 9
        for (int i = 0; i < side; i++) {
            m[i] = vload(u + (side * i + j) * u_p);
            __builtin_prefetch(u + (side * i + j) * u_p + ahead);
            for (int64_t slot = 1; slot < slots; slot++) m[i] += vload(u + ((slot * side + i) * side + j) * u_p);
        }
        winograd_to_taps(side, r, side, column, m);
#pragma GCC unroll 5
        for (int i = 0; i < r; i++) t[i][j] = column[i];
    }
#pragma GCC unroll 5
    for (int i = 0; i < r; i++) {
        vec row[5];
        winograd_to_taps(side, r, side, row, t[i]);
#pragma GCC unroll 5
        for (int j = 0; j < r; j++) vstore(taps + (r * i + j) * VW, row[j]);
    }
}

#endif
