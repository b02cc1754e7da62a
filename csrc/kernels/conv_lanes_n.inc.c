/* Convolution with images in the lanes: a register tile of m output channels x n output pixels; weights are broadcast.
 * With pooling, a tile is computed for two rows, which meet in a buffer. */
#include "tile_n.h"

typedef struct {
    const float *x, *w, *bias, *mask;
    float *y;
    int64_t y_c, y_w;
    int64_t run_first, run_last, first, last; /* the runs, and the elements of a run, that meet the input */
} conv_n_job;

typedef void (*conv_n_tile)(const fc_conv_lanes_n_args *a, const conv_n_job *job);

/* m and n are literals. Channels are reached from every third one, so that an address is a base and 0 to 2 steps. */
INLINE void conv_n_body(const int m, const int n, const fc_conv_lanes_n_args *a, const conv_n_job *job) {
    vec acc[TILE_N_ROWS][TILE_N_COLS];
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
#pragma GCC unroll 6
        for (int j = 0; j < n; j++) acc[i][j] = job->bias ? vset(job->bias[i]) : (vec){0};

    const int64_t w_m = a->w_m, x_w = a->x_w, x_step = a->x_step, w_step = a->w_step;
    const int64_t *runs = a->runs + 2 * job->run_first, *runs_end = a->runs + 2 * job->run_last;
    for (; runs < runs_end; runs += 2) {
        const float *x = job->x + runs[0] + job->first * x_step;
        const float *w[(TILE_N_ROWS + 2) / 3];
#pragma GCC unroll 3
        for (int i = 0; i < m; i += 3) w[i / 3] = job->w + runs[1] + job->first * w_step + i * w_m;
        for (int64_t k = job->last - job->first; k > 0; k--) {
            vec v[TILE_N_COLS];
#pragma GCC unroll 6
            for (int j = 0; j < n; j++) v[j] = vload(x + j * x_w);
#pragma GCC unroll 8
            for (int i = 0; i < m; i++) {
                vec b = vset(w[i / 3][i % 3 * w_m]);
#pragma GCC unroll 6
                for (int j = 0; j < n; j++) acc[i][j] += b * v[j];
            }
            x += x_step;
#pragma GCC unroll 3
            for (int i = 0; i < m; i += 3) w[i / 3] += w_step;
        }
    }

#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
#pragma GCC unroll 6
        for (int j = 0; j < n; j++) {
            vec out = acc[i][j];
            if (a->act) out = vrelu(out);
            if (job->mask) out = vmask(out, vload(job->mask + i * a->m_c + j * a->m_w));
            vstore(job->y + i * job->y_c + j * job->y_w, out);
        }
}

#define CONV_N_TILE(m, n)                                                                 \
    static void conv_n_##m##_##n(const fc_conv_lanes_n_args *a, const conv_n_job *job) { \
        if (TILE_N_FITS(m, n)) conv_n_body(m, n, a, job);                                 \
    }
TILES_N(CONV_N_TILE)
#define CONV_N_ENTRY(m, n) TILE_N_ENTRY(conv_n, m, n)
static const conv_n_tile conv_n_tiles[TILE_N_ROWS][TILE_N_COLS] = {TILES_N(CONV_N_ENTRY)};

/* The elements of a run that meet the input for some of the output pixels [ow, ow + pixels). */
INLINE void conv_n_limit(const fc_conv_lanes_n_args *a, conv_n_job *job, int64_t ow, int64_t pixels) {
    job->first = 0, job->last = a->run_len;
    if (!a->cols) return;
    job->first = a->run_len, job->last = 0;
    for (int64_t j = ow; j < ow + pixels; j++) {
        if (a->cols[2 * j] < job->first) job->first = a->cols[2 * j];
        if (a->cols[2 * j + 1] > job->last) job->last = a->cols[2 * j + 1];
    }
}

/* The channel tile that begins at channel c of a panel: its weights and bias. */
INLINE void conv_n_channels(const fc_conv_lanes_n_args *a, conv_n_job *job, const int64_t *panel, int64_t c) {
    job->w = a->w + panel[1] + c * a->w_m;
    job->bias = a->bias ? a->bias + panel[2] + c : 0;
}

INLINE void conv_n_at_row(const fc_conv_lanes_n_args *a, conv_n_job *job, const int64_t *panel, int64_t n, int64_t oh,
                          int64_t ow) {
    job->run_first = a->rows ? a->rows[2 * oh] : 0;
    job->run_last = a->rows ? a->rows[2 * oh + 1] : a->nruns;
    job->x = a->x + n * a->x_n + panel[0] + oh * a->x_h + ow * a->x_w;
}

