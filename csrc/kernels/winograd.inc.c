/* Convolution by Winograd's algorithm, channels in the lanes: tiles of side x side inputs become as many points
 * (winograd.h), the points of many tiles are multiplied with the weights' as so many matrices, and tiles of m x m outputs
 * come back: F(2x2, 3x3) of side 4, F(5x5, 2x2), F(4x4, 3x3) and F(2x2, 5x5) of side 6, F(7x7, 3x3), F(6x6, 4x4) and
 * F(5x5, 5x5) of side 9. A convolution of
 * stride 2 is the sum of four of stride 1, each of one phase of its input - every second pixel of every second row - with
 * every second tap; its data gradient has the four phases of dx as outputs. conv_lanes_c.inc.c has the register tile of
 * the product. */
#include "winograd.h"

/* A part of the tiles of all images, which are of four kinds: cut at the right edge, whole, cut at the lower edge, cut at both.
 * In this order, those that have a certain point (a cut tile has but the first ones) lie side by side. */
enum { WHOLE = 1, KINDS = 4 };

typedef struct {
    int64_t side, r, high, wide; /* whole tiles of an image */
    int64_t rows[2], cols[2];    /* outputs of a tile: of a whole one, of one that is cut (or 0) */
    int64_t first[KINDS];        /* the part's first of each kind */
    int64_t start[KINDS + 1];    /* and its place in the part */
    winograd_map map[3];         /* of side 9: of whole tiles' inputs a side, of cut rows, of cut columns */
} winograd_part;

INLINE int cuts_rows(int64_t kind) { return kind >= 2; }
INLINE int cuts_cols(int64_t kind) { return kind % 3 == 0; }

static winograd_part winograd_cut(int64_t n, int64_t oh, int64_t ow, int64_t side, int64_t r, int64_t part,
                                  int64_t parts) {
    const int64_t m = winograd_step(side, r);
    winograd_part p = {.side = side, .r = r, .high = oh / m, .wide = ow / m, .rows = {m, oh % m}, .cols = {m, ow % m}};
    for (int kind = 0; kind < KINDS; kind++) {
        int64_t total = n * (cuts_rows(kind) ? p.rows[1] > 0 : p.high) * (cuts_cols(kind) ? p.cols[1] > 0 : p.wide);
        p.first[kind] = total * part / parts;
        p.start[kind + 1] = p.start[kind] + total * (part + 1) / parts - p.first[kind];
    }
    if (side == 9 && p.rows[1] + p.cols[1] > 0) {
        winograd_map_of(side, p.map[0]);
        winograd_map_of(p.rows[1] + r - 1, p.map[1]);
        winograd_map_of(p.cols[1] + r - 1, p.map[2]);
    }
    return p;
}

/* Which of the tiles [first, first + count) of a part have a point: [*lo, *hi), counted from the first. */
INLINE void winograd_having(const winograd_part *p, int64_t point, int64_t first, int64_t count, int64_t *lo,
                            int64_t *hi) {
    const int below = point / p->side >= p->rows[1] + p->r - 1, right = point % p->side >= p->cols[1] + p->r - 1;
    int64_t from = (right ? p->start[WHOLE] : 0) - first, to = p->start[below ? 2 : right ? 3 : KINDS] - first;
    *lo = from > 0 ? from : 0;
    *hi = to < count ? to : count;
}

typedef struct {
    int64_t tile, kind, n, row, col, rows, cols; /* its number in the part, image, place there in tiles, and outputs */
} winograd_place;

static winograd_place winograd_at(const winograd_part *p, int64_t tile) {
    winograd_place at = {.tile = tile};
    while (at.kind < KINDS - 1 && tile >= p->start[at.kind + 1]) at.kind++;
    const int below = cuts_rows(at.kind), right = cuts_cols(at.kind);
    const int64_t high = below ? 1 : p->high, wide = right ? 1 : p->wide,
                  i = p->first[at.kind] + tile - p->start[at.kind];
    at.n = i / (high * wide);
    at.row = below ? p->high : i / wide % high;
    at.col = right ? p->wide : i % wide;
    at.rows = p->rows[below], at.cols = p->cols[right];
    return at;
}

INLINE void winograd_next(const winograd_part *p, winograd_place *at) {
    if (++at->tile >= p->start[at->kind + 1]) {
        if (at->tile < p->start[KINDS]) *at = winograd_at(p, at->tile);
        return;
    }
    if (++at->col < p->wide) return;
    at->col = cuts_cols(at->kind) ? p->wide : 0;
    if (++at->row < p->high) return;
    at->row = cuts_rows(at->kind) ? p->high : 0;
    at->n++;
}

