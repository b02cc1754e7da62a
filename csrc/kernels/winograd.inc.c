/* 3x3 convolution by Winograd's F(4x4, 3x3) (Lavin and Gray, 2015), channels in the lanes: tiles of 6x6 inputs become 36
 * points, the points of many tiles are multiplied with the weights' as 36 matrices, and tiles of 4x4 outputs come back.
 * conv_lanes_c.inc.c has the register tile of the product. Points of a dimension are in the order 0, infinity, 1, -1, 2, -2:
 * by pairs that share their sums. Transforms go by pairs of rows, whose values stay in registers; they are functions of their
 * own because GCC, where it sees several of them, shares their loads and spills them all. */
#include "transpose.h"

#define POINTS 36
#define PAIR_POINTS 12 /* points of a pair of rows */
#define NOINLINE static __attribute__((noinline))

/* A pair of points of one dimension of the input's transform. */
INLINE void winograd_input(int pair, vec *t, vec d0, vec d1, vec d2, vec d3, vec d4, vec d5) {
    vec even = pair == 1 ? d4 - 4.0f * d2 : d4 - d2, odd = pair == 1 ? d3 - 4.0f * d1 : 2.0f * (d3 - d1);
    t[0] = even + odd;
    t[1] = even - odd;
    if (pair == 0) t[0] = (4.0f * d0 + d4) - 5.0f * d2, t[1] = (4.0f * d1 + d5) - 5.0f * d3;
}

/* One dimension of the output's. */
INLINE void winograd_output(vec *y, vec m0, vec m5, vec m1, vec m2, vec m3, vec m4) {
    vec s = m1 + m2, d = m1 - m2, s2 = m3 + m4, d2 = m3 - m4;
    y[0] = m0 + s + s2;
    y[1] = d + 2.0f * d2;
    y[2] = s + 4.0f * s2;
    y[3] = d + 8.0f * d2 + m5;
}

/* One dimension of the weights'. */
INLINE void winograd_weight(vec *u, vec g0, vec g1, vec g2) {
    vec ends = g0 + g2, far = g0 + 4.0f * g2;
    u[0] = 0.25f * g0;
    u[1] = g2;
    u[2] = (ends + g1) * (-1.0f / 6);
    u[3] = (ends - g1) * (-1.0f / 6);
    u[4] = (far + 2.0f * g1) * (1.0f / 24);
    u[5] = (far - 2.0f * g1) * (1.0f / 24);
}

/* The 12 points of a pair of rows of one tile of one block of channels: v[point * v_p]. */
INLINE void winograd_pair_in(const int pair, const float *x, int64_t x_h, float *v, int64_t v_p) {
    vec t[2][6], d[6], out[2];
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) {
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++) d[i] = vload(x + i * x_h + j * VW);
        winograd_input(pair, out, d[0], d[1], d[2], d[3], d[4], d[5]);
        t[0][j] = out[0], t[1][j] = out[1];
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
#pragma GCC unroll 3
        for (int column = 0; column < 3; column++, v += 2 * v_p) {
            winograd_input(column, out, t[i][0], t[i][1], t[i][2], t[i][3], t[i][4], t[i][5]);
            vstore(v, out[0]);
            vstore(v + v_p, out[1]);
        }
}

NOINLINE void winograd_tile_in(int pair, const float *x, int64_t x_h, float *v, int64_t v_p) {
    if (pair == 0) winograd_pair_in(0, x, x_h, v, v_p);
    if (pair == 1) winograd_pair_in(1, x, x_h, v, v_p);
    if (pair == 2) winograd_pair_in(2, x, x_h, v, v_p);
}

typedef struct {
    int64_t n, row, col, high, wide; /* image, the tile's place in it in tiles, and its tiles */
} winograd_place;

INLINE winograd_place winograd_at(int64_t tile, int64_t oh, int64_t ow) {
    int64_t high = (oh + 3) / 4, wide = (ow + 3) / 4;
    return (winograd_place){tile / (high * wide), tile / wide % high, tile % wide, high, wide};
}

INLINE void winograd_next(winograd_place *at) {
    if (++at->col < at->wide) return;
    at->col = 0;
    if (++at->row < at->high) return;
    at->row = 0, at->n++;
}

/* What is cut into tiles: an image's first window and what lies around it, pixels VW apart. */
typedef struct {
    const float *x;
    int64_t x_n, x_c, x_h, oh, ow, blocks;
} winograd_source;

