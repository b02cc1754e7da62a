/* Depthwise convolution with channels in the lanes: every channel has a filter of its own, so all products are of vectors. */
#include "tile_c.h"

/* Of rows of pixels that are computed one after the other, those so many later are asked for: a row takes some 100 cycles. */
#define DEPTHWISE_AHEAD 2

/* Asks for what a window of a row of x adds to the one before. */
INLINE void depthwise_ask(int64_t step, const float *x) {
    __builtin_prefetch(x);
    if (step == 2 * VW) __builtin_prefetch(x + VW);
}

/* m pixels of a row; m and run, the taps of a run, are literals, and step, the floats between windows, may be one: then a
 * vector of x is loaded once for all taps of a run. */
INLINE void depthwise_tile(const int m, const int run, int64_t step, const fc_depthwise_args *a, const float *x,
                           const float *w, const float *bias, const float *add, const float *mask, float *y) {
    vec acc[8];
    const int64_t rows_on = DEPTHWISE_AHEAD * a->x_h, new_rows = step == 2 * VW ? 2 : 1;
#pragma GCC unroll 8
    for (int p = 0; p < m; p++) acc[p] = bias ? vload(bias) : (vec){0};
    for (int64_t r = 0; r < a->nruns; r++, w += run * VW) {
        const float *from = x + a->runs[r];
        vec wv[5];
#pragma GCC unroll 5
        for (int t = 0; t < run; t++) wv[t] = vload(w + t * VW);
#pragma GCC unroll 8
        for (int p = 0; p < m; p++) {
            if (r + new_rows >= a->nruns) depthwise_ask(step, from + rows_on + p * step);
#pragma GCC unroll 5
            for (int t = 0; t < run; t++) acc[p] += vload(from + p * step + t * VW) * wv[t];
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < m; p++)
        vstore(y + p * a->y_w, finished(acc[p], add ? add + p * a->r_w : 0, a->act, mask ? mask + p * a->m_w : 0));
}

INLINE void depthwise_row(const int run, int64_t step, const fc_depthwise_args *a, const float *x, const float *w,
                          const float *bias, const float *add, const float *mask, float *y) {
    int64_t i = 0;
#define DEPTHWISE_TILES(m)                                                                 \
    for (; i + m <= a->ow; i += m)                                                         \
        depthwise_tile(m, run, step, a, x + i * step, w, bias, add ? add + i * a->r_w : 0, \
                       mask ? mask + i * a->m_w : 0, y + i * a->y_w);
    if (a->ow == 7 || a->ow == 11 || a->ow == 14) /* 1.1 to 1.5 x */
        DEPTHWISE_TILES(7)
    DEPTHWISE_TILES(8)
    DEPTHWISE_TILES(4)
    DEPTHWISE_TILES(2)
    DEPTHWISE_TILES(1)
#undef DEPTHWISE_TILES
}

/* Calls `function` with the length of a run and the floats between pixels as literals; those of other strides are 1 long. */
#define DEPTHWISE_RUNS(function, step, ...)        \
    switch (a->run_len) {                          \
    case 2: function(2, step, __VA_ARGS__); break; \
    case 3: function(3, step, __VA_ARGS__); break; \
    case 5: function(5, step, __VA_ARGS__); break; \
    default: function(1, step, __VA_ARGS__);       \
    }
#define DEPTHWISE_STEPS(function, ...)                \
    if (a->x_w == VW) {                               \
        DEPTHWISE_RUNS(function, VW, __VA_ARGS__)     \
    } else if (a->x_w == 2 * VW) {                    \
        DEPTHWISE_RUNS(function, 2 * VW, __VA_ARGS__) \
    } else {                                          \
        function(1, a->x_w, __VA_ARGS__);             \
    }

FC_DEFINE(depthwise) {
    int64_t lo, hi;
    share(a->n * a->c * a->oh, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t h = row % a->oh, c = row / a->oh % a->c, n = row / a->oh / a->c;
        const float *x = a->x + n * a->x_n + c * a->x_c + h * a->x_h, *w = a->w + c * a->nruns * a->run_len * VW;
        const float *bias = a->bias ? a->bias + c * VW : 0;
        const float *add = a->add ? a->add + n * a->r_n + c * a->r_c + h * a->r_h : 0;
        const float *mask = a->mask ? a->mask + n * a->m_n + c * a->m_c + h * a->m_h : 0;
        float *y = a->y + n * a->y_n + c * a->y_c + h * a->y_h;
        DEPTHWISE_STEPS(depthwise_row, a, x, w, bias, add, mask, y)
    }
}

/* Adds the products of m pixels of dy with the taps of `count` runs to sums; m, count and run are literals. */
INLINE void depthwise_wgrad_pixels(const int m, const int count, const int run, int64_t step, const float *x,
                                   const int64_t *runs, const float *dy, int64_t y_w, vec *sums) {
    vec d[4];
#pragma GCC unroll 4
    for (int p = 0; p < m; p++) d[p] = vload(dy + p * y_w);
#pragma GCC unroll 9
    for (int r = 0; r < count; r++)
#pragma GCC unroll 4
        for (int p = 0; p < m; p++)
#pragma GCC unroll 5
            for (int t = 0; t < run; t++) sums[r * run + t] += d[p] * vload(x + runs[r] + p * step + t * VW);
}

/* Adds the products of dy with the taps of `count` runs over images [first, last) of block c to dw; count, and run, the taps of
 * one, are literals. The sums of a row, of an image and of all images follow each other: the error grows with the count of each. */
INLINE void depthwise_wgrad_runs(const int count, const int run, int64_t step, const fc_depthwise_wgrad_args *a,
                                 int64_t c, int64_t first, int64_t last, const int64_t *runs, float *dw) {
    const int sums = count * run;
    const int64_t x_on = DEPTHWISE_AHEAD * a->x_h, y_on = DEPTHWISE_AHEAD * a->y_h;
    vec all[10] = {0};
    for (int64_t n = first; n < last; n++) {
        vec image[10] = {0};
        for (int64_t h = 0; h < a->oh; h++) {
            const float *x = a->x + n * a->x_n + c * a->x_c + h * a->x_h;
            const float *dy = a->dy + n * a->y_n + c * a->y_c + h * a->y_h;
            vec row[10] = {0};
            int64_t w = 0;
            for (; w + 4 <= a->ow; w += 4, x += 4 * step, dy += 4 * a->y_w) {
#pragma GCC unroll 4
                for (int p = 0; p < 4; p++) {
                    __builtin_prefetch(dy + y_on + p * a->y_w);
                    depthwise_ask(step, x + runs[count - 1] + x_on + p * step);
                    if (step == 2 * VW && count > 1) depthwise_ask(step, x + runs[count - 2] + x_on + p * step);
                }
                depthwise_wgrad_pixels(4, count, run, step, x, runs, dy, a->y_w, row);
            }
            for (; w < a->ow; w++, x += step, dy += a->y_w)
                depthwise_wgrad_pixels(1, count, run, step, x, runs, dy, a->y_w, row);
#pragma GCC unroll 10
            for (int t = 0; t < sums; t++) image[t] += row[t];
        }
#pragma GCC unroll 10
        for (int t = 0; t < sums; t++) all[t] += image[t];
    }
#pragma GCC unroll 10
    for (int t = 0; t < sums; t++) vstore(dw + t * VW, all[t]);
}

/* All runs of block c, so many at a time that the sums stay in registers. */
INLINE void depthwise_wgrad_block(const int run, int64_t step, const fc_depthwise_wgrad_args *a, int64_t c,
                                  int64_t first, int64_t last, float *dw) {
    int64_t r = 0;
#define DEPTHWISE_WGRAD_RUNS(count)           \
    for (; r + count <= a->nruns; r += count) \
        depthwise_wgrad_runs(count, run, step, a, c, first, last, a->runs + r, dw + r * run * VW);
    if (run == 1) {
        DEPTHWISE_WGRAD_RUNS(9)
        DEPTHWISE_WGRAD_RUNS(5)
    } else if (run == 3) {
        DEPTHWISE_WGRAD_RUNS(3)
    } else if (run == 5) {
        DEPTHWISE_WGRAD_RUNS(2)
    }
    DEPTHWISE_WGRAD_RUNS(1)
#undef DEPTHWISE_WGRAD_RUNS
}

FC_DEFINE(depthwise_wgrad) {
    int64_t lo, hi;
    share(a->slots * a->c, ith, nth, &lo, &hi);
    for (int64_t unit = lo; unit < hi; unit++) {
        int64_t slot = unit / a->c, c = unit % a->c;
        int64_t first = a->n * slot / a->slots, last = a->n * (slot + 1) / a->slots;
        float *dw = a->dw + unit * a->nruns * a->run_len * VW;
        DEPTHWISE_STEPS(depthwise_wgrad_block, a, c, first, last, dw)
    }
}
