/* Depthwise convolution with channels in the lanes: every channel has a filter of its own, so all products are of vectors. */
#include "tile_c.h"

/* m pixels of a row; m is a literal, and step, the floats between their windows, may be one. */
INLINE void depthwise_tile(const int m, int64_t step, const fc_depthwise_args *a, const float *x, const float *w,
                           const float *bias, const float *add, const float *mask, float *y) {
    vec acc[8];
#pragma GCC unroll 8
    for (int p = 0; p < m; p++) acc[p] = bias ? vload(bias) : (vec){0};
    for (int64_t t = 0; t < a->ntaps; t++) {
        const float *tap = x + a->taps[t];
        vec wv = vload(w + t * VW);
#pragma GCC unroll 8
        for (int p = 0; p < m; p++) acc[p] += vload(tap + p * step) * wv;
    }
#pragma GCC unroll 8
    for (int p = 0; p < m; p++)
        vstore(y + p * a->y_w, finished(acc[p], add ? add + p * a->r_w : 0, a->act, mask ? mask + p * a->m_w : 0));
}

INLINE void depthwise_row(int64_t step, const fc_depthwise_args *a, const float *x, const float *w, const float *bias,
                          const float *add, const float *mask, float *y) {
    int64_t i = 0;
#define DEPTHWISE_TILES(m)                                                                                   \
    for (; i + m <= a->ow; i += m)                                                                           \
        depthwise_tile(m, step, a, x + i * step, w, bias, add ? add + i * a->r_w : 0, mask ? mask + i * a->m_w : 0, \
                       y + i * a->y_w);
    DEPTHWISE_TILES(8)
    DEPTHWISE_TILES(4)
    DEPTHWISE_TILES(2)
    DEPTHWISE_TILES(1)
#undef DEPTHWISE_TILES
}

FC_DEFINE(depthwise) {
    int64_t lo, hi;
    share(a->n * a->c * a->oh, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t h = row % a->oh, c = row / a->oh % a->c, n = row / a->oh / a->c;
        const float *x = a->x + n * a->x_n + c * a->x_c + h * a->x_h, *w = a->w + c * a->ntaps * VW;
        const float *bias = a->bias ? a->bias + c * VW : 0;
        const float *add = a->add ? a->add + n * a->r_n + c * a->r_c + h * a->r_h : 0;
        const float *mask = a->mask ? a->mask + n * a->m_n + c * a->m_c + h * a->m_h : 0;
        float *y = a->y + n * a->y_n + c * a->y_c + h * a->y_h;
        if (a->x_w == VW)
            depthwise_row(VW, a, x, w, bias, add, mask, y);
        else
            depthwise_row(a->x_w, a, x, w, bias, add, mask, y);
    }
}

/* Adds the products of dy with `count` taps (a literal) over images [first, last) of block c to dw. The sums of a row, of an
 * image and of all images follow each other: the error grows with the count of each. */
INLINE void depthwise_wgrad_taps(const int count, const fc_depthwise_wgrad_args *a, int64_t c, int64_t first, int64_t last,
                                 const int64_t *taps, float *dw) {
    vec all[9] = {0};
    for (int64_t n = first; n < last; n++) {
        vec image[9] = {0};
        for (int64_t h = 0; h < a->oh; h++) {
            const float *x = a->x + n * a->x_n + c * a->x_c + h * a->x_h;
            const float *dy = a->dy + n * a->y_n + c * a->y_c + h * a->y_h;
            vec row[9] = {0};
            for (int64_t w = 0; w < a->ow; w++) {
                vec d = vload(dy + w * a->y_w);
#pragma GCC unroll 9
                for (int t = 0; t < count; t++) row[t] += d * vload(x + w * a->x_w + taps[t]);
            }
#pragma GCC unroll 9
            for (int t = 0; t < count; t++) image[t] += row[t];
        }
#pragma GCC unroll 9
        for (int t = 0; t < count; t++) all[t] += image[t];
    }
#pragma GCC unroll 9
    for (int t = 0; t < count; t++) vstore(dw + t * VW, all[t]);
}

FC_DEFINE(depthwise_wgrad) {
    int64_t lo, hi;
    share(a->slots * a->c, ith, nth, &lo, &hi);
    for (int64_t unit = lo; unit < hi; unit++) {
        int64_t slot = unit / a->c, c = unit % a->c, t = 0;
        int64_t first = a->n * slot / a->slots, last = a->n * (slot + 1) / a->slots;
        float *dw = a->dw + unit * a->ntaps * VW;
        for (; t + 9 <= a->ntaps; t += 9) depthwise_wgrad_taps(9, a, c, first, last, a->taps + t, dw + t * VW);
        for (; t + 5 <= a->ntaps; t += 5) depthwise_wgrad_taps(5, a, c, first, last, a->taps + t, dw + t * VW);
        for (; t < a->ntaps; t++) depthwise_wgrad_taps(1, a, c, first, last, a->taps + t, dw + t * VW);
    }
}
