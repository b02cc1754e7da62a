/* What Winograd's kernels with images in the lanes share: the maps, the products, and how a plane is cut into tiles.
 *
 * Algorithm F(m x m, r x r), over the side^2 points of tiles of side = m + r - 1 inputs, images in the lanes. It is
 * three linear maps (of the inputs, the weights and the outputs) around a product; data and weight gradient are their adjoints
 * around the same products, so no gradient has more tiles than the outputs have. side 6, 7, 8: 4x4, 5x5, 6x6 outputs of a 3x3
 * convolution; side 8, 9: 4x4, 5x5 of a 5x5. */
#ifndef FASTCNN_KERNELS_WINOGRAD_N_H
#define FASTCNN_KERNELS_WINOGRAD_N_H

#include "tile_n.h"
#include "transpose.h"
#include "winograd_points.h"

#define TILE_N_MOST (VREGS == 32 ? 25 : 12) /* accumulators of a tile at most */
#define WINOGRAD_N_PAIRS(side) (((side) - 1) / 2)

/* ---- the maps in one dimension: side and taps (m or r) are literals ---- */

/* The sum of row[j] * d[j] for j = first, first + 2, ...; what is 0 costs nothing. */
INLINE vec winograd_n_dot(const int side, const int first, const float *row, const vec *d) {
    vec sum = {0};
    int terms = 0;
#pragma GCC unroll 9
    for (int j = first; j < side; j += 2)
        if (row[j] != 0.0f) {
            if (terms++)
                sum += row[j] * d[j];
            else
                sum = row[j] * d[j];
        }
    return sum;
}

INLINE void winograd_n_of_inputs(const int side, vec *p, const vec *d) {
    const float(*rows)[SIDE_MOST] = point_rows[POINTS_OF(side)];
    p[0] = winograd_n_dot(side, 0, rows[0], d);
#pragma GCC unroll 4
    for (int i = 1; i <= WINOGRAD_N_PAIRS(side); i++) {
        const vec even = winograd_n_dot(side, 0, rows[i], d), odd = winograd_n_dot(side, 1, rows[i], d);
        p[2 * i - 1] = even + odd;
        p[2 * i] = even - odd;
    }
    if (side % 2 == 0) p[side - 1] = winograd_n_dot(side, 1, rows[side / 2], d);
}

INLINE void winograd_n_inputs_of(const int side, vec *d, const vec *p) {
    const float(*rows)[SIDE_MOST] = point_rows[POINTS_OF(side)];
    vec sums[PAIRS_MOST], differences[PAIRS_MOST];
#pragma GCC unroll 4
    for (int i = 1; i <= WINOGRAD_N_PAIRS(side); i++) sums[i - 1] = p[2 * i - 1] + p[2 * i], differences[i - 1] = p[2 * i - 1] - p[2 * i];
#pragma GCC unroll 9
    for (int j = 0; j < side; j++) {
        const vec *pairs = j % 2 ? differences : sums;
        const int last = side % 2 ? 1 : side / 2, first = j % 2 && side % 2 ? 2 : 1; /* an odd side has no infinity */
        vec sum = j % 2 == 0 ? rows[0][j] * p[0] : rows[last][j] * (side % 2 ? pairs[0] : p[side - 1]);
#pragma GCC unroll 4
        for (int i = first; i <= WINOGRAD_N_PAIRS(side); i++)
            if (rows[i][j] != 0.0f) sum += rows[i][j] * pairs[i - 1];
        d[j] = sum;
    }
}

/* Points of m outputs (scaled 0) or r weights (scaled 1), and the way from points back to them. */
INLINE void winograd_n_of_taps(const int side, const int taps, const int scaled, vec *p, const vec *y) {
    const float *factor = point_factors[POINTS_OF(side)];
    p[0] = (scaled ? factor[0] : 1.0f) * y[0];
#pragma GCC unroll 4
    for (int i = 1; i <= WINOGRAD_N_PAIRS(side); i++) {
        const float at = point_at[(side) > 8][i - 1];
        vec even = y[0], odd = at * y[1];
        float power = at * at;
#pragma GCC unroll 9
        for (int k = 2; k < taps; k++, power *= at) {
            if (k % 2)
                odd += power * y[k];
            else
                even += power * y[k];
        }
        p[2 * i - 1] = even + odd;
        p[2 * i] = even - odd;
        if (scaled) p[2 * i - 1] *= factor[i], p[2 * i] *= factor[i];
    }
    if (side % 2 == 0) p[side - 1] = y[taps - 1];
}