/* The points of pairs [from, to) of tiles [first, first + count): v[point * v_p + block * v_block + tile * v_tile]. */
static void winograd_points(winograd_source s, int from, int to, int64_t first, int64_t count, float *v, int64_t v_p,
                            int64_t v_block, int64_t v_tile) {
    for (int64_t block = 0; block < s.blocks; block++) {
        winograd_place at = winograd_at(first, s.oh, s.ow);
        for (int64_t tile = 0; tile < count; tile++, winograd_next(&at)) {
            const float *x = s.x + at.n * s.x_n + block * s.x_c + 4 * at.row * s.x_h + 4 * at.col * VW;
            int64_t x_h = s.x_h, rows = s.oh + 2 - 4 * at.row,
                    cols = s.ow + 2 - 4 * at.col; /* what x has from here on */
            float edge[6][6][VW];
            if (rows < 6 || cols < 6) {
                for (int64_t i = 0; i < 6; i++)
                    for (int64_t j = 0; j < 6; j++)
                        vstore(edge[i][j], i < rows && j < cols ? vload(x + i * x_h + j * VW) : (vec){0});
                x = edge[0][0], x_h = 6 * VW;
            }
            for (int pair = from; pair < to; pair++)
                winograd_tile_in(pair, x, x_h, v + (pair - from) * PAIR_POINTS * v_p + block * v_block + tile * v_tile,
                                 v_p);
        }
    }
}

/* Asks for the 4x4 pixels from p on, rows p_h apart. */
INLINE void winograd_ask(const float *p, int64_t p_h) {
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4 * VBYTES; j += 64) __builtin_prefetch((const char *)(p + i * p_h) + j);
}

/* One tile of one block of outputs from m[point * m_p]. */
NOINLINE void winograd_tile_out(const fc_winograd_args *a, winograd_place at, int64_t block, const float *p,
                                int64_t m_p) {
    vec b = a->bias ? vload(a->bias + block * VW) : (vec){0};
    const float *mask = a->mask ? a->mask + at.n * a->m_n + block * a->m_c + 4 * at.row * a->m_h + 4 * at.col * VW : 0;
    const float *add = a->add ? a->add + at.n * a->r_n + block * a->r_c + 4 * at.row * a->r_h + 4 * at.col * VW : 0;
    if (mask) winograd_ask(mask + 8 * VW, a->m_h); /* of the tile after the next one */
    if (add) winograd_ask(add + 8 * VW, a->r_h);
    vec t[4][6], y[4];
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) {
        vec column[4];
        winograd_output(column, vload(p + j * m_p), vload(p + (6 + j) * m_p), vload(p + (12 + j) * m_p),
                        vload(p + (18 + j) * m_p), vload(p + (24 + j) * m_p), vload(p + (30 + j) * m_p));
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) t[i][j] = column[i];
    }
    int64_t rows = a->oh - 4 * at.row, cols = a->ow - 4 * at.col;
    float *to = a->y + at.n * a->y_n + block * a->y_c + 4 * at.row * a->y_h + 4 * at.col * VW;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        if (i >= rows) break;
        winograd_output(y, t[i][0], t[i][1], t[i][2], t[i][3], t[i][4], t[i][5]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            if (j >= cols) break;
            vec value = y[j] + b;
            if (add) value += vload(add + i * a->r_h + j * VW);
            if (a->act) value = vrelu(value);
            if (mask) value = vmask(value, vload(mask + i * a->m_h + j * VW));
            vstore(to + i * a->y_h + j * VW, value);
        }
    }
}

/* Tiles [first, first + count) of a panel of outputs from m[point * m_p + tile * nv * VW + output]. */
static void winograd_outputs(const fc_winograd_args *a, int64_t first, int64_t count, int64_t panel, const float *m,
                             int64_t m_p) {
    int64_t begin = panel * a->nv, end = begin + a->nv < a->outs ? begin + a->nv : a->outs;
    winograd_place at = winograd_at(first, a->oh, a->ow);
    for (int64_t tile = 0; tile < count; tile++, winograd_next(&at))
        for (int64_t block = begin; block < end; block++)
            winograd_tile_out(a, at, block, m + (tile * a->nv + block - begin) * VW, m_p);
}

