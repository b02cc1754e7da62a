/* Winograd's algorithm with images in the lanes: forward and data gradient. See winograd_n.h. */
#include "winograd_n.h"

/* ---- forward ---- */

/* One tile of outputs from p[point * step], and, with pooling, the maxima of its 2x2 windows. rows, cols: how many outputs
 * there are from here on. position: of the first one in its plane. */
INLINE void winograd_n_out(const int side, const int r, const fc_winograd_n_args *a, const float *p, int64_t step, vec bias,
                           int64_t rows, int64_t cols, float *y, int32_t *idx, int64_t position) {
    const int m = side + 1 - r;
    vec t[SIDE_MOST][SIDE_MOST], out[SIDE_MOST][SIDE_MOST];
#pragma GCC unroll 1 /* or the addresses of all points are kept at once, and spilled */
    for (int j = 0; j < side; j++, p += step) {
        vec column[SIDE_MOST], down[SIDE_MOST];
#pragma GCC unroll 9
        for (int i = 0; i < side; i++) column[i] = vload(p + side * i * step);
        winograd_n_taps_of(side, m, 0, down, column);
#pragma GCC unroll 9
        for (int i = 0; i < m; i++) t[i][j] = down[i];
    }
#pragma GCC unroll 1
    for (int i = 0; i < m; i++) {
        winograd_n_taps_of(side, m, 0, out[i], t[i]);
#pragma GCC unroll 9
        for (int j = 0; j < m; j++) {
            out[i][j] += bias;
            if (a->act) out[i][j] = vrelu(out[i][j]);
            if (!a->pool && i < rows && j < cols) vstore(y + i * a->y_h + j * VW, out[i][j]);
        }
    }
    if (m % 2 || !a->pool) return; /* windows would lie in two tiles */
    const int64_t idx_h = a->ow / 2 * VW;
    for (int i = 0; i < m; i += 2)
        for (int j = 0; j < m; j += 2) {
            if (i + 1 >= rows || j + 1 >= cols) continue;
            if (!idx) {
                vstore(y + i / 2 * a->y_h + j / 2 * VW,
                       vmax(vmax(out[i][j], out[i][j + 1]), vmax(out[i + 1][j], out[i + 1][j + 1])));
                continue;
            }
            const int32_t at = (int32_t)(position + i * a->ow + j), below = (int32_t)a->ow;
            vec best = out[i][j];
            ivec where = iset(at);
            vmax_where(&best, &where, out[i][j + 1], iset(at + 1));
            vmax_where(&best, &where, out[i + 1][j], iset(at + below));
            vmax_where(&best, &where, out[i + 1][j + 1], iset(at + below + 1));
            vstore(y + i / 2 * a->y_h + j / 2 * VW, best);
            istore(idx + i / 2 * idx_h + j / 2 * VW, where);
        }
}

/* A product's m channels of tiles [first, first + n) of a group of rows from `top` on, from p[point][m][n]. */
INLINE void winograd_n_store(const fc_winograd_n_args *a, winograd_n_plane plane, int64_t image, int64_t channel, int64_t m,
                             int64_t top, int64_t first, int64_t n, const float *p) {
    const int64_t shrink = a->pool ? 2 : 1, idx_c = a->oh / 2 * (a->ow / 2) * VW;
    for (int64_t j = 0; j < n; j++) {
        const int64_t oh = (top + (first + j) / plane.wide) * plane.m, ow = (first + j) % plane.wide * plane.m;
        const int64_t y_at = oh / shrink * a->y_h + ow / shrink * VW, idx_at = (oh / 2 * (a->ow / 2) + ow / 2) * VW;
        for (int64_t i = 0; i < m; i++) {
            const int64_t o = channel + i;
            const vec bias = a->bias ? vset(a->bias[o]) : (vec){0};
            float *y = a->y + image * a->y_n + o * a->y_c + y_at;
            int32_t *idx = a->idx ? a->idx + (image * a->o + o) * idx_c + idx_at : NULL;
            const float *from = p + (i * n + j) * VW;
#define BODY(side, r) \
    winograd_n_out(side, r, a, from, winograd_n_spread(m * n * VW), bias, a->oh - oh, a->ow - ow, y, idx, oh * a->ow + ow)
            WINOGRAD_N_KINDS(plane.side, plane.r, BODY);
#undef BODY
        }
    }
}

