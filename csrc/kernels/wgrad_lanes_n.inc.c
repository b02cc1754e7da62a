/* Weight gradient with images in the lanes: tiles of m output channels x k run elements, summed lane by lane over the
 * pixels of one block of images after the other, and over the lanes at the end. */
#include "tile_n.h"
#include "transpose.h"

#define WGRAD_N_BUFFER 512 /* vectors of partial sums that a thread keeps */

typedef void (*wgrad_n_tile)(const fc_wgrad_lanes_n_args *a, const float *x, const float *dy, int64_t rows, vec *sums,
                             int64_t stride);

/* sums[m * stride + k] += x * dy over `rows` rows of pixels; m and k are literals. */
INLINE void wgrad_n_body(const int m, const int k, const fc_wgrad_lanes_n_args *a, const float *x, const float *dy,
                         int64_t rows, vec *sums, int64_t stride) {
    vec acc[TILE_N_ROWS][TILE_N_COLS];
#pragma GCC unroll 6
    for (int j = 0; j < k; j++)
#pragma GCC unroll 8
        for (int i = 0; i < m; i++) acc[i][j] = sums[i * stride + j];
    const int64_t x_step = a->x_step, x_w = a->x_w, y_c = a->y_c, y_w = a->y_w;
    for (int64_t row = 0; row < rows; row++, x += a->x_h, dy += a->y_h) {
        const float *xp = x, *dp[(TILE_N_ROWS + 2) / 3];
#pragma GCC unroll 3
        for (int i = 0; i < m; i += 3) dp[i / 3] = dy + i * y_c;
        for (int64_t ow = a->ow; ow > 0; ow--) {
            vec v[TILE_N_COLS];
#pragma GCC unroll 6
            for (int j = 0; j < k; j++) v[j] = vload(xp + j * x_step);
#pragma GCC unroll 8
            for (int i = 0; i < m; i++) {
                vec d = vload(dp[i / 3] + i % 3 * y_c);
#pragma GCC unroll 6
                for (int j = 0; j < k; j++) acc[i][j] += d * v[j];
            }
            xp += x_w;
#pragma GCC unroll 3
            for (int i = 0; i < m; i += 3) dp[i / 3] += y_w;
        }
    }
#pragma GCC unroll 6
    for (int j = 0; j < k; j++)
#pragma GCC unroll 8
        for (int i = 0; i < m; i++) sums[i * stride + j] = acc[i][j];
}

#define WGRAD_N_TILE(m, k)                                                                                         \
    static void wgrad_n_##m##_##k(const fc_wgrad_lanes_n_args *a, const float *x, const float *dy, int64_t rows, \
                                  vec *sums, int64_t stride) {                                                     \
        if (TILE_N_FITS(m, k)) wgrad_n_body(m, k, a, x, dy, rows, sums, stride);                                   \
    }
TILES_N(WGRAD_N_TILE)
#define WGRAD_N_ENTRY(m, k) TILE_N_ENTRY(wgrad_n, m, k)
static const wgrad_n_tile wgrad_n_tiles[TILE_N_ROWS][TILE_N_COLS] = {TILES_N(WGRAD_N_ENTRY)};

/* The same where dy is that of the 2x2 maxima, which idx places: the pixels' own are made on the way. x, dy, idx: of row 0. */
#define WGRAD_N_POOLED_FITS(m, k) ((m) * (k) + (m) + 2 <= VREGS)
typedef void (*wgrad_n_pooled_tile)(const fc_wgrad_lanes_n_args *a, const float *x, const float *dy, const int32_t *idx,
                                    int64_t idx_c, int64_t row, int64_t end, vec *sums, int64_t stride);