/* The register tiles of the product: those of conv_lanes_c, which fetch the next panel of weights meanwhile. */
#define WINOGRAD_TILE(nb, m)                                                                                \
    static void winograd_##nb##_##m(const fc_conv_lanes_c_args *a, const conv_c_slab *slab, const float *x, \
                                    const float *add, const float *mask, float *y) {                        \
        conv_c_body(nb, m, 1, a, slab, x, add, mask, y);                                                    \
    }
#define WINOGRAD_ENTRY(nb, m) TILE_ENTRY(winograd, nb, m)
TILES_OF(WINOGRAD_TILE, 1) TILES_OF(WINOGRAD_TILE, 2)
static const conv_c_tile winograd_tiles[TILE_NV][TILE_MAX] = {TILES_OF(WINOGRAD_ENTRY, 1) TILES_OF(WINOGRAD_ENTRY, 2)};

/* The 36 products of `count` tiles with panels [begin, end): m[point * m_p + (panel * tiles + tile) * width + output]. */
static void winograd_product(const fc_winograd_args *a, int64_t count, int64_t begin, int64_t end, const float *v,
                             int64_t v_p, float *m, int64_t m_p) {
    const int64_t width = a->nv * VW, panel_size = a->blocks * VW * width;
    fc_conv_lanes_c_args product = {.x_w = VW, .run_len = VW, .nv = a->nv, .y_w = width, .y_c = VW};
    for (int64_t p = 0; p < POINTS; p++)
        for (int64_t panel = begin; panel < end; panel++) {
            int64_t nb = a->outs - panel * a->nv < a->nv ? a->outs - panel * a->nv : a->nv;
            int64_t parts = (count + tile_rows(nb) - 1) / tile_rows(nb), rows = count / parts, longer = count % parts;
            const float *u = a->u + p * a->u_p + panel * panel_size;
            const float *next = panel + 1 < end ? u + panel_size : a->u + (p + 1) * a->u_p + begin * panel_size;
            conv_c_slab slab = {.runs = a->runs, .runs_end = a->runs + a->blocks, .first = 1, .last = 1, .w = u};
            for (int64_t part = 0, at = 0; part < parts; part++) {
                int64_t height = rows + (part < longer);
                slab.ahead = next + 16 * part * a->blocks;
                winograd_tiles[nb - 1][height - 1](&product, &slab, v + p * v_p + at * VW, 0, 0,
                                                 m + p * m_p + (panel * a->tiles + at) * width);
                at += height;
            }
        }
}

FC_DEFINE(winograd) {
    int64_t total = a->n * ((a->oh + 3) / 4) * ((a->ow + 3) / 4), width = a->nv * VW, lo, hi;
    int64_t v_p = a->blocks * a->tiles * VW + 16, m_p = a->npanels * a->tiles * width + 16;
    float *v = a->scratch + ith * a->scratch_size, *m = v + POINTS * v_p;
    winograd_source source = {a->x, a->x_n, a->x_c, a->x_h, a->oh, a->ow, a->blocks};
    share((total + a->tiles - 1) / a->tiles * a->npanels, ith, nth, &lo, &hi);
    for (int64_t unit = lo; unit < hi;) {
        int64_t first = unit / a->npanels * a->tiles, begin = unit % a->npanels;
        int64_t end = begin + hi - unit < a->npanels ? begin + hi - unit : a->npanels;
        int64_t count = first + a->tiles <= total ? a->tiles : total - first;
        winograd_points(source, 0, 3, first, count, v, v_p, a->tiles * VW, VW);
        winograd_product(a, count, begin, end, v, v_p, m, m_p);
        for (int64_t panel = begin; panel < end; panel++)
            winograd_outputs(a, first, count, panel, m + panel * a->tiles * width, m_p);
        unit += end - begin;
    }
}