INLINE void winograd_n_taps_of(const int side, const int taps, const int scaled, vec *y, const vec *p) {
    const float *factor = point_factors[POINTS_OF(side)];
    vec sums[PAIRS_MOST], differences[PAIRS_MOST];
#pragma GCC unroll 4
    for (int i = 1; i <= WINOGRAD_N_PAIRS(side); i++) {
        sums[i - 1] = p[2 * i - 1] + p[2 * i], differences[i - 1] = p[2 * i - 1] - p[2 * i];
        if (scaled) sums[i - 1] *= factor[i], differences[i - 1] *= factor[i];
    }
    float powers[PAIRS_MOST] = {1.0f, 1.0f, 1.0f, 1.0f};
#pragma GCC unroll 9
    for (int k = 0; k < taps; k++) {
        const vec *pairs = k % 2 ? differences : sums;
        vec sum = powers[0] * pairs[0];
#pragma GCC unroll 4
        for (int i = 1; i < WINOGRAD_N_PAIRS(side); i++) sum += powers[i] * pairs[i];
#pragma GCC unroll 4
        for (int i = 0; i < WINOGRAD_N_PAIRS(side); i++) powers[i] *= point_at[(side) > 8][i];
        if (k == 0) sum += (scaled ? factor[0] : 1.0f) * p[0];
        if (k == taps - 1 && side % 2 == 0) sum += p[side - 1];
        y[k] = sum;
    }
}

/* ---- the kinds: side and kernel. BODY(side, r) for the one at hand ---- */
#define WINOGRAD_N_KINDS(side, r, BODY)   \
    do {                                  \
        if ((side) == 9)                  \
            BODY(9, 5);                   \
        else if ((r) == 5)                \
            BODY(8, 5);                   \
        else if ((side) == 8)             \
            BODY(8, 3);                   \
        else if ((side) == 7)             \
            BODY(7, 3);                   \
        else                              \
            BODY(6, 3);                   \
    } while (0)

/* Floats between points: an odd number of cache lines, so that the points of a tile spread over the sets of the cache. */
INLINE int64_t winograd_n_spread(int64_t floats) { return ((floats + 15) / 16 | 1) * 16; }

/* ---- the points of a row of tiles ---- */

/* Where the points of a tile go: at + channel * channel_step + point * point_step. */
typedef struct {
    int64_t at, channel_step, point_step;
} winograd_n_place;

/* side x side inputs of one channel per tile, m apart, the first at (top, left) of the image; outside of it are zeros. line:
 * side * (m * tiles + side - m) vectors. */
INLINE void winograd_n_in_body(const int side, const int r, const float *x, int64_t x_h, int64_t h, int64_t w, int64_t top,
                               int64_t left, int64_t tiles, vec *line, float *v, const winograd_n_place *place) {
    const vec zero = {0};
    const float *row[SIDE_MOST];
    int64_t step[SIDE_MOST], m = side + 1 - r, cols = m * tiles + side - m;
    for (int i = 0; i < side; i++) {
        const int inside = top + i >= 0 && top + i < h;
        row[i] = inside ? x + (top + i) * x_h : (const float *)&zero;
        step[i] = inside ? VW : 0;
    }
    for (int64_t j = 0; j < cols; j++) {
        const int64_t at = left + j;
        vec d[SIDE_MOST], p[SIDE_MOST];
        const int inside = at >= 0 && at < w;
#pragma GCC unroll 9
        for (int i = 0; i < side; i++) d[i] = vload(inside ? row[i] + at * step[i] : (const float *)&zero);
        winograd_n_of_inputs(side, p, d);
#pragma GCC unroll 9
        for (int i = 0; i < side; i++) line[i * cols + j] = p[i];
    }
    for (int64_t t = 0; t < tiles; t++) {
        float *to = v + place[t].at;
        const int64_t point_step = place[t].point_step;
        for (int i = 0; i < side; i++) {
            vec p[SIDE_MOST];
            winograd_n_of_inputs(side, p, line + i * cols + m * t);
#pragma GCC unroll 9
            for (int j = 0; j < side; j++, to += point_step) vstore(to, p[j]);
        }
    }
}

