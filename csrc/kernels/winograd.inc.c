/* Convolution by Winograd's algorithm, channels in the lanes: tiles of 6x6 inputs become 36 points (winograd.h), the points
 * of many tiles are multiplied with the weights' as 36 matrices, and tiles of m x m outputs come back: F(4x4, 3x3) and
 * F(2x2, 5x5). conv_lanes_c.inc.c has the register tile of the product. */
#include "winograd.h"

typedef struct {
    int64_t n, row, col, high, wide; /* image, the tile's place in it in tiles, and its tiles */
} winograd_place;

/* Tiles along so many outputs. */
INLINE int64_t winograd_along(int64_t outputs, int64_t r) { return (outputs + winograd_step(r) - 1) / winograd_step(r); }

INLINE winograd_place winograd_at(int64_t tile, int64_t oh, int64_t ow, int64_t r) {
    int64_t high = winograd_along(oh, r), wide = winograd_along(ow, r);
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
    int64_t x_n, x_c, x_h, oh, ow, r, blocks;
} winograd_source;

/* The points of pairs [from, to) of tiles [first, first + count): v[point * v_p + block * v_block + tile * v_tile]. */
static void winograd_points(winograd_source s, int from, int to, int64_t first, int64_t count, float *v, int64_t v_p,
                            int64_t v_block, int64_t v_tile) {
    int64_t step = winograd_step(s.r);
    for (int64_t block = 0; block < s.blocks; block++) {
        winograd_place at = winograd_at(first, s.oh, s.ow, s.r);
        for (int64_t tile = 0; tile < count; tile++, winograd_next(&at)) {
            const float *x = s.x + at.n * s.x_n + block * s.x_c + step * (at.row * s.x_h + at.col * VW);
            int64_t x_h = s.x_h, rows = s.oh + s.r - 1 - step * at.row,
                    cols = s.ow + s.r - 1 - step * at.col; /* what x has from here on */
            float edge[SIDE][SIDE][VW];
            if (rows < SIDE || cols < SIDE) {
                for (int64_t i = 0; i < SIDE; i++)
                    for (int64_t j = 0; j < SIDE; j++)
                        vstore(edge[i][j], i < rows && j < cols ? vload(x + i * x_h + j * VW) : (vec){0});
                x = edge[0][0], x_h = SIDE * VW;
            }
            for (int pair = from; pair < to; pair++)
                winograd_tile_in(pair, x, x_h, v + (pair - from) * PAIR_POINTS * v_p + block * v_block + tile * v_tile,
                                 v_p);
        }
    }
}

/* Asks for the m x m pixels from p on, rows p_h apart. */
INLINE void winograd_ask(const int m, const float *p, int64_t p_h) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m * VBYTES; j += 64) __builtin_prefetch((const char *)(p + i * p_h) + j);
}

/* The maxima of a row of windows of 2x2 of two rows of outputs, and, with taps, where they are: as max_pool's. */
INLINE void winograd_pool(const int m, const vec *above, const vec *below, int64_t cols, float *y, uint8_t *taps) {
#pragma GCC unroll 2
    for (int j = 0; j < m; j += 2) {
        if (j + 1 >= cols) break;
        vec best = above[j];
        if (taps) {
            ivec where = {0};
            vmax_where(&best, &where, above[j + 1], iset(1));
            vmax_where(&best, &where, below[j], iset(2));
            vmax_where(&best, &where, below[j + 1], iset(3));
            bstore(taps + j / 2 * VW, where);
        } else {
            best = vmax(below[j + 1], vmax(below[j], vmax(above[j + 1], best)));
        }
        vstore(y + j / 2 * VW, best);
    }
}