FC_DEFINE(winograd_weights) {
    int64_t width = a->nv * VW, lo, hi;
    share(a->npanels * a->k, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t panel = item / a->k, r = item % a->k;
        for (int64_t b = 0; b < a->nv; b++) {
            int64_t lane = panel * width + b * VW, lanes = r < a->red ? a->lanes - lane : 0, offset[VW];
            ivec keep;
            for (int64_t l = 0; l < VW; l++) keep[l] = l < lanes ? -1 : 0, offset[l] = l < lanes ? l * a->s_lane : 0;
            float taps[9][VW], *u = a->u + item * width + b * VW;
            rows_to_lanes(lanes > 0 ? a->w + r * a->s_red + lane * a->s_lane : a->w, offset, keep, taps[0], VW, 9);
            vec t[6][3], out[6];
#pragma GCC unroll 3
            for (int j = 0; j < 3; j++) {
                vec column[6];
                int at = a->flip ? 8 - j : j, row = a->flip ? -3 : 3;
                winograd_weight(column, vload(taps[at]), vload(taps[at + row]), vload(taps[at + 2 * row]));
#pragma GCC unroll 6
                for (int i = 0; i < 6; i++) t[i][j] = column[i];
            }
#pragma GCC unroll 6
            for (int i = 0; i < 6; i++) {
                winograd_weight(out, t[i][0], t[i][1], t[i][2]);
#pragma GCC unroll 6
                for (int j = 0; j < 6; j++) vstore(u + (6 * i + j) * a->u_p, out[j]);
            }
        }
    }
}

/* The weight gradient by F(3x3, 4x4): the same points of x with those of 4x4 tiles of dy, summed over all tiles. */

/* A pair of points of one dimension of the output gradient's transform. */
INLINE void winograd_gradient(int pair, vec *u, vec g0, vec g1, vec g2, vec g3) {
    vec even = pair == 1 ? g0 + g2 : g0 + 4.0f * g2, odd = pair == 1 ? g1 + g3 : 2.0f * g1 + 8.0f * g3;
    float scale = pair == 1 ? -1.0f / 6 : 1.0f / 24;
    u[0] = (even + odd) * scale;
    u[1] = (even - odd) * scale;
    if (pair == 0) u[0] = 0.25f * g0, u[1] = g3;
}

/* As winograd_pair_in, of a tile of dy that has rows x cols pixels. */
INLINE void winograd_pair_dy(const int pair, const float *dy, int64_t y_h, int64_t rows, int64_t cols, float *v,
                             int64_t v_p) {
    vec t[2][4], g[4], out[2];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) g[i] = i < rows && j < cols ? vload(dy + i * y_h + j * VW) : (vec){0};
        winograd_gradient(pair, out, g[0], g[1], g[2], g[3]);
        t[0][j] = out[0], t[1][j] = out[1];
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
#pragma GCC unroll 3
        for (int column = 0; column < 3; column++, v += 2 * v_p) {
            winograd_gradient(column, out, t[i][0], t[i][1], t[i][2], t[i][3]);
            vstore(v, out[0]);
            vstore(v + v_p, out[1]);
        }
}

NOINLINE void winograd_tile_dy(int pair, const float *dy, int64_t y_h, int64_t rows, int64_t cols, float *v,
                               int64_t v_p) {
    if (pair == 0) winograd_pair_dy(0, dy, y_h, rows, cols, v, v_p);
    if (pair == 1) winograd_pair_dy(1, dy, y_h, rows, cols, v, v_p);
    if (pair == 2) winograd_pair_dy(2, dy, y_h, rows, cols, v, v_p);
}

/* The points of a pair of dy's tiles [first, first + count), blocks [begin, end): v[point * v_p + tile * v_tile + block * VW]. */
static void winograd_dy_points(const fc_winograd_wgrad_args *a, int pair, int64_t first, int64_t count, int64_t begin,
                               int64_t end, float *v, int64_t v_p, int64_t v_tile) {
    for (int64_t block = begin; block < end; block++) {
        winograd_place at = winograd_at(first, a->oh, a->ow);
        for (int64_t tile = 0; tile < count; tile++, winograd_next(&at))
            winograd_tile_dy(pair, a->dy + at.n * a->y_n + block * a->y_c + 4 * at.row * a->y_h + 4 * at.col * VW,
                             a->y_h, a->oh - 4 * at.row, a->ow - 4 * at.col, v + tile * v_tile + (block - begin) * VW,
                             v_p);
    }
}