/* What is cut into tiles: an image's first window and what lies around it, in apart * apart phases of `blocks` blocks. */
typedef struct {
    const float *x;
    int64_t x_n, x_c, x_h, apart, blocks;
    const int64_t *phases; /* [apart * apart][2]: row and column of a phase's first pixel */
} winograd_source;

/* Those of what has one phase or, of the same convolution, all of them. */
INLINE const int64_t *winograd_phases(int64_t apart, const int64_t *phases) {
    static const int64_t one[2] = {0, 0};
    return apart > 1 ? phases : one;
}

/* The points of pairs [from, to) of a part's tiles [first, first + count): v[point * v_p + block * v_block + tile * v_tile], block
 * by block of each phase. */
static void winograd_points(winograd_source s, const winograd_part *part, int from, int to, int64_t first,
                            int64_t count, float *v, int64_t v_p, int64_t v_block, int64_t v_tile) {
    const int64_t x_h = s.apart * s.x_h, x_w = s.apart * VW, step = winograd_step(part->side, part->r);
    const int64_t phases = s.apart * s.apart, pair_points = winograd_pair_points(part->side, 0);
    for (int64_t block = 0; block < s.blocks; block++) {
        winograd_place at = winograd_at(part, first);
        for (int64_t tile = 0; tile < count; tile++, winograd_next(part, &at)) {
            const float *begin = s.x + at.n * s.x_n + block * s.x_c + step * (at.row * x_h + at.col * x_w);
            const int rows = (int)(at.rows + part->r - 1), cols = (int)(at.cols + part->r - 1);
            for (int pair = from; pair < to; pair++) {
                if (to - from > 1 && s.apart == 1) {
                    /* What the next tile has beside, at 3 taps (of one pair alone, another has read it). Literals: loops
                     * of `step` took half of what this wins. */
                    const float *beside = begin + 2 * pair * s.x_h + part->side * VW;
                    if (part->side == 9)
                        ask_pixels(2, 7, beside, s.x_h);
                    else
                        ask_pixels(2, 4, beside, s.x_h);
                }
                float *to_v = v + (pair - from) * pair_points * v_p + block * v_block + tile * v_tile;
                for (int64_t phase = 0; phase < phases;
                     phase++, to_v += s.blocks * v_block) { /* they share lines of x */
                    const float *x = begin + s.phases[2 * phase] * s.x_h + s.phases[2 * phase + 1] * VW;
                    if (at.kind != WHOLE && part->side == 9)
                        winograd_mapped_in(pair, rows, cols, part->map[cuts_rows(at.kind)],
                                           part->map[2 * cuts_cols(at.kind)], x, x_h, to_v, v_p);
                    else if (at.kind != WHOLE && part->side == 4)
                        winograd_cut_in_4(pair, rows, cols, (int)x_w, x, x_h, to_v, v_p);
                    else if (at.kind != WHOLE)
                        winograd_cut_in_6(pair, rows, cols, (int)x_w, x, x_h, to_v, v_p);
                    else if (part->side == 9)
                        winograd_tile_in_9(pair, x, x_h, to_v, v_p);
                    else if (part->side == 4)
                        winograd_tile_in_4(pair, x, x_h, to_v, v_p);
                    else if (s.apart == 1)
                        winograd_tile_in_6(pair, x, x_h, to_v, v_p);
                    else
                        winograd_tile_in_apart(pair, x, x_h, to_v, v_p);
                }
            }
        }
    }
}

