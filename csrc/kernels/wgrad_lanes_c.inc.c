/* Weight gradient with channels in the lanes: a register tile of m run elements (x, broadcast) x nb vectors of dy is summed
 * over a block of rows, whose dy stays in a near cache, and kept in dw between blocks. */
#include "tile_c.h"

/* Bytes of dy of a block of rows. After each block, sums go to dw and back. With 8 lanes a block that stays in the first
 * cache is fastest; with 16 it would be a row or two, and longer ones from the second cache win (1x1 layers of ResNet-50 on
 * Zen 5: 1.01 to 1.15 x; with 8 lanes 0.9 to 1.03). */
#define WGRAD_C_BLOCK ((VW == 16 ? 64 : 16) * 1024)
#define WGRAD_C_DW (192 * 1024) /* bytes of dw that are kept in the second-level cache meanwhile */

/* What is read after a tile, and asked for meanwhile: as many pixels of it. Or nothing: a line that is there already. */
typedef struct {
    const float *at;
    int64_t row, pixel;
} wgrad_c_next;

typedef void (*wgrad_c_tile)(const fc_wgrad_lanes_c_args *a, const float *x, const float *dy, float *dw, int64_t rows,
                             wgrad_c_next next, int fresh);

/* nb and m are literals. fresh: dw starts from here. */
INLINE void wgrad_c_body(const int nb, const int m, const fc_wgrad_lanes_c_args *a, const float *x, const float *dy,
                         float *dw, int64_t rows, wgrad_c_next next, int fresh) {
    vec acc[TILE_MAX][NV_MAX];
    const int64_t dw_step = a->nv * VW, x_w = a->x_w, y_w = a->y_w, y_c = a->y_c;
#pragma GCC unroll 14
    for (int p = 0; p < m; p++)
#pragma GCC unroll 4
        for (int v = 0; v < nb; v++) acc[p][v] = (vec){0};
    const float *ask = dw; /* for what will be added to, on the way */
    for (int64_t row = 0; row < rows; row++, x += a->x_h, dy += a->y_h, next.at += next.row) {
        const float *xp = x, *dp = dy, *np = next.at;
        for (int64_t ow = a->ow; ow > 0; ow--, xp += x_w, dp += y_w, np += next.pixel) {
            __builtin_prefetch(np);
            if (ask < dw + m * dw_step) __builtin_prefetch(ask, 1), ask += 16;
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
    if (!fresh) /* added only now: a sum of sums is nearer to the true one than a longer sum */
#pragma GCC unroll 14
        for (int p = 0; p < m; p++)
#pragma GCC unroll 4
            for (int v = 0; v < nb; v++) acc[p][v] += vload(dw + p * dw_step + v * VW);
#pragma GCC unroll 14
    for (int p = 0; p < m; p++)
#pragma GCC unroll 4
        for (int v = 0; v < nb; v++) vstore(dw + p * dw_step + v * VW, acc[p][v]);
}

#define WGRAD_C_TILE(nb, m)                                                                                    \
    static void wgrad_c_##nb##_##m(const fc_wgrad_lanes_c_args *a, const float *x, const float *dy, float *dw, \
                                   int64_t rows, wgrad_c_next next, int fresh) {                               \
        wgrad_c_body(nb, m, a, x, dy, dw, rows, next, fresh);                                                  \
    }
TILES(WGRAD_C_TILE)
#define WGRAD_C_ENTRY(nb, m) TILE_ENTRY(wgrad_c, nb, m)
static const wgrad_c_tile wgrad_c_tiles[NV_MAX][TILE_MAX] = {TILES(WGRAD_C_ENTRY)};

/* Runs [first, last) of panels [begin, end), over the images of a slot. */
INLINE void wgrad_c_unit(const fc_wgrad_lanes_c_args *a, int64_t slot, int64_t begin, int64_t end, int64_t first,
                         int64_t last) {
    int64_t width = a->nv * VW, depth = a->nruns * a->run_len, block = WGRAD_C_BLOCK / (a->ow * width * 4);
    if (block < 1) block = 1;
    const int64_t stop = (slot + 1) * a->n / a->slots;
    int fresh = 1;
    for (int64_t n = slot * a->n / a->slots; n < stop; n++)
        for (int64_t row = 0; row < a->oh; row += block, fresh = 0)
            for (int64_t p = begin; p < end; p++) {
                const int64_t *panel = a->panels + 3 * p, nb = panel[2];
                int64_t tiles = (a->run_len + tile_rows(nb) - 1) / tile_rows(nb);
                int64_t m = a->run_len / tiles, longer = a->run_len % tiles;
                int64_t rows = a->oh - row < block ? a->oh - row : block;
                const float *x = a->x + n * a->x_n + panel[0] + row * a->x_h;
                const float *dy = a->dy + n * a->y_n + panel[1] * a->y_c + row * a->y_h;
                float *dw = a->dw + (slot * a->npanels + p) * depth * width;
                for (int64_t k = first * a->run_len; fresh && nb < a->nv && k < last * a->run_len; k++)
                    for (int64_t v = nb; v < a->nv; v++) vstore(dw + k * width + v * VW, (vec){0});
                const int more_panels = p + 1 < end, more_rows = row + block < a->oh;
                const int64_t *next_panel = a->panels + 3 * (more_panels ? p + 1 : begin);
                const int64_t next_row = more_panels ? row : more_rows ? row + block : 0;
                const int64_t next_n = more_panels || more_rows ? n : n + 1;
                const float *dy_next = a->dy + next_n * a->y_n + next_panel[1] * a->y_c + next_row * a->y_h;
                int64_t vectors = next_n < stop ? next_panel[2] : 0;
                for (int64_t run = first; run < last; run++)
                    for (int64_t tile = 0; tile < tiles; tile++) {
                        int64_t i = tile * m + (tile < longer ? tile : longer);
                        wgrad_c_next next = {dy, 0, 0};
                        if (tile == 0 && run + 1 < last)
                            next = (wgrad_c_next){x + a->runs[run + 1], a->x_h, a->x_w};
                        else if (vectors > 0)
                            next = (wgrad_c_next){dy_next + --vectors * a->y_c, a->y_h, a->y_w};
                        wgrad_c_tiles[nb - 1][m + (tile < longer) - 1](
                            a, x + a->runs[run] + i, dy, dw + (run * a->run_len + i) * width, rows, next, fresh);
                    }
            }
}

/* Runs of `panels` panels whose part of dw stays in the second-level cache. */
INLINE int64_t wgrad_c_fit(const fc_wgrad_lanes_c_args *a, int64_t panels) {
    int64_t fit = WGRAD_C_DW / (panels * a->nv * VBYTES * a->run_len);
    return fit > 1 ? fit : 1;
}

/* In how many groups to take the panels: for the least reading of x and dy. */
INLINE int64_t wgrad_c_groups(const fc_wgrad_lanes_c_args *a) {
    double x_bytes = 4.0 * a->n * a->x_n, dy_bytes = 4.0 * a->n * a->oh * a->ow * a->npanels * a->nv * VW, best = 0;
    int64_t best_groups = 1;
    for (int64_t groups = 1; groups <= a->npanels; groups++) {
        int64_t fit = wgrad_c_fit(a, (a->npanels + groups - 1) / groups);
        double cost = groups * x_bytes + (a->nruns + fit - 1) / fit * dy_bytes;
        if (groups == 1 || cost < best) best = cost, best_groups = groups;
    }
    return best_groups;
}

/* Threads share the runs of all groups and slots, each of which weighs as much as its group has vectors; each takes as many at a
 * time as fit, all over the same blocks of rows. */
FC_DEFINE(wgrad_lanes_c) {
    int64_t groups = wgrad_c_groups(a), fit = wgrad_c_fit(a, (a->npanels + groups - 1) / groups);
    int64_t start = 0, lo, hi;
    share(a->slots * panel_vectors(a->panels, 0, a->npanels) * a->nruns, ith, nth, &lo, &hi);
    for (int64_t slot = 0; slot < a->slots; slot++)
        for (int64_t group = 0; group < groups; group++) {
            int64_t begin = a->npanels * group / groups, end = a->npanels * (group + 1) / groups, first, last;
            const int64_t weight = panel_vectors(a->panels, begin, end);
            rows_within(start, weight, a->nruns, lo, hi, &first, &last);
            start += weight * a->nruns;
            const int64_t parts = (last - first + fit - 1) / fit;
            for (int64_t part = 0; part < parts; part++)
                wgrad_c_unit(a, slot, begin, end, first + (last - first) * part / parts,
                             first + (last - first) * (part + 1) / parts);
        }
}
