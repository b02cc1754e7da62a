/* Convolution with channels in the lanes: a register tile of m pixels x nb output vectors runs over the whole reduction. */
#include "tile_c.h"

#define CONV_C_LINE (VBYTES < 64 ? 64 / VBYTES : 1) /* pixels of a cache line */

typedef struct {
    const int64_t *runs, *runs_end; /* a slab of the reduction */
    const float *w;                 /* the slab's part of the panel */
    const float *bias;
    const float *ahead; /* what to fetch for later, or NULL: */
    int64_t lines;      /* so many cache lines per run */
    int64_t asks; /* pixels of y, add and mask to ask for per run, lines of them: a core has few requests under way */
    int first, last; /* of the slabs: y starts from the bias, is finished with activation and mask */
} conv_c_slab;

typedef void (*conv_c_tile)(const fc_conv_lanes_c_args *a, const conv_c_slab *slab, const float *x, const float *add,
                            const float *mask, float *y);

/* One term: the elements i of m pixels' runs times nb vectors of weights. Pixels are reached from every third one, so that an
 * address is a base and 0, 1 or 2 steps. */
INLINE void conv_c_term(const int nb, const int m, vec acc[TILE_MAX][NV_MAX], const float *const *base, int64_t step,
                        int i, const float *w) {
    if (nb <= m) {
        vec wv[NV_MAX];
#pragma GCC unroll 4
        for (int v = 0; v < nb; v++) wv[v] = vload(w + v * VW);
#pragma GCC unroll 14
        for (int p = 0; p < m; p++) {
            vec xv = vset(base[p / 3][p % 3 * step + i]);
#pragma GCC unroll 4
            for (int v = 0; v < nb; v++) acc[p][v] += xv * wv[v];
        }
    } else {
        vec xv[NV_MAX];
#pragma GCC unroll 4
        for (int p = 0; p < m; p++) xv[p] = vset(base[p / 3][p % 3 * step + i]);
#pragma GCC unroll 4
        for (int v = 0; v < nb; v++) {
            vec wv = vload(w + v * VW);
#pragma GCC unroll 4
            for (int p = 0; p < m; p++) acc[p][v] += xv[p] * wv;
        }
    }
}

/* Asks for what pixel p of the tile will read or write in the end. */
INLINE void conv_c_ask(const int nb, const fc_conv_lanes_c_args *a, const conv_c_slab *slab, int64_t p, const float *add,
                       const float *mask, const float *y) {
    for (int v = 0; v < nb; v++) {
        if (slab->first) __builtin_prefetch(y + p * a->y_w + v * a->y_c, 1);
        if (slab->last && add) __builtin_prefetch(add + p * a->r_w + v * a->r_c);
        if (slab->last && mask) __builtin_prefetch(mask + p * a->m_w + v * a->m_c);
    }
}

/* The sum over a slab. step: floats between pixels, a literal where they are next to each other: then VW terms at a time, of
 * which runs are multiples. What will be read or written in the end is asked for on the way. */
INLINE void conv_c_sum(const int nb, const int m, const int ahead, const fc_conv_lanes_c_args *a,
                       const conv_c_slab *slab, const float *x, int64_t step, const float *add, const float *mask,
                       const float *y, vec acc[TILE_MAX][NV_MAX]) {
    const int64_t w_step = a->nv * VW;
    const int dense = __builtin_constant_p(step), per_line = dense || ahead ? CONV_C_LINE : 1;
    const float *w = slab->w;
    int64_t asked = 0;
    for (const int64_t *runs = slab->runs; runs < slab->runs_end; runs++) {
        const float *base[(TILE_MAX + 2) / 3];
#pragma GCC unroll 5
        for (int p = 0; p < m; p += 3) base[p / 3] = x + *runs + p * step;
        const float *next = base[0] + m * step + a->run_len - VW; /* what the next tile reads first */
        if (ahead || (step >= VW && a->run_len >= VW)) {
#pragma GCC unroll 14
            for (int p = 0; p < m; p += per_line) __builtin_prefetch(next + p * step);
        } else { /* pixels of a planar input share a line or two; those of few channels, many runs */
            __builtin_prefetch(next + m * step);
        }
        for (int64_t i = 0; i < slab->lines; i++)
            __builtin_prefetch(slab->ahead + 16 * ((runs - slab->runs) * slab->lines + i), 0, 2);
        for (int64_t i = 0; !ahead && i < slab->asks && asked < m; i++, asked += CONV_C_LINE)
            conv_c_ask(nb, a, slab, asked, add, mask, y);
        int64_t left = a->run_len;
        if (dense) {
            for (; left > 0; left -= VW) {
                __asm__("" : "+r"(w)); /* else GCC loads ahead of this turn, and spills */
#pragma GCC unroll 5
                for (int p = 0; p < m; p += 3) __asm__("" : "+r"(base[p / 3]));
#pragma GCC unroll 16
                for (int i = 0; i < VW; i++, w += w_step) conv_c_term(nb, m, acc, base, step, i, w);
#pragma GCC unroll 5
                for (int p = 0; p < m; p += 3) base[p / 3] += VW;
            }
        } else {
            for (; left > 0; left--, w += w_step) {
                conv_c_term(nb, m, acc, base, step, 0, w);
#pragma GCC unroll 5
                for (int p = 0; p < m; p += 3) base[p / 3]++;
            }
        }
    }
}