static void winograd_n_in(int64_t side, int64_t r, const float *x, int64_t x_h, int64_t h, int64_t w, int64_t top,
                          int64_t left, int64_t tiles, vec *line, float *v, const winograd_n_place *place) {
#define BODY(side, r) winograd_n_in_body(side, r, x, x_h, h, w, top, left, tiles, line, v, place)
    WINOGRAD_N_KINDS(side, r, BODY);
#undef BODY
}

/* The same of m x m output gradients per tile; rows and cols are how many there are from here on. */
INLINE void winograd_n_dy_body(const int side, const int r, const float *dy, int64_t y_h, int64_t rows, int64_t cols,
                               int64_t tiles, vec *line, float *v, const winograd_n_place *place) {
    const int m = side + 1 - r;
    for (int64_t j = 0; j < m * tiles; j++) {
        vec y[SIDE_MOST], p[SIDE_MOST];
#pragma GCC unroll 9
        for (int i = 0; i < m; i++) y[i] = i < rows && j < cols ? vload(dy + i * y_h + j * VW) : (vec){0};
        winograd_n_of_taps(side, m, 0, p, y);
#pragma GCC unroll 9
        for (int i = 0; i < side; i++) line[i * m * tiles + j] = p[i];
    }
    for (int64_t t = 0; t < tiles; t++) {
        float *to = v + place[t].at;
        const int64_t point_step = place[t].point_step;
        for (int i = 0; i < side; i++) {
            vec p[SIDE_MOST];
            winograd_n_of_taps(side, m, 0, p, line + (i * tiles + t) * m);
#pragma GCC unroll 9
            for (int j = 0; j < side; j++, to += point_step) vstore(to, p[j]);
        }
    }
}

static void winograd_n_dy(int64_t side, int64_t r, const float *dy, int64_t y_h, int64_t rows, int64_t cols, int64_t tiles,
                          vec *line, float *v, const winograd_n_place *place) {
#define BODY(side, r) winograd_n_dy_body(side, r, dy, y_h, rows, cols, tiles, line, v, place)
    WINOGRAD_N_KINDS(side, r, BODY);
#undef BODY
}

/* ---- the products ---- */

/* out[point][m][n] = the sum over k of u[point][k][m] * v[point][k][n], the vectors of v n apart; m and n are literals. */
INLINE void winograd_n_body(const int m, const int n, const float *u, const float *v, int64_t k, int64_t points, float *out) {
    const int64_t rest = winograd_n_spread(n * k * VW) - n * k * VW;
    for (; points > 0; points--, v += rest) {
        vec acc[TILE_N_ROWS][TILE_N_COLS];
#pragma GCC unroll 9
        for (int row = 0; row < m; row++)
#pragma GCC unroll 6
            for (int j = 0; j < n; j++) acc[row][j] = (vec){0};
        for (int64_t i = 0; i < k; i++, u += m, v += n * VW) {
            vec x[TILE_N_COLS];
#pragma GCC unroll 6
            for (int j = 0; j < n; j++) x[j] = vload(v + j * VW);
#pragma GCC unroll 9
            for (int row = 0; row < m; row++) {
                const vec b = vset(u[row]);
#pragma GCC unroll 6
                for (int j = 0; j < n; j++) acc[row][j] += b * x[j];
            }
        }
#pragma GCC unroll 9
        for (int row = 0; row < m; row++)
#pragma GCC unroll 6
            for (int j = 0; j < n; j++) vstore(out + (row * n + j) * VW, acc[row][j]);
        out += winograd_n_spread(m * n * VW);
    }
}

/* For each of `parts` parts of v, v_part apart: sums[m * n] += the sums over the lanes of z[t][m] * v[t][n], t < count. */
INLINE void winograd_n_sums_body(const int m, const int n, const float *z, const float *v, int64_t v_part, int64_t parts,
                                 int64_t count, float *sums) {
    for (; parts > 0; parts--, v += v_part, sums += m * n) {
        vec acc[TILE_N_MOST + 3];
#pragma GCC unroll 28
        for (int i = 0; i < m * n + 3; i++) acc[i] = (vec){0};
        const float *zt = z, *vt = v;
        for (int64_t t = 0; t < count; t++, zt += m * VW, vt += n * VW) {
            vec x[TILE_N_COLS];
#pragma GCC unroll 6
            for (int j = 0; j < n; j++) x[j] = vload(vt + j * VW);
#pragma GCC unroll 9
            for (int i = 0; i < m; i++) {
                const vec b = vload(zt + i * VW);
#pragma GCC unroll 6
                for (int j = 0; j < n; j++) acc[i * n + j] += b * x[j];
            }
        }
#pragma GCC unroll 9
        for (int i = 0; i < m * n; i += 4) {
            const quad four = sum_four(acc[i], acc[i + 1], acc[i + 2], acc[i + 3]);
            if (i + 4 <= m * n)
                *(quad_u *)(sums + i) += four;
            else
                for (int e = 0; i + e < m * n; e++) sums[i + e] += four[e];
        }
    }
}

