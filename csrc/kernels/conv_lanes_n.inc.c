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

INLINE void conv_n_runs(const int m, const int n, const fc_conv_lanes_n_args *a, const conv_n_job *job,
                        vec acc[TILE_N_ROWS][TILE_N_COLS]) {
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
}

/* m and n are literals. Channels are reached from every third one, so that an address is a base and 0 to 2 steps. */
INLINE void conv_n_body(const int m, const int n, const fc_conv_lanes_n_args *a, const conv_n_job *job) {
    vec acc[TILE_N_ROWS][TILE_N_COLS];
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
#pragma GCC unroll 6
        for (int j = 0; j < n; j++) acc[i][j] = job->bias ? vset(job->bias[i]) : (vec){0};
    conv_n_runs(m, n, a, job, acc);
    if (a->act) {
#pragma GCC unroll 8
        for (int i = 0; i < m; i++)
#pragma GCC unroll 6
            for (int j = 0; j < n; j++) acc[i][j] = vrelu(acc[i][j]);
    }
    if (job->mask) {
        const float *mask = job->mask;
#pragma GCC unroll 8
        for (int i = 0; i < m; i++, mask += a->m_c)
#pragma GCC unroll 6
            for (int j = 0; j < n; j++) acc[i][j] = vmask(acc[i][j], vload(mask + j * a->m_w));
    }
    float *y = job->y;
    const int64_t y_c = job->y_c, y_w = job->y_w;
#pragma GCC unroll 8
    for (int i = 0; i < m; i++, y += y_c)
#pragma GCC unroll 6
        for (int j = 0; j < n; j++) vstore(y + j * y_w, acc[i][j]);
}

#define CONV_N_TILE(m, n)                                                                \
    static void conv_n_##m##_##n(const fc_conv_lanes_n_args *a, const conv_n_job *job) { \
        if (TILE_N_FITS(m, n)) conv_n_body(m, n, a, job);                                \
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

/* The tile of channels from channel c of a panel on: its bias and its weights. */
INLINE void conv_n_channels(const fc_conv_lanes_n_args *a, conv_n_job *job, const int64_t *panel, int64_t c) {
    job->bias = a->bias ? a->bias + panel[2] + c : 0;
    job->w = a->w + panel[1] + c * a->w_m;
}

INLINE void conv_n_at_row(const fc_conv_lanes_n_args *a, conv_n_job *job, const int64_t *panel, int64_t n, int64_t oh,
                          int64_t ow) {
    job->run_first = a->rows ? a->rows[2 * oh] : 0;
    job->run_last = a->rows ? a->rows[2 * oh + 1] : a->nruns;
    job->x = a->x + n * a->x_n + panel[0] + oh * a->x_h + ow * a->x_w;
}

/* One row of output pixels, channel tiles [first, last) of a panel. Pixels outside: x is read once, from the nearest cache. */
INLINE void conv_n_row(const fc_conv_lanes_n_args *a, const int64_t *panel, int64_t n, int64_t oh, cuts rows,
                       int64_t first, int64_t last, cuts cols, int64_t col_tiles) {
    conv_n_job job = {.y_c = a->y_c, .y_w = a->y_w};
    for (int64_t col = 0; col < col_tiles; col++) {
        int64_t ow = cut_start(cols, col), pixels = cut_size(cols, col);
        conv_n_limit(a, &job, ow, pixels);
        conv_n_at_row(a, &job, panel, n, oh, ow);
        for (int64_t tile = first; tile < last; tile++) {
            int64_t c = cut_start(rows, tile), channels = cut_size(rows, tile), o = panel[2] + c;
            conv_n_channels(a, &job, panel, c);
            job.mask = a->mask ? a->mask + n * a->m_n + o * a->m_c + oh * a->m_h + ow * a->m_w : 0;
            job.y = a->y + n * a->y_n + o * a->y_c + oh * a->y_h + ow * a->y_w;
            conv_n_tiles[channels - 1][pixels - 1](a, &job);
        }
    }
}

/* The 2x2 maxima of two rows of a tile: top and bottom are [channels][2*pairs], position that of the first pixel. */
INLINE void conv_n_pool(const vec *top, const vec *bottom, int64_t channels, int64_t pairs, float *y, int64_t y_c,
                        int64_t y_w) {
    for (; channels > 0; channels--, y += y_c) {
        float *out = y;
        for (int64_t j = 0; j < pairs; j++, top += 2, bottom += 2, out += y_w)
            vstore(out, vmax(vmax(top[0], top[1]), vmax(bottom[0], bottom[1])));
    }
}

