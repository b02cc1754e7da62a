/* Convolution with channels in the lanes: a register tile of m pixels x nb output vectors runs over the whole reduction. */
#include "tile_c.h"

typedef void (*conv_c_tile)(const fc_conv_lanes_c_args *a, const float *x, const float *w, const float *bias,
                            const float *mask, float *y);

/* m and nb are literals. Pixels are reached from every third one, so that an address is a base and 0, 1 or 2 steps. */
INLINE void conv_c_body(const int nb, const int m, const fc_conv_lanes_c_args *a, const float *x, const float *w,
                        const float *bias, const float *mask, float *y) {
    vec acc[TILE_MAX][NV_MAX];
#pragma GCC unroll 14
    for (int p = 0; p < m; p++)
#pragma GCC unroll 4
        for (int v = 0; v < nb; v++) acc[p][v] = bias ? vload(bias + v * VW) : (vec){0};

    const int64_t step = a->x_w, w_step = a->nv * VW;
    const int64_t *runs = a->runs, *runs_end = runs + a->nruns;
    for (; runs < runs_end; runs++) {
        const float *base[(TILE_MAX + 2) / 3];
#pragma GCC unroll 5
        for (int p = 0; p < m; p += 3) base[p / 3] = x + *runs + p * step;
        for (const float *end = base[0] + a->run_len; base[0] < end; w += w_step) {
            if (nb <= m) {
                vec wv[NV_MAX];
#pragma GCC unroll 4
                for (int v = 0; v < nb; v++) wv[v] = vload(w + v * VW);
#pragma GCC unroll 14
                for (int p = 0; p < m; p++) {
                    vec xv = vset(base[p / 3][p % 3 * step]);
#pragma GCC unroll 4
                    for (int v = 0; v < nb; v++) acc[p][v] += xv * wv[v];
                }
            } else {
                vec xv[NV_MAX];
#pragma GCC unroll 4
                for (int p = 0; p < m; p++) xv[p] = vset(base[p / 3][p % 3 * step]);
#pragma GCC unroll 4
                for (int v = 0; v < nb; v++) {
                    vec wv = vload(w + v * VW);
#pragma GCC unroll 4
                    for (int p = 0; p < m; p++) acc[p][v] += xv[p] * wv;
                }
            }
#pragma GCC unroll 5
            for (int p = 0; p < m; p += 3) base[p / 3]++;
        }
    }

    if (a->act)
#pragma GCC unroll 14
        for (int p = 0; p < m; p++)
#pragma GCC unroll 4
            for (int v = 0; v < nb; v++) acc[p][v] = vrelu(acc[p][v]);
    if (mask)
#pragma GCC unroll 14
        for (int p = 0; p < m; p++)
#pragma GCC unroll 4
            for (int v = 0; v < nb; v++) acc[p][v] = vmask(acc[p][v], vload(mask + p * a->m_w + v * a->m_c));
#pragma GCC unroll 14
    for (int p = 0; p < m; p++)
#pragma GCC unroll 4
        for (int v = 0; v < nb; v++) vstore(y + p * a->y_w + v * a->y_c, acc[p][v]);
}

#define CONV_C_TILE(nb, m)                                                                                       \
    static void conv_c_##nb##_##m(const fc_conv_lanes_c_args *a, const float *x, const float *w, const float *bias, \
                                  const float *mask, float *y) {                                                 \
        conv_c_body(nb, m, a, x, w, bias, mask, y);                                                              \
    }
TILES(CONV_C_TILE)
#define CONV_C_ENTRY(nb, m) TILE_ENTRY(conv_c, nb, m)
static const conv_c_tile conv_c_tiles[NV_MAX][TILE_MAX] = {TILES(CONV_C_ENTRY)};

/* Pieces of rows: a row of `pixels` (several image rows where they are contiguous) in `pieces` of about PIECE. */
#define CONV_C_PIECE 64
#define CONV_C_L2 (192 * 1024) /* bytes of x that stay in L2 beside a weight panel */

/* Units of a block: all of them, so that a weight panel is read once (x once a panel), or as many as keep x in L2 (then
 * the weights are read once a block), whichever reads less. */
INLINE int64_t conv_c_block(const fc_conv_lanes_c_args *a, int64_t units) {
    int64_t x_bytes = a->n * a->x_n * 4, w_bytes = a->npanels * a->nruns * a->run_len * a->nv * VBYTES;
    int64_t blocks = x_bytes / CONV_C_L2 + 1;
    if (blocks > units) blocks = units;
    return w_bytes * (blocks - 1) < x_bytes * (a->npanels - 1) ? (units + blocks - 1) / blocks : units;
}

FC_DEFINE(conv_lanes_c) {
    int64_t rows = a->oh, pixels = a->ow;
    if (a->x_h == pixels * a->x_w && a->y_h == pixels * a->y_w && (!a->mask || a->m_h == pixels * a->m_w))
        pixels *= rows, rows = 1;
    int64_t pieces = (pixels + CONV_C_PIECE - 1) / CONV_C_PIECE;
    int64_t units = a->n * rows * pieces, weight = 0, start = 0, lo, hi;
    for (int64_t p = 0; p < a->npanels; p++) weight += a->panels[3 * p + 2];
    share(units * weight, ith, nth, &lo, &hi);

    int64_t block = conv_c_block(a, units);
    for (int64_t begin = 0; begin < units && start < hi; begin += block) {
        int64_t count = begin + block < units ? block : units - begin;
        for (int64_t p = 0; p < a->npanels && start < hi; p++) {
            const int64_t *panel = a->panels + 3 * p, nb = panel[2];
            int64_t first, last;
            rows_within(start, nb, count, lo, hi, &first, &last);
            start += nb * count;
            int64_t tiles = (pixels + tile_rows(nb) - 1) / tile_rows(nb), m = pixels / tiles, longer = pixels % tiles;
            const float *w = a->w + p * a->nruns * a->run_len * a->nv * VW;
            const float *bias = a->bias ? a->bias + p * a->nv * VW : 0;
            for (int64_t unit = begin + first; unit < begin + last; unit++) {
                int64_t piece = unit % pieces, row = unit / pieces % rows, n = unit / pieces / rows;
                const float *x = a->x + n * a->x_n + panel[0] + row * a->x_h;
                const float *mask = a->mask ? a->mask + n * a->m_n + panel[1] * a->m_c + row * a->m_h : 0;
                float *y = a->y + n * a->y_n + panel[1] * a->y_c + row * a->y_h;
                int64_t tile_last = tiles * (piece + 1) / pieces;
                for (int64_t tile = tiles * piece / pieces; tile < tile_last; tile++) {
                    int64_t at = tile * m + (tile < longer ? tile : longer);
                    conv_c_tiles[nb - 1][m + (tile < longer) - 1](a, x + at * a->x_w, w, bias,
                                                                  mask ? mask + at * a->m_w : 0, y + at * a->y_w);
                }
            }
        }
    }
}