/* One tile of one block of outputs, or of the maxima of its 2x2 windows, from p[point * m_p]. */
INLINE void winograd_out_body(const int m, const int pool, const fc_winograd_args *a, winograd_place at, int64_t block,
                              const float *p, int64_t m_p) {
    const int64_t row = m * at.row, col = m * at.col, shrink = pool ? 2 : 1;
    vec b = a->bias ? vload(a->bias + block * VW) : (vec){0};
    const float *mask = a->mask ? a->mask + at.n * a->m_n + block * a->m_c + row * a->m_h + col * VW : 0;
    const float *add = a->add ? a->add + at.n * a->r_n + block * a->r_c + row * a->r_h + col * VW : 0;
    if (mask) winograd_ask(m, mask + 2 * m * VW, a->m_h); /* of the tile after the next one */
    if (add) winograd_ask(m, add + 2 * m * VW, a->r_h);
    vec t[4][SIDE], y[2][4];
#pragma GCC unroll 6
    for (int j = 0; j < SIDE; j++) {
        vec points[SIDE];
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++) points[i] = vload(p + (SIDE * i + j) * m_p);
        winograd_to_taps(m, y[0], points);
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) t[i][j] = y[0][i];
    }
    int64_t rows = a->oh - row, cols = a->ow - col;
    float *to = a->y + at.n * a->y_n + block * a->y_c + row / shrink * a->y_h + col / shrink * VW;
    const int64_t taps_h = a->ow / 2 * VW;
    uint8_t *taps = pool && a->taps ? a->taps + ((at.n * a->outs + block) * (a->oh / 2) + row / 2) * taps_h + col / 2 * VW : 0;
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        if (i >= rows) break;
        winograd_to_taps(m, y[i % 2], t[i]);
#pragma GCC unroll 4
        for (int j = 0; j < m; j++) {
            if (j >= cols) break;
            vec value = y[i % 2][j] + b;
            if (add) value += vload(add + i * a->r_h + j * VW);
            if (a->act) value = vrelu(value);
            if (mask) value = vmask(value, vload(mask + i * a->m_h + j * VW));
            y[i % 2][j] = value;
            if (!pool) vstore(to + i * a->y_h + j * VW, value);
        }
        if (pool && i % 2) winograd_pool(m, y[0], y[1], cols, to + i / 2 * a->y_h, taps ? taps + i / 2 * taps_h : 0);
    }
}

#define WINOGRAD_TILE_OUT(r)                                                                                     \
    NOINLINE void winograd_tile_out_##r(const fc_winograd_args *a, winograd_place at, int64_t block, const float *p, \
                                        int64_t m_p) {                                                           \
        winograd_out_body(SIDE + 1 - r, 0, a, at, block, p, m_p);                                                \
    }                                                                                                            \
    NOINLINE void winograd_tile_pooled_##r(const fc_winograd_args *a, winograd_place at, int64_t block,          \
                                           const float *p, int64_t m_p) {                                        \
        winograd_out_body(SIDE + 1 - r, 1, a, at, block, p, m_p);                                                \
    }
WINOGRAD_TILE_OUT(3)
WINOGRAD_TILE_OUT(5)

typedef void (*winograd_tile_out)(const fc_winograd_args *a, winograd_place at, int64_t block, const float *p, int64_t m_p);

/* Tiles [first, first + count) of a panel of outputs from m[point * m_p + tile * nv * VW + output]. */
static void winograd_outputs(const fc_winograd_args *a, int64_t first, int64_t count, int64_t panel, const float *m,
                             int64_t m_p) {
    int64_t begin = panel * a->nv, end = begin + a->nv < a->outs ? begin + a->nv : a->outs;
    winograd_place at = winograd_at(first, a->oh, a->ow, a->r);
    const winograd_tile_out whole = a->r == 3 ? winograd_tile_out_3 : winograd_tile_out_5;
    const winograd_tile_out out = !a->pool ? whole : a->r == 3 ? winograd_tile_pooled_3 : winograd_tile_pooled_5;
    for (int64_t tile = 0; tile < count; tile++, winograd_next(&at))
        for (int64_t block = begin; block < end; block++) out(a, at, block, m + (tile * a->nv + block - begin) * VW, m_p);
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
    int64_t total = a->n * winograd_along(a->oh, a->r) * winograd_along(a->ow, a->r), width = a->nv * VW, lo, hi;
    int64_t v_p = a->blocks * a->tiles * VW + 16, m_p = a->npanels * a->tiles * width + 16;
    float *v = a->scratch + ith * a->scratch_size, *m = v + POINTS * v_p;
    winograd_source source = {a->x, a->x_n, a->x_c, a->x_h, a->oh, a->ow, a->r, a->blocks};
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
        int64_t panel = item / a->k, red = item % a->k;
        for (int64_t b = 0; b < a->nv; b++) {
            int64_t lane = panel * width + b * VW, lanes = red < a->red ? a->lanes - lane : 0, offset[VW];
            ivec keep;
            for (int64_t l = 0; l < VW; l++) keep[l] = l < lanes ? -1 : 0, offset[l] = l < lanes ? l * a->s_lane : 0;
            float taps[25 * VW], *u = a->u + item * width + b * VW;
            rows_to_lanes(lanes > 0 ? a->w + red * a->s_red + lane * a->s_lane : a->w, offset, keep, taps, VW,
                          a->r * a->r);
            if (a->r == 3)
                winograd_tile_weights(3, taps, (int)a->flip, u, a->u_p);
            else
                winograd_tile_weights(5, taps, (int)a->flip, u, a->u_p);
        }
    }
}

