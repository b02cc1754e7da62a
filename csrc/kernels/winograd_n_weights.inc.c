/* Winograd's algorithm with images in the lanes: the weight gradient, and the weights' points. See winograd_n.h. */
#include "winograd_n.h"

/* ---- weight gradient ---- */

/* The points of k channels as its products read them: [panel of channels][point][tile][channel]. */
INLINE void winograd_n_place_panel(int64_t width, int64_t tiles, winograd_n_place *place) {
    for (int64_t t = 0; t < tiles; t++) place[t] = (winograd_n_place){t * width * VW, VW, winograd_n_spread(tiles * width * VW)};
}

/* Adds image blocks [begin, end), rows of tiles of group `group`, to the panels [first, last) of u: [point][panel of o][panel
 * of c][o][c]. */
static void winograd_n_wgrad_group(const fc_winograd_n_wgrad_args *a, const winograd_n_plane *plane, winograd_n_grid grid,
                                   int64_t first, int64_t last, int64_t begin, int64_t end, int64_t group,
                                   winograd_n_place *place, vec *line, float *v, float *u) {
    const int64_t top = cut_start(plane->rows, group), rows = (end - begin) * cut_size(plane->rows, group);
    const int64_t tiles = rows * plane->wide;
    float *z = v + plane->points * a->c * (tiles * VW + 32);
    for (int64_t part = 0, c = 0; part < grid.parts; part++) {
        winograd_n_place_panel(cut_size(grid.tiles, part), tiles, place);
        float *to = v + winograd_n_start(grid.tiles, part, plane->points, tiles * VW);
        for (const int64_t next = c + cut_size(grid.tiles, part); c < next; c++, to += VW)
            for (int64_t row = 0; row < rows; row++) {
                const int64_t image = begin + row / cut_size(plane->rows, group), at = top + row % cut_size(plane->rows, group);
                winograd_n_in(a->side, a->r, a->x + image * a->x_n + c * a->x_c, a->x_h, a->h, a->w,
                              at * plane->m - a->pad_h, -a->pad_w, plane->wide, line, to, place + row * plane->wide);
            }
    }
    for (int64_t panel = first, o = cut_start(grid.channels, first); panel < last; panel++) {
        winograd_n_place_panel(cut_size(grid.channels, panel), tiles, place);
        float *to = z + winograd_n_start(grid.channels, panel, plane->points, tiles * VW);
        for (const int64_t next = o + cut_size(grid.channels, panel); o < next; o++, to += VW)
            for (int64_t row = 0; row < rows; row++) {
                const int64_t image = begin + row / cut_size(plane->rows, group), at = top + row % cut_size(plane->rows, group);
                winograd_n_dy(a->side, a->r, a->dy + image * a->y_n + o * a->y_c + at * plane->m * a->y_h, a->y_h,
                              a->oh - at * plane->m, a->ow, plane->wide, line, to, place + row * plane->wide);
            }
    }
    const int64_t longer = grid.tiles.longer, size = grid.tiles.size;
    const int64_t long_step = winograd_n_spread((size + 1) * tiles * VW), step = winograd_n_spread(size * tiles * VW);
    for (int64_t p = 0; p < plane->points; p++)
        for (int64_t panel = first; panel < last; panel++) {
            const int64_t m = cut_size(grid.channels, panel);
            const float *from = z + winograd_n_start(grid.channels, panel, plane->points, tiles * VW) +
                                p * winograd_n_spread(m * tiles * VW);
            float *sums = u + (p * a->o + cut_start(grid.channels, panel)) * a->c;
            if (longer)
                winograd_n_sums[m - 1][size](from, v + p * long_step, plane->points * long_step, longer, tiles, sums);
            winograd_n_sums[m - 1][size - 1](from, v + plane->points * longer * long_step + p * step, plane->points * step,
                                             grid.parts - longer, tiles, sums + longer * m * (size + 1));
        }
}

FC_DEFINE(winograd_n_wgrad) {
    const winograd_n_plane plane = winograd_n_cut(a->side, a->r, a->oh, a->ow, a->rows);
    const winograd_n_grid grid = winograd_n_cut_group(a->o, a->c, a->c);
    const int64_t most = a->images * cut_size(plane.rows, 0) * plane.wide;
    winograd_n_place *place = (winograd_n_place *)(a->scratch + ith * a->scratch_size);
    vec *line = (vec *)(place + (most + 15) / 16 * 16);
    float *v = (float *)(line + plane.side * (plane.m * plane.wide + plane.side - plane.m));
    int64_t lo, hi;
    const int64_t split = nth < a->slots ? 1 : nth / a->slots < grid.panels ? nth / a->slots : grid.panels;
    share(a->slots * split, ith, nth, &lo, &hi);
    for (int64_t unit = lo; unit < hi; unit++) {
        const int64_t slot = unit / split, begin = a->n * slot / a->slots, end = a->n * (slot + 1) / a->slots;
        const int64_t first = grid.panels * (unit % split) / split, last = grid.panels * (unit % split + 1) / split;
        const int64_t start = cut_start(grid.channels, first) * a->c, size = cut_start(grid.channels, last) * a->c - start;
        float *u = a->u + slot * a->u_size;
        for (int64_t p = 0; p < plane.points; p++)
            for (int64_t i = 0; i < size; i++) u[p * a->o * a->c + start + i] = 0.0f;
        for (int64_t image = begin; image < end; image += a->images)
            for (int64_t group = 0; group < plane.groups; group++)
                winograd_n_wgrad_group(a, &plane, grid, first, last, image, image + a->images < end ? image + a->images : end,
                                       group, place, line, v, u);
    }
}