/* The same where pixels are VW apart and runs are of other lengths: many, of a few channels (or of a planar input, of such a
 * stride). What is written is asked for before them, and nothing else, so that a run costs no more than its terms. */
INLINE void conv_c_sum_short(const int nb, const int m, const fc_conv_lanes_c_args *a, const conv_c_slab *slab,
                             const float *x, const float *add, const float *mask, const float *y,
                             vec acc[TILE_MAX][NV_MAX]) {
    const int64_t w_step = a->nv * VW, run_len = a->run_len;
    for (int p = 0; p < m; p += CONV_C_LINE) conv_c_ask(nb, a, slab, p, add, mask, y);
    const float *w = slab->w;
    for (const int64_t *runs = slab->runs; runs < slab->runs_end; runs++) {
        const float *base[(TILE_MAX + 2) / 3];
#pragma GCC unroll 5
        for (int p = 0; p < m; p += 3) base[p / 3] = x + *runs + p * VW;
        for (int64_t i = 0; i < run_len; i++, w += w_step) {
            conv_c_term(nb, m, acc, base, VW, 0, w);
#pragma GCC unroll 5
            for (int p = 0; p < m; p += 3) base[p / 3]++;
        }
    }
}

/* m, nb and ahead are literals. */
INLINE void conv_c_body(const int nb, const int m, const int ahead, const fc_conv_lanes_c_args *a,
                        const conv_c_slab *slab, const float *x, const float *add, const float *mask, float *y) {
    vec acc[TILE_MAX][NV_MAX];
    const float *bias = slab->bias;
    if (slab->first) {
#pragma GCC unroll 14
        for (int p = 0; p < m; p++)
#pragma GCC unroll 4
            for (int v = 0; v < nb; v++) acc[p][v] = bias ? vload(bias + v * VW) : (vec){0};
    } else {
#pragma GCC unroll 14
        for (int p = 0; p < m; p++)
#pragma GCC unroll 4
            for (int v = 0; v < nb; v++) acc[p][v] = vload(y + p * a->y_w + v * a->y_c);
    }

    if (!ahead && a->x_w == VW && a->run_len % VW)
        conv_c_sum_short(nb, m, a, slab, x, add, mask, y, acc);
    else if (!ahead && a->x_w == VW) /* Winograd's few runs gain nothing */
        conv_c_sum(nb, m, ahead, a, slab, x, VW, add, mask, y, acc);
    else
        conv_c_sum(nb, m, ahead, a, slab, x, a->x_w, add, mask, y, acc);

    if (slab->last && add)
#pragma GCC unroll 14
        for (int p = 0; p < m; p++)
#pragma GCC unroll 4
            for (int v = 0; v < nb; v++) acc[p][v] += vload(add + p * a->r_w + v * a->r_c);
    if (slab->last && a->act)
#pragma GCC unroll 14
        for (int p = 0; p < m; p++)
#pragma GCC unroll 4
            for (int v = 0; v < nb; v++) acc[p][v] = vrelu(acc[p][v]);
    if (slab->last && mask)
#pragma GCC unroll 14
        for (int p = 0; p < m; p++)
#pragma GCC unroll 4
            for (int v = 0; v < nb; v++) acc[p][v] = vmask(acc[p][v], vload(mask + p * a->m_w + v * a->m_c));
#pragma GCC unroll 14
    for (int p = 0; p < m; p++)
#pragma GCC unroll 4
        for (int v = 0; v < nb; v++) vstore(y + p * a->y_w + v * a->y_c, acc[p][v]);
}

#define CONV_C_TILE(nb, m)                                                                                \
    static void conv_c_##nb##_##m(const fc_conv_lanes_c_args *a, const conv_c_slab *slab, const float *x, \
                                  const float *add, const float *mask, float *y) {                        \
        conv_c_body(nb, m, 0, a, slab, x, add, mask, y);                                                  \
    }
TILES(CONV_C_TILE)
#define CONV_C_ENTRY(nb, m) TILE_ENTRY(conv_c, nb, m)
static const conv_c_tile conv_c_tiles[NV_MAX][TILE_MAX] = {TILES(CONV_C_ENTRY)};

/* Pieces of rows: a row of `pixels` (several image rows where they are contiguous) in `pieces` of about PIECE. */
#define CONV_C_PIECE 64
#define CONV_C_W_SLAB (96 * 1024)  /* bytes of a weight panel's slab, and */
#define CONV_C_X_SLAB (192 * 1024) /* bytes of x that it meets: together they stay in the second-level cache */