/* The maxima of a row of windows of 2x2 of two rows of outputs, and, with taps, where they are: as max_pool's. */
INLINE void winograd_pool(const int cols, const vec *above, const vec *below, float *y, uint8_t *taps) {
#pragma GCC unroll 2
    for (int j = 0; j < 4; j += 2) {
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

/* One tile of rows x cols outputs of a block of a phase, or of the maxima of their 2x2 windows, from p[point * m_p]. */
INLINE void winograd_out_body(const int side, const int r, const int rows, const int cols, const int apart,
                              const int pool, const fc_winograd_args *a, const winograd_place *at, const int64_t *phase,
                              int64_t block, const float *p, int64_t m_p) {
    const int m = side + 1 - r, row_points = rows + r - 1, col_points = cols + r - 1;
    const int64_t row = apart * m * at->row + phase[0], col = apart * m * at->col + phase[1];
    const int64_t shrink = pool ? 2 : 1, taps_h = a->ow / 2 * VW;
    vec b = a->bias ? vload(a->bias + block * VW) : (vec){0};
    const float *mask = a->mask ? a->mask + at->n * a->m_n + block * a->m_c + row * a->m_h + col * VW : 0;
    const float *add = a->add ? a->add + at->n * a->r_n + block * a->r_c + row * a->r_h + col * VW : 0;
    float *to = a->y + at->n * a->y_n + block * a->y_c + row / shrink * a->y_h + col / shrink * VW;
    const int64_t wide = apart * m; /* asked for: of the tile after the next one, and the next one's outputs */
    if (mask) ask_pixels(m, wide, mask + 2 * wide * VW, apart * a->m_h);
    if (add) ask_pixels(m, wide, add + 2 * wide * VW, apart * a->r_h);
    ask_pixels(m / shrink, wide / shrink, to + wide / shrink * VW, apart * a->y_h);
    vec t[TAPS_MOST][SIDE_MOST] = {{{0}}}, y[2][TAPS_MOST];
#pragma GCC unroll 9
    for (int j = 0; j < col_points; j++) {
        vec points[SIDE_MOST] = {{0}};
#pragma GCC unroll 9
        for (int i = 0; i < row_points; i++) points[i] = vload(p + (side * i + j) * m_p);
        winograd_to_taps(side, rows, row_points, y[0], points);
#pragma GCC unroll 7
        for (int i = 0; i < rows; i++) t[i][j] = y[0][i];
    }
    uint8_t *taps =
        pool && a->taps ? a->taps + ((at->n * a->outs + block) * (a->oh / 2) + row / 2) * taps_h + col / 2 * VW : 0;
#pragma GCC unroll 7
    for (int i = 0; i < rows; i++) {
        winograd_to_taps(side, cols, col_points, y[i % 2], t[i]);
#pragma GCC unroll 7
        for (int j = 0; j < cols; j++) {
            vec value = finished(y[i % 2][j] + b, add ? add + apart * (i * a->r_h + j * VW) : 0, a->act,
                                 mask ? mask + apart * (i * a->m_h + j * VW) : 0);
            y[i % 2][j] = value;
            if (!pool) vstore(to + apart * (i * a->y_h + j * VW), value);
        }
        if (pool && i % 2) winograd_pool(cols, y[0], y[1], to + i / 2 * a->y_h, taps ? taps + i / 2 * taps_h : 0);
    }
}

typedef void (*winograd_tile_out)(const fc_winograd_args *a, const winograd_place *at, const int64_t *phase,
                                  int64_t block, const float *p, int64_t m_p);

#define WINOGRAD_TILE_OUT(name, side, r, rows, cols, apart, pool)                                            \
    NOINLINE void winograd_##name(const fc_winograd_args *a, const winograd_place *at, const int64_t *phase, \
                                  int64_t block, const float *p, int64_t m_p) {                              \
        winograd_out_body(side, r, rows, cols, apart, pool, a, at, phase, block, p, m_p);                    \
    }
WINOGRAD_TILE_OUT(small_3, 4, 3, 2, 2, 1, 0)
WINOGRAD_TILE_OUT(small_cut, 4, (int)a->r, (int)at->rows, (int)at->cols, 1, 0)
WINOGRAD_TILE_OUT(out_2, 6, 2, 5, 5, 1, 0)
WINOGRAD_TILE_OUT(out_3, 6, 3, 4, 4, 1, 0)
WINOGRAD_TILE_OUT(out_5, 6, 5, 2, 2, 1, 0)
WINOGRAD_TILE_OUT(out_cut, 6, (int)a->r, (int)at->rows, (int)at->cols, 1, 0)
WINOGRAD_TILE_OUT(wide_3, 9, 3, 7, 7, 1, 0)
WINOGRAD_TILE_OUT(wide_4, 9, 4, 6, 6, 1, 0)
WINOGRAD_TILE_OUT(wide_5, 9, 5, 5, 5, 1, 0)
WINOGRAD_TILE_OUT(wide_cut, 9, (int)a->r, (int)at->rows, (int)at->cols, 1, 0)
WINOGRAD_TILE_OUT(apart_2, 6, 2, 5, 5, 2, 0)
WINOGRAD_TILE_OUT(apart_3, 6, 3, 4, 4, 2, 0)
WINOGRAD_TILE_OUT(apart_cut, 6, (int)a->r, (int)at->rows, (int)at->cols, 2, 0)
WINOGRAD_TILE_OUT(pooled_3, 6, 3, 4, 4, 1, 1)
WINOGRAD_TILE_OUT(pooled_5, 6, 5, 2, 2, 1, 1)
WINOGRAD_TILE_OUT(pooled_cut, 6, (int)a->r, (int)at->rows, (int)at->cols, 1, 1)

enum {
    SMALL,
    STORED,
    WIDE,
    APART,
    POOLED,
    STORES
}; /* what becomes of outputs, of side 4, 6 or 9; by r whole tiles, [0] cut ones */
static const winograd_tile_out winograd_tile_outs[STORES][6] = {
    [SMALL] = {[0] = winograd_small_cut, [3] = winograd_small_3},
    [STORED] = {[0] = winograd_out_cut, [2] = winograd_out_2, [3] = winograd_out_3, [5] = winograd_out_5},
    [WIDE] = {[0] = winograd_wide_cut, [3] = winograd_wide_3, [4] = winograd_wide_4, [5] = winograd_wide_5},
    [APART] = {[0] = winograd_apart_cut, [2] = winograd_apart_2, [3] = winograd_apart_3},
    [POOLED] = {[0] = winograd_pooled_cut, [3] = winograd_pooled_3, [5] = winograd_pooled_5},
};

/* A part's tiles of panels [begin, end) of as many phases of the same outputs, from m[point * m_p + (panel * tiles + tile) *
 * width + output]. */
static void winograd_outputs(const fc_winograd_args *a, const winograd_part *part, int64_t begin, int64_t end,
                             const float *m, int64_t m_p) {
    const winograd_tile_out *outs = winograd_tile_outs[a->pool          ? POOLED
                                                       : a->y_apart > 1 ? APART
                                                       : a->side == 9   ? WIDE
                                                       : a->side == 4   ? SMALL
                                                                        : STORED];
    const int64_t width = a->nv * VW, phases = a->y_apart * a->y_apart, first = begin / phases * a->nv;
    const int64_t last = first + a->nv < a->outs ? first + a->nv : a->outs;
    const int64_t *places = winograd_phases(a->y_apart, a->phases) + 2 * (begin % phases);
    winograd_place at = winograd_at(part, 0);
    for (; at.tile < part->start[KINDS]; winograd_next(part, &at))
        for (int64_t panel = begin; panel < end; panel++)
            for (int64_t block = first; block < last; block++)
                outs[at.kind == WHOLE ? a->r : 0](a, &at, places + 2 * (panel - begin), block,
                                                  m + (panel * a->tiles + at.tile) * width + (block - first) * VW, m_p);
}

/* The register tiles of the product: those of conv_lanes_c, which fetch the next panel of weights meanwhile. */
#define WINOGRAD_TILE(nb, m)                                                                                \
    static void winograd_##nb##_##m(const fc_conv_lanes_c_args *a, const conv_c_slab *slab, const float *x, \
                                    const float *add, const float *mask, float *y) {                        \
        conv_c_body(nb, m, 1, a, slab, x, add, mask, y);                                                    \
    }