/* One row of output pixels, channel tiles [first, last) of `tiles` of a panel. */
INLINE void conv_n_row(const fc_conv_lanes_n_args *a, const int64_t *panel, int64_t n, int64_t oh, int64_t tiles,
                       int64_t first, int64_t last, int64_t col_tiles) {
    conv_n_job job = {.y_c = a->y_c, .y_w = a->y_w};
    for (int64_t col = 0; col < col_tiles; col++) { /* pixels outside: x is read once, from the nearest cache */
        int64_t ow = tile_n_start(a->ow, col_tiles, col), pixels = tile_n_start(a->ow, col_tiles, col + 1) - ow;
        conv_n_limit(a, &job, ow, pixels);
        conv_n_at_row(a, &job, panel, n, oh, ow);
        for (int64_t tile = first; tile < last; tile++) {
            int64_t c = tile_n_start(panel[3], tiles, tile), channels = tile_n_start(panel[3], tiles, tile + 1) - c;
            int64_t o = panel[2] + c;
            conv_n_channels(a, &job, panel, c);
            job.mask = a->mask ? a->mask + n * a->m_n + o * a->m_c + oh * a->m_h + ow * a->m_w : 0;
            job.y = a->y + n * a->y_n + o * a->y_c + oh * a->y_h + ow * a->y_w;
            conv_n_tiles[channels - 1][pixels - 1](a, &job);
        }
    }
}

/* The 2x2 maxima of two rows of a tile: top and bottom are [channels][pixels], position that of the first pixel. */
INLINE void conv_n_pool(const fc_conv_lanes_n_args *a, const vec *top, const vec *bottom, int64_t channels, int64_t pixels,
                        float *y, int32_t *idx, int64_t idx_c, int32_t position) {
    for (int64_t i = 0; i < channels; i++, y += a->y_c, idx += idx ? idx_c : 0)
        for (int64_t j = 0; j < pixels; j += 2, top += 2, bottom += 2) {
            vec best = top[0];
            if (idx) {
                int32_t at = position + (int32_t)j;
                ivec where = iset(at);
                vmax_where(&best, &where, top[1], at + 1);
                vmax_where(&best, &where, bottom[0], at + (int32_t)a->ow);
                vmax_where(&best, &where, bottom[1], at + (int32_t)a->ow + 1);
                istore(idx + j / 2 * VW, where);
            } else {
                best = vmax(vmax(best, top[1]), vmax(bottom[0], bottom[1]));
            }
            vstore(y + j / 2 * a->y_w, best);
        }
}

/* As conv_n_row for a pooled row; oh is its upper row, columns come in pairs. */
INLINE void conv_n_pooled_row(const fc_conv_lanes_n_args *a, const int64_t *panel, int64_t n, int64_t oh, int64_t tiles,
                              int64_t first, int64_t last, int64_t col_tiles) {
    vec buffer[2][TILE_N_ROWS * TILE_N_COLS];
    int64_t pairs = a->ow / 2, idx_c = a->oh / 2 * pairs * VW, channels_all = 0;
    for (int64_t p = 0; p < a->npanels; p++) channels_all += a->panels[4 * p + 3];
    for (int64_t col = 0; col < col_tiles; col++) {
        int64_t pair = tile_n_start(pairs, col_tiles, col), ow = 2 * pair;
        int64_t pixels = 2 * (tile_n_start(pairs, col_tiles, col + 1) - pair);
        conv_n_job job = {.y_c = pixels * VW, .y_w = VW};
        conv_n_limit(a, &job, ow, pixels);
        for (int64_t tile = first; tile < last; tile++) {
            int64_t c = tile_n_start(panel[3], tiles, tile), channels = tile_n_start(panel[3], tiles, tile + 1) - c;
            int64_t o = panel[2] + c;
            conv_n_channels(a, &job, panel, c);
            for (int64_t row = 0; row < 2; row++) {
                conv_n_at_row(a, &job, panel, n, oh + row, ow);
                job.y = (float *)buffer[row];
                conv_n_tiles[channels - 1][pixels - 1](a, &job);
            }
            float *y = a->y + n * a->y_n + o * a->y_c + oh / 2 * a->y_h + pair * a->y_w;
            int32_t *idx = a->idx ? a->idx + (n * channels_all + o) * idx_c + (oh / 2 * pairs + pair) * VW : NULL;
            conv_n_pool(a, buffer[0], buffer[1], channels, pixels, y, idx, idx_c, (int32_t)(oh * a->ow + ow));
        }
    }
}

FC_DEFINE(conv_lanes_n) {
    int64_t row_height = a->pool ? 2 : 1, rows_of_image = a->oh / row_height, rows = a->n * rows_of_image;
    for (int64_t p = 0; p < a->npanels; p++) {
        const int64_t *panel = a->panels + 4 * p;
        int64_t tiles, col_tiles, lo, hi;
        tile_n_choose(panel[3], a->ow / row_height, row_height, 1, &tiles, &col_tiles);
        share(rows * tiles, ith, nth, &lo, &hi);
        for (int64_t at = lo; at < hi;) {
            int64_t row = at / tiles, first = at % tiles, last = hi - row * tiles < tiles ? hi - row * tiles : tiles;
            int64_t n = row / rows_of_image, oh = row % rows_of_image * row_height;
            if (a->pool)
                conv_n_pooled_row(a, panel, n, oh, tiles, first, last, col_tiles);
            else
                conv_n_row(a, panel, n, oh, tiles, first, last, col_tiles);
            at = row * tiles + last;
        }
    }
}
