/* Weight gradient with channels in the lanes: a register tile of m run elements (x, broadcast) x nb vectors of dy is summed
 * over a block of rows, whose dy stays in the nearest cache, and kept in dw between blocks. */
#include "tile_c.h"

#define WGRAD_C_BLOCK (16 * 1024) /* bytes of dy of a block of rows */
#define WGRAD_C_UNITS 32          /* units of work that a shape is cut into at least, if it has so many */

typedef void (*wgrad_c_tile)(const fc_wgrad_lanes_c_args *a, const float *x, const float *dy, float *dw, int64_t rows,
                             int fresh);

/* nb and m are literals. fresh: dw starts from here. */
INLINE void wgrad_c_body(const int nb, const int m, const fc_wgrad_lanes_c_args *a, const float *x, const float *dy,
                         float *dw, int64_t rows, int fresh) {
    vec acc[TILE_MAX][NV_MAX];
    const int64_t dw_step = a->nv * VW, x_w = a->x_w, y_w = a->y_w, y_c = a->y_c;
#pragma GCC unroll 14
    for (int p = 0; p < m; p++)
#pragma GCC unroll 4
        for (int v = 0; v < nb; v++) acc[p][v] = fresh ? (vec){0} : vload(dw + p * dw_step + v * VW);
    for (int64_t row = 0; row < rows; row++, x += a->x_h, dy += a->y_h) {
        const float *xp = x, *dp = dy;
        for (int64_t ow = a->ow; ow > 0; ow--, xp += x_w, dp += y_w) {
            vec d[NV_MAX];
#pragma GCC unroll 4
            for (int v = 0; v < nb; v++) d[v] = vload(dp + v * y_c);
#pragma GCC unroll 14
            for (int p = 0; p < m; p++) {
                vec xv = vset(xp[p]);
#pragma GCC unroll 4
                for (int v = 0; v < nb; v++) acc[p][v] += xv * d[v];
            }
        }
    }
#pragma GCC unroll 14
    for (int p = 0; p < m; p++)
#pragma GCC unroll 4
        for (int v = 0; v < nb; v++) vstore(dw + p * dw_step + v * VW, acc[p][v]);
}

#define WGRAD_C_TILE(nb, m)                                                                                         \
    static void wgrad_c_##nb##_##m(const fc_wgrad_lanes_c_args *a, const float *x, const float *dy, float *dw,      \
                                   int64_t rows, int fresh) {                                                       \
        wgrad_c_body(nb, m, a, x, dy, dw, rows, fresh);                                                             \
    }
TILES(WGRAD_C_TILE)
#define WGRAD_C_ENTRY(nb, m) TILE_ENTRY(wgrad_c, nb, m)
static const wgrad_c_tile wgrad_c_tiles[NV_MAX][TILE_MAX] = {TILES(WGRAD_C_ENTRY)};

/* Tiles [first, last) of the panel's runs, `tiles` a run, over the images of a slot. */
INLINE void wgrad_c_unit(const fc_wgrad_lanes_c_args *a, int64_t slot, int64_t p, int64_t tiles, int64_t first,
                         int64_t last) {
    const int64_t *panel = a->panels + 3 * p, nb = panel[2], width = a->nv * VW;
    float *dw = a->dw + (slot * a->npanels + p) * a->nruns * a->run_len * width;
    int64_t block = WGRAD_C_BLOCK / (a->ow * nb * VBYTES), m = a->run_len / tiles, longer = a->run_len % tiles;
    if (block < 1) block = 1;
    if (nb < a->nv) /* the lanes of missing blocks */
        for (int64_t k = first / tiles * a->run_len; k < (last + tiles - 1) / tiles * a->run_len; k++)
            for (int64_t v = nb; v < a->nv; v++) vstore(dw + k * width + v * VW, (vec){0});
    int fresh = 1;
    for (int64_t n = slot * a->n / a->slots; n < (slot + 1) * a->n / a->slots; n++)
        for (int64_t row = 0; row < a->oh; row += block, fresh = 0) {
            int64_t rows = a->oh - row < block ? a->oh - row : block;
            const float *x = a->x + n * a->x_n + panel[0] + row * a->x_h;
            const float *dy = a->dy + n * a->y_n + panel[1] * a->y_c + row * a->y_h;
            for (int64_t t = first; t < last; t++) {
                int64_t run = t / tiles, tile = t % tiles, i = tile * m + (tile < longer ? tile : longer);
                wgrad_c_tiles[nb - 1][m + (tile < longer) - 1](a, x + a->runs[run] + i, dy,
                                                               dw + (run * a->run_len + i) * width, rows, fresh);
            }
        }
}

FC_DEFINE(wgrad_lanes_c) {
    int64_t lo, hi;
    int64_t groups = (WGRAD_C_UNITS + a->slots * a->npanels - 1) / (a->slots * a->npanels);
    if (groups > a->nruns) groups = a->nruns;
    share(a->slots * a->npanels * groups, ith, nth, &lo, &hi);
    for (int64_t unit = lo; unit < hi; unit++) {
        int64_t group = unit % groups, p = unit / groups % a->npanels, slot = unit / groups / a->npanels;
        int64_t most = tile_rows(a->panels[3 * p + 2]), tiles = (a->run_len + most - 1) / most;
        int64_t first = a->nruns * group / groups, last = a->nruns * (group + 1) / groups;
        wgrad_c_unit(a, slot, p, tiles, first * tiles, last * tiles);
    }
}