#define WINOGRAD_ENTRY(nb, m) TILE_ENTRY(winograd, nb, m)
TILES_OF(WINOGRAD_TILE, 1)
TILES_OF(WINOGRAD_TILE, 2)
static const conv_c_tile winograd_tiles[TILE_NV][TILE_MAX] = {TILES_OF(WINOGRAD_ENTRY, 1) TILES_OF(WINOGRAD_ENTRY, 2)};

/* Channels that are summed at a time, the sums then added: at 512, half the error of one sum (8e-6 for 1.7e-5). */
#define SUMMED 128

/* Bytes of weights beyond which the whole next panel is asked for while one is used. Below, one line in many is enough for
 * the processor to see the stream (Zen 5: asking for all cost 3 % at 5 MB, and won 20 to 34 % from 12 MB on), unless the tiles
 * are so few that weights are what is read: one image of GoogLeNet's 3x3 layers @14 took 31 to 46 % less; a limit of 256 tiles
 * is the same, of 16 wins less. */
#define FAR_WEIGHTS(tiles) ((tiles) <= 64 ? 1 << 20 : 8 << 20)

/* The products of a part's tiles with panels [begin, end): m[point * m_p + (panel * tiles + tile) * width + output]. Of the
 * phases, of the input or of the outputs, only those count that have weights at a point. */