typedef void (*winograd_n_tile)(const float *u, const float *v, int64_t k, int64_t points, float *out);
typedef void (*winograd_n_sum)(const float *z, const float *v, int64_t v_part, int64_t parts, int64_t count, float *sums);
#define WINOGRAD_N_TILES(m, n)                                                                                             \
    static void winograd_n_##m##_##n(const float *u, const float *v, int64_t k, int64_t points, float *out) {             \
        if (TILE_N_FITS(m, n)) winograd_n_body(m, n, u, v, k, points, out);                                                \
    }                                                                                                                      \
    static void winograd_n_sums_##m##_##n(const float *z, const float *v, int64_t v_part, int64_t parts, int64_t count,   \
                                          float *sums) {                                                                   \
        if (TILE_N_FITS(m, n)) winograd_n_sums_body(m, n, z, v, v_part, parts, count, sums);                               \
    }
TILES_N(WINOGRAD_N_TILES)
#define WINOGRAD_N_ENTRY(m, n) TILE_N_ENTRY(winograd_n, m, n)
#define WINOGRAD_N_SUMS_ENTRY(m, n) TILE_N_ENTRY(winograd_n_sums, m, n)
static const winograd_n_tile winograd_n_tiles[TILE_N_ROWS][TILE_N_COLS] = {TILES_N(WINOGRAD_N_ENTRY)};
static const winograd_n_sum winograd_n_sums[TILE_N_ROWS][TILE_N_COLS] = {TILES_N(WINOGRAD_N_SUMS_ENTRY)};

/* ---- how a plane is cut ---- */

/* The tiles of a plane, in groups of whole rows of them that are worked on at a time. */
typedef struct {
    int64_t side, r, m, points, high, wide, groups;
    cuts rows; /* of tiles in a group */
} winograd_n_plane;

INLINE winograd_n_plane winograd_n_cut(int64_t side, int64_t r, int64_t oh, int64_t ow, int64_t rows) {
    winograd_n_plane p = {.side = side, .r = r, .m = side + 1 - r, .points = side * side};
    p.high = (oh + p.m - 1) / p.m, p.wide = (ow + p.m - 1) / p.m;
    p.groups = (p.high + rows - 1) / rows;
    p.rows = cut(p.high, p.groups);
    return p;
}

/* The register tiles of a product: panels of its output channels, and of the tiles of a group of `count`. */
typedef struct {
    cuts channels, tiles;
    int64_t panels, parts;
} winograd_n_grid;

INLINE winograd_n_grid winograd_n_cut_group(int64_t channels, int64_t most, int64_t count) {
    winograd_n_grid g;
    tile_n_choose(channels, most, 1, 1, &g.panels, &g.parts);
    g.channels = cut(channels, g.panels);
    g.parts = (count * g.parts + most - 1) / most;
    g.tiles = cut(count, g.parts);
    return g;
}

/* Where part i of a cut begins that is kept part by part, its points `each` floats long per item. */
INLINE int64_t winograd_n_start(cuts c, int64_t i, int64_t points, int64_t each) {
    const int64_t longer = i < c.longer ? i : c.longer;
    return points * (longer * winograd_n_spread((c.size + 1) * each) + (i - longer) * winograd_n_spread(c.size * each));
}

/* The points of k channels as the products read them: [part of the tiles][point][channel][tile]. */
INLINE void winograd_n_place_parts(winograd_n_grid g, int64_t points, int64_t k, winograd_n_place *place) {
    for (int64_t part = 0; part < g.parts; part++) {
        const int64_t n = cut_size(g.tiles, part), start = winograd_n_start(g.tiles, part, points, k * VW);
        for (int64_t t = 0; t < n; t++)
            *place++ = (winograd_n_place){start + t * VW, n * VW, winograd_n_spread(n * k * VW)};
    }
}

#endif