/* The points of a pair, over the tiles of a slot, with panels [begin, end). */
static void winograd_wgrad_unit(const fc_winograd_wgrad_args *a, int64_t slot, int pair, int64_t begin, int64_t end,
                                float *v) {
    int64_t total = a->n * ((a->oh + 3) / 4) * ((a->ow + 3) / 4), k = a->blocks * VW, width = a->nv * VW;
    int64_t last = total * (slot + 1) / a->slots, blocks = a->outs < end * a->nv ? a->outs : end * a->nv;
    int64_t v_tile = k + 16, v_p = a->tiles * v_tile, d_tile = (end - begin) * width + 16, d_p = a->tiles * d_tile;
    float *d = v + PAIR_POINTS * v_p;
    winograd_source source = {a->x, a->x_n, a->x_c, a->x_h, a->oh, a->ow, a->blocks};
    for (int64_t first = total * slot / a->slots, fresh = 1; first < last; first += a->tiles, fresh = 0) {
        int64_t count = last - first < a->tiles ? last - first : a->tiles;
        winograd_points(source, pair, pair + 1, first, count, v, v_p, VW, v_tile);
        winograd_dy_points(a, pair, first, count, begin * a->nv, blocks, d, d_p, d_tile);
        fc_wgrad_lanes_c_args product = {.x_w = v_tile, .y_w = d_tile, .y_c = VW, .nv = a->nv, .ow = count};
        for (int64_t p = 0; p < PAIR_POINTS; p++)
            for (int64_t panel = begin; panel < end; panel++) {
                int64_t nb = a->outs - panel * a->nv < a->nv ? a->outs - panel * a->nv : a->nv;
                int64_t parts = (k + tile_rows(nb) - 1) / tile_rows(nb), rows = k / parts, longer = k % parts;
                float *u = a->u + (((slot * POINTS + pair * PAIR_POINTS + p) * a->npanels + panel) * k) * width;
                for (int64_t part = 0, at = 0; part < parts; part++) {
                    int64_t height = rows + (part < longer);
                    wgrad_c_tiles[nb - 1][height - 1](&product, v + p * v_p + at, d + p * d_p + (panel - begin) * width,
                                                      u + at * width, 1, fresh);
                    at += height;
                }
            }
    }
}

FC_DEFINE(winograd_wgrad) {
    int64_t lo, hi, panels = a->npanels;
    share(a->slots * 3 * panels, ith, nth, &lo, &hi);
    for (int64_t unit = lo; unit < hi;) {
        int64_t pair = unit / panels, begin = unit % panels,
                end = begin + hi - unit < panels ? begin + hi - unit : panels;
        winograd_wgrad_unit(a, pair / 3, pair % 3, begin, end, a->scratch + ith * a->scratch_size);
        unit += end - begin;
    }
}

/* One dimension of the weight gradient's way back. */
INLINE void winograd_taps(vec *w, vec m0, vec m5, vec m1, vec m2, vec m3, vec m4) {
    vec s = m1 + m2, s2 = m3 + m4;
    w[0] = m0 + s + s2;
    w[1] = (m1 - m2) + 2.0f * (m3 - m4);
    w[2] = s + 4.0f * s2 + m5;
}

FC_DEFINE(winograd_unpack) {
    int64_t width = a->nv * VW, u_p = a->npanels * a->k * width, lo, hi;
    share(a->npanels * a->red, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t panel = item / a->red, r = item % a->red;
        for (int64_t b = 0; b < a->nv; b++) {
            int64_t lane = panel * width + b * VW, lanes = a->lanes - lane;
            if (lanes <= 0) break;
            const float *u = a->u + (panel * a->k + r) * width + b * VW;
            vec t[3][6];
#pragma GCC unroll 6
            for (int j = 0; j < 6; j++) {
                vec m[6], column[3];
#pragma GCC unroll 6
                for (int i = 0; i < 6; i++) {
                    m[i] = vload(u + (6 * i + j) * u_p);
                    for (int64_t slot = 1; slot < a->slots; slot++)
                        m[i] += vload(u + (slot * POINTS + 6 * i + j) * u_p);
                }
                winograd_taps(column, m[0], m[1], m[2], m[3], m[4], m[5]);
#pragma GCC unroll 3
                for (int i = 0; i < 3; i++) t[i][j] = column[i];
            }
            float taps[9][VW];
#pragma GCC unroll 3
            for (int i = 0; i < 3; i++) {
                vec row[3];
                winograd_taps(row, t[i][0], t[i][1], t[i][2], t[i][3], t[i][4], t[i][5]);
#pragma GCC unroll 3
                for (int j = 0; j < 3; j++) vstore(taps[3 * i + j], row[j]);
            }
            int64_t offset[VW];
            for (int64_t l = 0; l < VW; l++) offset[l] = l * a->red * 9;
            lanes_to_rows(taps[0], VW, a->dw + (lane * a->red + r) * 9, offset, (int)(lanes < VW ? lanes : VW), 9);
        }
    }
}