/* The weights of panel p for the runs from `runs` on. */
INLINE const float *conv_c_weights(const fc_conv_lanes_c_args *a, int64_t p, const int64_t *runs) {
    return a->w + (p * a->nruns + (runs - a->runs)) * a->run_len * a->nv * VW;
}

/* Tiles that share a slab of weights: so few, at small batches, fetch what the thread reads next meanwhile. */
#define CONV_C_FEW 16

/* Units [first, last) for panel p, over a slab of the reduction. */
INLINE void conv_c_panel(const fc_conv_lanes_c_args *a, conv_c_slab *slab, int64_t p, int64_t rows, int64_t pixels,
                         int64_t pieces, int64_t first, int64_t last) {
    const int64_t *panel = a->panels + 3 * p, nb = panel[2];
    int64_t tiles = (pixels + tile_rows(nb) - 1) / tile_rows(nb), m = pixels / tiles, longer = pixels % tiles;
    const int64_t runs = slab->runs_end - slab->runs, lines = a->run_len * a->nv * VW / 16;
    const int64_t sharing = (last - first) * tiles / pieces;
    slab->w = conv_c_weights(a, p, slab->runs);
    slab->lines = slab->ahead && sharing > 0 && sharing <= CONV_C_FEW ? (lines + sharing - 1) / sharing : 0;
    slab->asks = runs > 0 ? (tile_rows(nb) / CONV_C_LINE + runs) / runs : 0; /* a phase may have no taps */
    slab->bias = a->bias ? a->bias + p * a->nv * VW : 0;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t piece = unit % pieces, row = unit / pieces % rows, n = unit / pieces / rows;
        const float *x = a->x + n * a->x_n + panel[0] + row * a->x_h;
        const float *add = a->add ? a->add + n * a->r_n + panel[1] * a->r_c + row * a->r_h : 0;
        const float *mask = a->mask ? a->mask + n * a->m_n + panel[1] * a->m_c + row * a->m_h : 0;
        float *y = a->y + n * a->y_n + panel[1] * a->y_c + row * a->y_h;
        int64_t tile_last = tiles * (piece + 1) / pieces;
        for (int64_t tile = tiles * piece / pieces; tile < tile_last; tile++) {
            int64_t at = tile * m + (tile < longer ? tile : longer);
            conv_c_tiles[nb - 1][m + (tile < longer) - 1](a, slab, x + at * a->x_w, add ? add + at * a->r_w : 0,
                                                          mask ? mask + at * a->m_w : 0, y + at * a->y_w);
            if (slab->lines) slab->ahead += 16 * runs * slab->lines;
        }
    }
}

FC_DEFINE(conv_lanes_c) {
    int64_t rows = a->oh, pixels = a->ow;
    if (a->x_h == pixels * a->x_w && a->y_h == pixels * a->y_w && (!a->mask || a->m_h == pixels * a->m_w) &&
        (!a->add || a->r_h == pixels * a->r_w))
        pixels *= rows, rows = 1;
    int64_t pieces = (pixels + CONV_C_PIECE - 1) / CONV_C_PIECE;
    int64_t units = a->n * rows * pieces, start = 0, lo, hi;
    share(units * panel_vectors(a->panels, 0, a->npanels), ith, nth, &lo, &hi);

    int64_t slabs = 1 + a->nruns * a->run_len * a->nv * VBYTES / CONV_C_W_SLAB;
    if (slabs > a->nruns) slabs = a->nruns;
    if (slabs < 1) slabs = 1;
    int64_t block = CONV_C_X_SLAB * slabs / (a->x_n * 4 / (rows * pieces) + 1);
    if (block < 1) block = 1;
    for (int64_t begin = 0; begin < units && start < hi; begin += block) {
        int64_t count = begin + block < units ? block : units - begin, before = start;
        for (int64_t i = 0; i < slabs; i++) {
            conv_c_slab slab = {.runs = a->runs + a->nruns * i / slabs,
                                .runs_end = a->runs + a->nruns * (i + 1) / slabs,
                                .first = i == 0,
                                .last = i + 1 == slabs};
            start = before;
            int64_t own = -1; /* the thread's first panel, whose next slab comes after the last panel; after the last slab its
                               * first one, which a cache still has */
            for (int64_t p = 0; p < a->npanels && start < hi; p++) {
                int64_t nb = a->panels[3 * p + 2], first, last;
                rows_within(start, nb, count, lo, hi, &first, &last);
                start += nb * count;
                if (first == last) continue;
                if (own < 0) own = p;
                if (p + 1 < a->npanels && start < hi)
                    slab.ahead = conv_c_weights(a, p + 1, slab.runs);
                else
                    slab.ahead = slab.last ? NULL : conv_c_weights(a, own, slab.runs_end);
                conv_c_panel(a, &slab, p, rows, pixels, pieces, begin + first, begin + last);
            }
        }
    }
}