INLINE void conv_n_pool_where(const vec *top, const vec *bottom, int64_t channels, int64_t pairs, float *y, int64_t y_c,
                              int64_t y_w, int32_t *idx, int64_t idx_c, int32_t position, int32_t below) {
    for (; channels > 0; channels--, y += y_c, idx += idx_c) {
        float *out = y;
        int32_t *out_idx = idx;
        ivec at = iset(position);
        for (int64_t j = 0; j < pairs; j++, top += 2, bottom += 2, out += y_w, out_idx += VW, at += 2) {
            vec best = top[0];
            ivec where = at;
            vmax_where(&best, &where, top[1], at + 1);
            vmax_where(&best, &where, bottom[0], at + below);
            vmax_where(&best, &where, bottom[1], at + below + 1);
            vstore(out, best);
            istore(out_idx, where);
        }
    }
}

/* As conv_n_row for a pooled row; oh is its upper row, columns come in pairs. */
INLINE void conv_n_pooled_row(const fc_conv_lanes_n_args *a, const int64_t *panel, int64_t n, int64_t oh, cuts rows,
                              int64_t first, int64_t last, cuts cols, int64_t col_tiles) {
    vec buffer[2][TILE_N_ROWS * TILE_N_COLS];
    int64_t pairs_of_row = a->ow / 2, idx_c = a->oh / 2 * pairs_of_row * VW, channels_of_all = 0;
    for (int64_t p = 0; p < a->npanels; p++) channels_of_all += a->panels[4 * p + 3];
    conv_n_job job[2] = {{.y = (float *)buffer[0], .y_w = VW}, {.y = (float *)buffer[1], .y_w = VW}};
    for (int row = 0; row < 2; row++) conv_n_at_row(a, &job[row], panel, n, oh + row, 0);
    const float *x = job[0].x;
    const int64_t x_h = a->x_h;
    for (int64_t tile = first; tile < last; tile++) {
        int64_t c = cut_start(rows, tile), channels = cut_size(rows, tile), o = panel[2] + c;
        conv_n_channels(a, &job[0], panel, c);
        job[1].w = job[0].w, job[1].bias = job[0].bias;
        float *y = a->y + n * a->y_n + o * a->y_c + oh / 2 * a->y_h;
        int32_t *idx = a->idx ? a->idx + (n * channels_of_all + o) * idx_c + oh / 2 * pairs_of_row * VW : NULL;
        for (int64_t col = 0; col < col_tiles; col++) {
            int64_t pair = cut_start(cols, col), pairs = cut_size(cols, col), ow = 2 * pair;
            const conv_n_tile run = conv_n_tiles[channels - 1][2 * pairs - 1];
            conv_n_limit(a, &job[0], ow, 2 * pairs);
            job[1].first = job[0].first, job[1].last = job[0].last;
            job[0].x = x + ow * a->x_w, job[1].x = job[0].x + x_h;
            job[0].y_c = job[1].y_c = 2 * pairs * VW;
            run(a, &job[0]);
            run(a, &job[1]);
            if (idx)
                conv_n_pool_where(buffer[0], buffer[1], channels, pairs, y + pair * a->y_w, a->y_c, a->y_w,
                                  idx + pair * VW, idx_c, (int32_t)(oh * a->ow + ow), (int32_t)a->ow);
            else
                conv_n_pool(buffer[0], buffer[1], channels, pairs, y + pair * a->y_w, a->y_c, a->y_w);
        }
    }
}

FC_DEFINE(conv_lanes_n) {
    int64_t row_height = a->pool ? 2 : 1, rows_of_image = a->oh / row_height, count = a->n * rows_of_image;
    for (int64_t p = 0; p < a->npanels; p++) {
        const int64_t *panel = a->panels + 4 * p;
        int64_t tiles, col_tiles, lo, hi;
        tile_n_choose(panel[3], a->ow / row_height, row_height, 1, &tiles, &col_tiles);
        cuts rows = cut(panel[3], tiles), cols = cut(a->ow / row_height, col_tiles);
        share(count * tiles, ith, nth, &lo, &hi);
        for (int64_t at = lo; at < hi;) {
            int64_t row = at / tiles, first = at % tiles, last = hi - row * tiles < tiles ? hi - row * tiles : tiles;
            int64_t n = row / rows_of_image, oh = row % rows_of_image * row_height;
            if (a->pool)
                conv_n_pooled_row(a, panel, n, oh, rows, first, last, cols, col_tiles);
            else
                conv_n_row(a, panel, n, oh, rows, first, last, cols, col_tiles);
            at = row * tiles + last;
        }
    }
}