static void winograd_product(const fc_winograd_args *a, const winograd_part *tiles, int64_t begin, int64_t end,
                             const float *v, int64_t v_p, float *m, int64_t m_p) {
    const int64_t width = a->nv * VW, panel_size = a->x_apart * a->x_apart * a->blocks * VW * width;
    const int64_t phases = a->y_apart * a->y_apart;
    const int64_t summed = a->side == 9 ? SUMMED / VW : a->x_apart * a->x_apart * a->blocks;
    const int far = a->side * a->side * a->u_p * 4 > FAR_WEIGHTS(tiles->start[KINDS]);
    fc_conv_lanes_c_args product = {
        .x_w = VW, .run_len = VW, .nv = a->nv, .y_w = width, .y_c = VW, .r_w = width, .r_c = VW};
    for (int64_t p = 0; p < a->side * a->side; p++) {
        const int64_t *reach = a->reach + 2 * p, low = a->x_apart > 1 ? reach[0] * a->blocks : 0;
        const int64_t high = a->x_apart > 1 ? reach[1] * a->blocks : a->blocks;
        int64_t first, last;
        winograd_having(tiles, p, 0, tiles->start[KINDS], &first, &last);
        for (int64_t panel = begin; panel < end && first < last; panel++) {
            const int64_t out = panel / phases * a->nv, phase = panel % phases, count = last - first;
            float *to = m + p * m_p + (panel * a->tiles + first) * width;
            if (phases > 1 && (phase < reach[0] || phase >= reach[1])) {
                for (int64_t i = 0; i < count * width; i += VW) vstore(to + i, (vec){0});
                continue;
            }
            int64_t nb = a->outs - out < a->nv ? a->outs - out : a->nv;
            int64_t parts = (count + tile_rows(nb) - 1) / tile_rows(nb), rows = count / parts, longer = count % parts;
            const float *u = a->u + p * a->u_p + panel * panel_size;
            const float *next_panel = panel + 1 < end ? u + panel_size : a->u + (p + 1) * a->u_p + begin * panel_size;
            const float *next = next_panel + low * VW * width;
            const int64_t lines = far ? (VW * width / 16 + parts - 1) / parts : 1;
            for (int64_t from = low; from < high; from += summed) {
                const int64_t end_of_sum = from + summed < high ? from + summed : high;
                conv_c_slab slab = {.runs = a->runs + from,
                                    .runs_end = a->runs + end_of_sum,
                                    .first = 1,
                                    .last = 1,
                                    .w = u + from * VW * width,
                                    .lines = lines};
                for (int64_t part = 0, at = 0; part < parts; part++) {
                    int64_t height = rows + (part < longer);
                    float *sums = to + at * width;
                    slab.ahead = next + 16 * lines * (part * (high - low) + from - low);
                    winograd_tiles[nb - 1][height - 1](&product, &slab, v + p * v_p + (first + at) * VW,
                                                       from > low ? sums : 0, 0, sums);
                    at += height;
                }
            }
        }
    }
}

FC_DEFINE(winograd) {
    int64_t width = a->nv * VW, v_p = a->x_apart * a->x_apart * a->blocks * a->tiles * VW + 16;
    int64_t m_p = a->npanels * a->tiles * width + 16, phases = a->y_apart * a->y_apart, lo, hi;
    float *v = a->scratch + ith * a->scratch_size, *m = v + a->side * a->side * v_p;
    winograd_source source = {
        a->x, a->x_n, a->x_c, a->x_h, a->x_apart, a->blocks, winograd_phases(a->x_apart, a->phases)};
    share(a->parts * a->npanels, ith, nth, &lo, &hi);
    for (int64_t unit = lo; unit < hi;) {
        int64_t begin = unit % a->npanels, end = begin + hi - unit < a->npanels ? begin + hi - unit : a->npanels;
        winograd_part part = winograd_cut(a->n, a->oh, a->ow, a->side, a->r, unit / a->npanels, a->parts);
        winograd_points(source, &part, 0, winograd_pairs(a->side), 0, part.start[KINDS], v, v_p, a->tiles * VW, VW);
        winograd_product(a, &part, begin, end, v, v_p, m, m_p);
        for (int64_t panel = begin, next; panel < end; panel = next) {
            next = panel / phases * phases + phases < end ? panel / phases * phases + phases : end;
            winograd_outputs(a, &part, panel, next, m, m_p);
        }
        unit += end - begin;
    }
}