FC_DEFINE(winograd_n) {
    const winograd_n_plane plane = winograd_n_cut(a->side, a->r, a->oh, a->ow, a->rows);
    const int64_t most = cut_size(plane.rows, 0) * plane.wide;
    winograd_n_place *place = (winograd_n_place *)(a->scratch + ith * a->scratch_size);
    vec *line = (vec *)(place + (most + 15) / 16 * 16);
    float *v = (float *)(line + plane.side * (plane.m * plane.wide + plane.side - plane.m));
    float products[SIDE_MOST * SIDE_MOST * (TILE_N_MOST * VW + 32)];
    int64_t lo, hi;
    share(a->n * plane.groups, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t image = item / plane.groups, group = item % plane.groups;
        const int64_t top = cut_start(plane.rows, group), rows = cut_size(plane.rows, group);
        const winograd_n_grid grid = winograd_n_cut_group(a->o, most, rows * plane.wide);
        winograd_n_place_parts(grid, plane.points, a->c, place);
        for (int64_t c = 0; c < a->c; c++) {
            for (int64_t row = 0; row < rows; row++)
                winograd_n_in(a->side, a->r, a->x + image * a->x_n + c * a->x_c, a->x_h, a->h, a->w, (top + row) * plane.m - a->pad_h,
                              -a->pad_w, plane.wide, line, v, place + row * plane.wide);
            for (int64_t t = 0; t < rows * plane.wide; t++) place[t].at += place[t].channel_step;
        }
        for (int64_t part = 0; part < grid.parts; part++) {
            const int64_t n = cut_size(grid.tiles, part), first = cut_start(grid.tiles, part);
            for (int64_t panel = 0; panel < grid.panels; panel++) {
                const int64_t m = cut_size(grid.channels, panel), channel = cut_start(grid.channels, panel);
                winograd_n_tiles[m - 1][n - 1](a->u + channel * plane.points * a->c, v + winograd_n_start(grid.tiles, part, plane.points, a->c * VW), a->c,
                                               plane.points, products);
                winograd_n_store(a, plane, image, channel, m, top, first, n, products);
            }
        }
    }
}

/* ---- data gradient ---- */

/* Adds a row of tiles of input gradients, from the points at place (one channel), to the rows of dx that it meets: rows that
 * the row of tiles before has not reached are written, those that the next one does not reach are masked. */
INLINE void winograd_n_add_body(const int side, const int r, const fc_winograd_n_data_args *a,
                                const winograd_n_plane *plane, int64_t tile_row, vec *line, const float *p,
                                const winograd_n_place *place, float *dx, const float *mask) {
    const int m = side + 1 - r;
    const int64_t cols = m * plane->wide + side - m, top = tile_row * m - a->pad_h;
    for (int64_t j = 0; j < side * cols; j++) line[j] = (vec){0};
    for (int64_t t = 0; t < plane->wide; t++) {
        const float *from = p + place[t].at;
        for (int i = 0; i < side; i++) {
            vec q[SIDE_MOST], d[SIDE_MOST], *to = line + i * cols + m * t;
#pragma GCC unroll 9
            for (int j = 0; j < side; j++, from += place[t].point_step) q[j] = vload(from);
            winograd_n_inputs_of(side, d, q);
#pragma GCC unroll 9
            for (int j = 0; j < side; j++) to[j] += d[j];
        }
    }
    for (int64_t j = a->pad_w; j < cols && j < a->w + a->pad_w; j++) {
        vec q[SIDE_MOST], d[SIDE_MOST];
#pragma GCC unroll 9
        for (int i = 0; i < side; i++) q[i] = line[i * cols + j];
        winograd_n_inputs_of(side, d, q);
#pragma GCC unroll 9
        for (int i = 0; i < side; i++) {
            const int64_t row = top + i;
            if (row < 0 || row >= a->h) continue;
            float *to = dx + row * a->x_h + (j - a->pad_w) * VW;
            vec value = d[i];
            if (tile_row > 0 && i < side - m) value += vload(to);
            if (mask && (i < m || tile_row == plane->high - 1))
                value = vmask(value, vload(mask + row * a->m_h + (j - a->pad_w) * VW));
            vstore(to, value);
        }
    }
}

