/* Walks a thread's share of the rows of [n][c][h][len] values, in pieces that are as long as the strides allow. */
#ifndef FASTCNN_KERNELS_ROWS_H
#define FASTCNN_KERNELS_ROWS_H

#include "vec.h"

typedef struct {
    int64_t n, c, h; /* the piece's row */
    int64_t at, count; /* its first float in the row, and how many */
    int64_t nc, nh, len, left;
} rows;

/* Each operand's strides {n, c, h}; dimensions that are contiguous in every operand are merged into one. */
INLINE rows rows_share(int64_t n, int64_t c, int64_t h, int64_t len, int64_t (*strides)[3], int operands, int ith,
                       int nth) {
    int flat_h = 1, flat_c = 1;
    for (int i = 0; i < operands; i++) {
        flat_h &= h == 1 || strides[i][2] == len;
        flat_c &= c == 1 || strides[i][1] == h * len;
    }
    if (flat_h) {
        len *= h, h = 1;
        if (flat_c) len *= c, c = 1;
    }
    int64_t total = n * c * h * len, lo, hi;
    share((total + 63) / 64, ith, nth, &lo, &hi); /* whole cache lines: 64 floats is a multiple of every VW */
    lo *= 64;
    hi = hi * 64 < total ? hi * 64 : total;
    rows r = {0, 0, 0, 0, 0, c, h, len, hi - lo};
    if (lo < hi) {
        int64_t row = lo / len;
        r.at = lo % len;
        r.h = row % h;
        r.c = row / h % c;
        r.n = row / h / c;
    }
    return r;
}

/* Moves to the next piece; 0 at the end. */
INLINE int rows_next(rows *r) {
    if (r->count > 0) {
        r->at += r->count;
        if (r->at == r->len) {
            r->at = 0;
            if (++r->h == r->nh) {
                r->h = 0;
                if (++r->c == r->nc) r->c = 0, r->n++;
            }
        }
    }
    int64_t rest = r->len - r->at;
    r->count = rest < r->left ? rest : r->left;
    r->left -= r->count;
    return r->count > 0;
}

#define ROW_AT(r, p, p_n, p_c, p_h) ((p) + (r).n * (p_n) + (r).c * (p_c) + (r).h * (p_h) + (r).at)

#endif