/* VW neighbouring sums: taps[r * r] from the points at u, step apart. */
INLINE void winograd_n_taps(const int side, const int r, const fc_winograd_n_unpack_args *a, const float *u, int64_t step,
                            vec *taps) {
    vec t[5][SIDE_MOST];
#pragma GCC unroll 9
    for (int j = 0; j < side; j++) {
        vec p[SIDE_MOST], down[5];
#pragma GCC unroll 9
        for (int i = 0; i < side; i++) {
            const float *from = u + (side * i + j) * step;
            p[i] = vload(from);
            for (int64_t slot = 1; slot < a->slots; slot++) p[i] += vload(from + slot * a->u_size);
        }
        winograd_n_taps_of(side, r, 1, down, p);
#pragma GCC unroll 5
        for (int i = 0; i < r; i++) t[i][j] = down[i];
    }
#pragma GCC unroll 5
    for (int i = 0; i < r; i++) winograd_n_taps_of(side, r, 1, taps + i * r, t[i]);
}

FC_DEFINE(winograd_n_unpack) {
    const winograd_n_grid grid = winograd_n_cut_group(a->o, a->c, a->c);
    const int64_t step = a->o * a->c, area = a->r * a->r;
    int64_t lo, hi;
    share(grid.panels * grid.parts, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t panel = item / grid.parts, part = item % grid.parts, n = cut_size(grid.tiles, part);
        const int64_t m = cut_size(grid.channels, panel), o = cut_start(grid.channels, panel);
        const int64_t c = cut_start(grid.tiles, part);
        for (int64_t first = 0; first < m * n; first += VW) {
            const float *u = a->u + o * a->c + m * c + first;
            vec taps[25];
#define BODY(side, r) winograd_n_taps(side, r, a, u, step, taps)
            WINOGRAD_N_KINDS(a->side, a->r, BODY);
#undef BODY
            for (int64_t i = first; i < first + VW && i < m * n; i++) {
                float *dw = a->dw + ((o + i / n) * a->c + c + i % n) * area;
                for (int64_t tap = 0; tap < area; tap++) dw[tap] = taps[tap][i - first];
            }
        }
    }
}

/* ---- weights ---- */

INLINE void winograd_n_weight(const int side, const int r, const float taps[25][VW], float *u, int64_t u_p, int64_t lanes) {
    vec t[SIDE_MOST][5];
#pragma GCC unroll 5
    for (int j = 0; j < r; j++) {
        vec g[5], p[SIDE_MOST];
#pragma GCC unroll 5
        for (int i = 0; i < r; i++) g[i] = vload(taps[i * r + j]);
        winograd_n_of_taps(side, r, 1, p, g);
#pragma GCC unroll 9
        for (int i = 0; i < side; i++) t[i][j] = p[i];
    }
    for (int i = 0; i < side; i++) {
        vec p[SIDE_MOST];
        winograd_n_of_taps(side, r, 1, p, t[i]);
        for (int j = 0; j < side; j++)
            for (int64_t l = 0; l < lanes; l++) u[(side * i + j) * u_p + l] = p[j][l];
    }
}

FC_DEFINE(winograd_n_weights) {
    const winograd_n_grid grid = winograd_n_cut_group(a->outs, a->tiles, a->tiles);
    int64_t lo, hi;
    share(grid.panels * a->red, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t panel = item / a->red, k = item % a->red, m = cut_size(grid.channels, panel);
        const int64_t start = cut_start(grid.channels, panel);
        for (int64_t first = 0; first < m; first += VW) { /* TILE_N_ROWS may be more than VW */
            const int64_t lanes = m - first < VW ? m - first : VW;
            float taps[25][VW] = {0};
            for (int64_t l = 0; l < lanes; l++) {
                const float *w = a->w + (start + first + l) * a->s_out + k * a->s_red;
                for (int64_t i = 0; i < a->r * a->r; i++) taps[i][l] = w[i];
            }
            float *u = a->u + start * a->side * a->side * a->red + k * m + first;
#define BODY(side, r) winograd_n_weight(side, r, taps, u, a->red * m, lanes)
            WINOGRAD_N_KINDS(a->side, a->r, BODY);
#undef BODY
        }
    }
}