/* The weight gradient by F(r x r, m x m): the same points of x with those of m x m tiles of dy, summed over all tiles. */

/* The points of a pair of dy's tiles [first, first + count), blocks [begin, end): v[point * v_p + tile * v_tile + block * VW]. */
static void winograd_dy_points(const fc_winograd_wgrad_args *a, int pair, int64_t first, int64_t count, int64_t begin,
                               int64_t end, float *v, int64_t v_p, int64_t v_tile) {
    int64_t step = winograd_step(a->r);
    for (int64_t block = begin; block < end; block++) {
        winograd_place at = winograd_at(first, a->oh, a->ow, a->r);
        for (int64_t tile = 0; tile < count; tile++, winograd_next(&at))
            (a->r == 3 ? winograd_tile_dy_3 : winograd_tile_dy_5)(
                pair, a->dy + at.n * a->y_n + block * a->y_c + step * (at.row * a->y_h + at.col * VW), a->y_h,
                a->oh - step * at.row, a->ow - step * at.col, v + tile * v_tile + (block - begin) * VW, v_p);
    }
}

/* The points of a pair, over the tiles of a slot, with panels [begin, end). */
static void winograd_wgrad_unit(const fc_winograd_wgrad_args *a, int64_t slot, int pair, int64_t begin, int64_t end,
                                float *v) {
    int64_t total = a->n * winograd_along(a->oh, a->r) * winograd_along(a->ow, a->r);
    int64_t k = a->blocks * VW, width = a->nv * VW;
    int64_t last = total * (slot + 1) / a->slots, blocks = a->outs < end * a->nv ? a->outs : end * a->nv;
    int64_t v_tile = k + 16, v_p = a->tiles * v_tile, d_tile = (end - begin) * width + 16, d_p = a->tiles * d_tile;
    float *d = v + PAIR_POINTS * v_p;
    winograd_source source = {a->x, a->x_n, a->x_c, a->x_h, a->oh, a->ow, a->r, a->blocks};
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
                                                      u + at * width, 1, 0, fresh);
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

FC_DEFINE(winograd_unpack) {
    int64_t width = a->nv * VW, u_p = a->npanels * a->k * width, area = a->r * a->r, lo, hi;
    share(a->npanels * a->red, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t panel = item / a->red, red = item % a->red;
        for (int64_t b = 0; b < a->nv; b++) {
            int64_t lane = panel * width + b * VW, lanes = a->lanes - lane, offset[VW];
            if (lanes <= 0) break;
            const float *u = a->u + (panel * a->k + red) * width + b * VW;
            float taps[25 * VW];
            if (a->r == 3)
                winograd_tile_taps(3, u, u_p, a->slots, taps);
            else
                winograd_tile_taps(5, u, u_p, a->slots, taps);
            for (int64_t l = 0; l < VW; l++) offset[l] = l * a->red * area;
            lanes_to_rows(taps, VW, a->dw + (lane * a->red + red) * area, offset, (int)(lanes < VW ? lanes : VW), area);
        }
    }
}