static void winograd_n_add(const fc_winograd_n_data_args *a, const winograd_n_plane *plane, int64_t tile_row, vec *line,
                           const float *p, const winograd_n_place *place, float *dx, const float *mask) {
#define BODY(side, r) winograd_n_add_body(side, r, a, plane, tile_row, line, p, place, dx, mask)
    WINOGRAD_N_KINDS(plane->side, plane->r, BODY);
#undef BODY
}

/* Zeros for the input gradients that no tile reaches. */
INLINE void winograd_n_clear(const fc_winograd_n_data_args *a, const winograd_n_plane *plane, float *dx) {
    const int64_t over = plane->side - plane->m, bottom = plane->m * plane->high + over - a->pad_h;
    const int64_t right = plane->m * plane->wide + over - a->pad_w;
    for (int64_t row = 0; row < a->h && (bottom < a->h || right < a->w); row++)
        for (int64_t col = row < bottom ? right : 0; col < a->w; col++) vstore(dx + row * a->x_h + col * VW, (vec){0});
}

FC_DEFINE(winograd_n_data) {
    const winograd_n_plane plane = winograd_n_cut(a->side, a->r, a->oh, a->ow, a->rows);
    const int64_t most = cut_size(plane.rows, 0) * plane.wide;
    winograd_n_place *place = (winograd_n_place *)(a->scratch + ith * a->scratch_size), *back = place + (most + 15) / 16 * 16;
    vec *line = (vec *)(back + (most + 15) / 16 * 16);
    float *v = (float *)(line + plane.side * (plane.m * plane.wide + plane.side - plane.m)), *sums = v + plane.points * most * (a->o * VW + 32);
    /* rows of tiles overlap in dx: a thread has all of them, for all channels or, of few images, for some */
    winograd_n_grid grid = winograd_n_cut_group(a->c, most, most);
    int64_t split = nth > a->n ? (nth + a->n - 1) / a->n : 1, lo, hi;
    if (split > grid.panels) split = grid.panels;
    share(a->n * split, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t image = item / split, begin = grid.panels * (item % split) / split;
        const int64_t end = grid.panels * (item % split + 1) / split;
        for (int64_t group = 0; group < plane.groups; group++) {
            const int64_t top = cut_start(plane.rows, group), rows = cut_size(plane.rows, group), count = rows * plane.wide;
            grid = winograd_n_cut_group(a->c, most, count);
            winograd_n_place_parts(grid, plane.points, a->o, place);
            for (int64_t o = 0; o < a->o; o++) {
                for (int64_t row = 0; row < rows; row++)
                    winograd_n_dy(a->side, a->r, a->dy + image * a->y_n + o * a->y_c + (top + row) * plane.m * a->y_h,
                                         a->y_h, a->oh - (top + row) * plane.m, a->ow, plane.wide, line, v,
                                         place + row * plane.wide);
                for (int64_t t = 0; t < count; t++) place[t].at += place[t].channel_step;
            }
            for (int64_t panel = begin; panel < end; panel++) {
                const int64_t m = cut_size(grid.channels, panel), channel = cut_start(grid.channels, panel);
                for (int64_t part = 0; part < grid.parts; part++)
                    winograd_n_tiles[m - 1][cut_size(grid.tiles, part) - 1](
                        a->u + channel * plane.points * a->o, v + winograd_n_start(grid.tiles, part, plane.points, a->o * VW), a->o, plane.points,
                        sums + winograd_n_start(grid.tiles, part, plane.points, m * VW));
                winograd_n_place_parts(grid, plane.points, m, back);
                for (int64_t i = 0; i < m; i++) {
                    float *dx = a->dx + image * a->x_n + (channel + i) * a->x_c;
                    const float *mask = a->mask ? a->mask + image * a->m_n + (channel + i) * a->m_c : NULL;
                    if (group == 0) winograd_n_clear(a, &plane, dx);
                    for (int64_t row = 0; row < rows; row++)
                        winograd_n_add(a, &plane, top + row, line, sums, back + row * plane.wide, dx, mask);
                    for (int64_t t = 0; t < count; t++) back[t].at += back[t].channel_step;
                }
            }
        }
    }
}
