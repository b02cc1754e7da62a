/* Convolution to a few channels, channels in the lanes: a panel of weights would be zeros for the most part, so here the input's
 * channels are the lanes of the sums. */
#include "tile_c.h"

#define FEW 4 /* output channels at most; VW is a multiple */

/* The sums of neighbours: VW / 2 of a, then VW / 2 of b. */
INLINE vec few_pairs(vec a, vec b) { return vevens(a, b) + vodds(a, b); }

/* The sums of the lanes of FEW vectors, and zeros. */
INLINE vec few_sums(const vec *v) {
    vec sums = few_pairs(few_pairs(v[0], v[1]), few_pairs(v[2], v[3]));
    for (int left = VW / FEW; left > 1; left /= 2) sums = few_pairs(sums, (vec){0});
    return sums;
}

/* m pixels of a row, `outs` channels; both are literals. */
INLINE void few_tile(const int m, const int outs, const fc_conv_few_args *a, const float *x, const float *add,
                     const float *mask, float *y) {
    vec acc[8][FEW] = {0};
    const float *w = a->w;
    for (int64_t block = 0; block < a->blocks; block++)
        for (int64_t t = 0; t < a->ntaps; t++, w += outs * VW) {
            const float *tap = x + block * a->x_c + a->taps[t];
            vec wv[FEW];
#pragma GCC unroll 4
            for (int o = 0; o < outs; o++) wv[o] = vload(w + o * VW);
#pragma GCC unroll 8
            for (int p = 0; p < m; p++) {
                vec xv = vload(tap + p * a->x_w);
#pragma GCC unroll 4
                for (int o = 0; o < outs; o++) acc[p][o] += xv * wv[o];
            }
        }
#pragma GCC unroll 8
    for (int p = 0; p < m; p++) {
        vec sums = few_sums(acc[p]);
        if (a->bias) sums += vload(a->bias);
        vstore(y + p * a->y_w, finished(sums, add ? add + p * a->r_w : 0, a->act, mask ? mask + p * a->m_w : 0));
    }
}

/* m: so that the sums fill about 12 registers. */
INLINE void few_row(const int m, const int outs, const fc_conv_few_args *a, const float *x, const float *add,
                    const float *mask, float *y) {
    int64_t i = 0;
    for (; i + m <= a->ow; i += m)
        few_tile(m, outs, a, x + i * a->x_w, add ? add + i * a->r_w : 0, mask ? mask + i * a->m_w : 0, y + i * a->y_w);
    for (; i < a->ow; i++)
        few_tile(1, outs, a, x + i * a->x_w, add ? add + i * a->r_w : 0, mask ? mask + i * a->m_w : 0, y + i * a->y_w);
}

FC_DEFINE(conv_few) {
    int64_t lo, hi;
    share(a->n * a->oh, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t n = row / a->oh, h = row % a->oh;
        const float *x = a->x + n * a->x_n + h * a->x_h;
        const float *add = a->add ? a->add + n * a->r_n + h * a->r_h : 0;
        const float *mask = a->mask ? a->mask + n * a->m_n + h * a->m_h : 0;
        float *y = a->y + n * a->y_n + h * a->y_h;
        switch (a->outs) {
            case 1: few_row(8, 1, a, x, add, mask, y); break;
            case 2: few_row(6, 2, a, x, add, mask, y); break;
            case 3: few_row(4, 3, a, x, add, mask, y); break;
            default: few_row(2, 4, a, x, add, mask, y);
        }
    }
}