INLINE void wgrad_n_pooled_body(const int m, const int k, const fc_wgrad_lanes_n_args *a, const float *x, const float *dy,
                                const int32_t *idx, int64_t idx_c, int64_t row, int64_t end, vec *sums, int64_t stride) {
    vec acc[TILE_N_COLS][TILE_N_ROWS];
#pragma GCC unroll 6
    for (int j = 0; j < k; j++)
#pragma GCC unroll 8
        for (int i = 0; i < m; i++) acc[j][i] = sums[i * stride + j];
    const int64_t x_step = a->x_step, x_w = a->x_w, y_c = a->y_c, pairs = a->ow / 2;
    for (; row < end; row++) {
        const float *xp = x + row * a->x_h, *dp = dy + row / 2 * a->y_h;
        const int32_t *ip = idx + row / 2 * pairs * VW;
        ivec position = iset((int32_t)(row * a->ow));
        for (int64_t pair = 0; pair < pairs; pair++, dp += VW, ip += VW) {
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++, xp += x_w, position += 1) {
                vec d[TILE_N_ROWS];
#pragma GCC unroll 8
                for (int i = 0; i < m; i++)
                    d[i] = (vec)((ivec)(iload(ip + i * idx_c) == position) & (ivec)vload(dp + i * y_c));
#pragma GCC unroll 6
                for (int j = 0; j < k; j++) {
                    const vec v = vload(xp + j * x_step);
#pragma GCC unroll 8
                    for (int i = 0; i < m; i++) acc[j][i] += d[i] * v;
                }
            }
        }
    }
#pragma GCC unroll 6
    for (int j = 0; j < k; j++)
#pragma GCC unroll 8
        for (int i = 0; i < m; i++) sums[i * stride + j] = acc[j][i];
}

#define WGRAD_N_POOLED_TILE(m, k)                                                                                      \
    static void wgrad_n_pooled_##m##_##k(const fc_wgrad_lanes_n_args *a, const float *x, const float *dy,             \
                                         const int32_t *idx, int64_t idx_c, int64_t row, int64_t end, vec *sums,      \
                                         int64_t stride) {                                                             \
        if (WGRAD_N_POOLED_FITS(m, k)) wgrad_n_pooled_body(m, k, a, x, dy, idx, idx_c, row, end, sums, stride);        \
    }
TILES_N(WGRAD_N_POOLED_TILE)
#define WGRAD_N_POOLED_ENTRY(m, k) [m - 1][k - 1] = WGRAD_N_POOLED_FITS(m, k) ? wgrad_n_pooled_##m##_##k : 0,
static const wgrad_n_pooled_tile wgrad_n_pooled_tiles[TILE_N_ROWS][TILE_N_COLS] = {TILES_N(WGRAD_N_POOLED_ENTRY)};

/* The output rows [*low, *high) of a run that lie in rows [begin, end) of image block n, counted within the block. */
INLINE void wgrad_n_rows(const fc_wgrad_lanes_n_args *a, int64_t run, int64_t begin, int64_t end, int64_t *low,
                         int64_t *high) {
    *low = a->rows && a->rows[2 * run] > begin ? a->rows[2 * run] : begin;
    *high = a->rows && a->rows[2 * run + 1] < end ? a->rows[2 * run + 1] : end;
}

/* dw of one channel tile from the sums of run elements; `at` is the first element's place in the flat list of them. */
INLINE void wgrad_n_store(const fc_wgrad_lanes_n_args *a, float *dw, const vec *sums, int64_t stride, int64_t m,
                          int64_t at, int64_t count) {
    for (int64_t done = 0; done < count;) { /* four elements of one run at a time */
        int64_t run = (at + done) / a->run_len, i = (at + done) % a->run_len, left = a->run_len - i;
        if (left > count - done) left = count - done;
        for (; left > 0; left -= 4, done += 4, i += 4) {
            const vec *s = sums + done;
            float *out = dw + a->runs[2 * run + 1] + i * a->w_step;
            for (int64_t j = 0; j < m; j++, s += stride, out += a->w_m) {
                if (left >= 4 && a->w_step == 1) {
                    *(quad_u *)out = sum_four(s[0], s[1], s[2], s[3]);
                } else {
                    vec zero = {0};
                    quad q = sum_four(s[0], left > 1 ? s[1] : zero, left > 2 ? s[2] : zero, left > 3 ? s[3] : zero);
                    for (int64_t e = 0; e < 4 && e < left; e++) out[e * a->w_step] = q[e];
                }
            }
        }
        done += left; /* the last four may have been fewer */
    }
}

/* Tiles [t0, t1) of the runs' elements (each run is cut into `pieces` tiles), for channels [c, c + m) of a panel and one slot. */
INLINE void wgrad_n_item(const fc_wgrad_lanes_n_args *a, const int64_t *panel, int64_t slot, int64_t c, int64_t m,
                         int64_t t0, int64_t t1, int64_t pieces, cuts elements) {
    vec sums[WGRAD_N_BUFFER];
    int64_t first = t0 / pieces * a->run_len + cut_start(elements, t0 % pieces);
    int64_t count = t1 / pieces * a->run_len + cut_start(elements, t1 % pieces) - first;
    int64_t begin = slot * a->n * a->oh / a->slots, end = (slot + 1) * a->n * a->oh / a->slots;
    for (int64_t i = 0; i < count * m; i++) sums[i] = (vec){0};
    for (int64_t row = begin; row < end;) { /* one block of images at a time: its x and dy stay in the cache */
        int64_t n = row / a->oh, from = row - n * a->oh, to = end - n * a->oh < a->oh ? end - n * a->oh : a->oh;
        const float *x = a->x + n * a->x_n + panel[0], *dy = a->dy + n * a->y_n + (panel[2] + c) * a->y_c;
        const int64_t idx_c = a->oh / 2 * (a->ow / 2) * VW;
        const int32_t *idx = a->idx ? a->idx + n * a->idx_n + (panel[2] + c) * idx_c : NULL;
        int64_t run = t0 / pieces, piece = t0 % pieces;
        vec *out = sums;
        for (int64_t t = t0; t < t1; t++) {
            int64_t low, high, k = cut_size(elements, piece);
            wgrad_n_rows(a, run, from, to, &low, &high);
            if (idx && high > a->oh / 2 * 2) high = a->oh / 2 * 2;
            const float *of_piece = x + a->runs[2 * run] + cut_start(elements, piece) * a->x_step;
            if (idx && high > low)
                wgrad_n_pooled_tiles[m - 1][k - 1](a, of_piece, dy, idx, idx_c, low, high, out, count);
            else if (high > low)
                wgrad_n_tiles[m - 1][k - 1](a, of_piece + low * a->x_h, dy + low * a->y_h, high - low, out, count);
            out += k;
            if (++piece == pieces) piece = 0, run++;
        }
        row = n * a->oh + to;
    }
    wgrad_n_store(a, a->dw + slot * a->dw_size + panel[1] + c * a->w_m, sums, count, m, first, count);
}

FC_DEFINE(wgrad_lanes_n) {
    for (int64_t p = 0; p < a->npanels; p++) {
        const int64_t *panel = a->panels + 4 * p;
        int64_t m_tiles, pieces, lo, hi;
        tile_n_choose(panel[3], a->run_len, 1, 0, &m_tiles, &pieces);
        if (a->idx) { /* a run is a tile wide, and as many channels as fit beside it */
            int64_t m = TILE_N_ROWS;
            while (m > 1 && !WGRAD_N_POOLED_FITS(m, a->run_len)) m--;
            m_tiles = (panel[3] + m - 1) / m, pieces = 1;
        }
        cuts rows = cut(panel[3], m_tiles), elements = cut(a->run_len, pieces);
        /* a chunk: whole tiles, as many as the buffer holds and as leave some tens of items to share */
        int64_t all = a->nruns * pieces, wanted = all * m_tiles * a->slots / 64 + 1;
        int64_t per_chunk = WGRAD_N_BUFFER / (cut_size(rows, 0) * cut_size(elements, 0));
        if (per_chunk > wanted) per_chunk = wanted;
        int64_t chunks = (all + per_chunk - 1) / per_chunk;
        share(a->slots * m_tiles * chunks, ith, nth, &lo, &hi);
        for (int64_t item = lo; item < hi; item++) {
            int64_t chunk = item % chunks, tile = item / chunks % m_tiles, slot = item / chunks / m_tiles;
            wgrad_n_item(a, panel, slot, cut_start(rows, tile), cut_size(rows, tile), all * chunk / chunks,
                         all * (chunk + 1) / chunks, pieces, elements);
        }
    }
}
