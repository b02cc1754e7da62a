/* What the lanes_c tiles share: how many rows of accumulators fit, and how work is cut. */
#ifndef FASTCNN_KERNELS_TILE_C_H
#define FASTCNN_KERNELS_TILE_C_H

#include "vec.h"

#define TILE_ACCS (TILE_M * TILE_NV) /* accumulator registers of a tile */
#define TILE_MAX 14                  /* broadcast rows of a tile, whatever nb is */
#define NV_MAX 4

/* Broadcast rows of a tile beside nb vectors. */
INLINE int64_t tile_rows(int64_t nb) { return TILE_ACCS / nb < TILE_MAX ? TILE_ACCS / nb : TILE_MAX; }

/* FN##_<nb>_<m> for every tile, and FN##_table[nb - 1][m - 1]; tiles that do not fit are null and never emitted. */
#define TILES_OF(DEFINE, nb)                                                                                         \
    DEFINE(nb, 1) DEFINE(nb, 2) DEFINE(nb, 3) DEFINE(nb, 4) DEFINE(nb, 5) DEFINE(nb, 6) DEFINE(nb, 7) DEFINE(nb, 8) \
    DEFINE(nb, 9) DEFINE(nb, 10) DEFINE(nb, 11) DEFINE(nb, 12) DEFINE(nb, 13) DEFINE(nb, 14)
#define TILES(DEFINE) TILES_OF(DEFINE, 1) TILES_OF(DEFINE, 2) TILES_OF(DEFINE, 3) TILES_OF(DEFINE, 4)
#define TILE_ENTRY(fn, nb, m) [nb - 1][m - 1] = nb * m <= TILE_ACCS ? fn##_##nb##_##m : 0,

/* Those of `rows` equal rows, of weight `weight` each and beginning at `start`, whose beginning lies in [lo, hi). */
INLINE void rows_within(int64_t start, int64_t weight, int64_t rows, int64_t lo, int64_t hi, int64_t *first,
                        int64_t *last) {
    int64_t f = lo <= start ? 0 : (lo - start + weight - 1) / weight;
    int64_t l = hi <= start ? 0 : (hi - start + weight - 1) / weight;
    *first = f < rows ? f : rows;
    *last = l < rows ? l : rows;
}

/* Output vectors of panels [begin, end), each {x offset, first block, number of blocks}. */
INLINE int64_t panel_vectors(const int64_t *panels, int64_t begin, int64_t end) {
    int64_t vectors = 0;
    for (int64_t p = begin; p < end; p++) vectors += panels[3 * p + 2];
    return vectors;
}

/* A sum of one pixel, finished: what is added (or NULL), the activation, the mask (or NULL). */
INLINE vec finished(vec sum, const float *add, int64_t act, const float *mask) {
    if (add) sum += vload(add);
    if (act) sum = vrelu(sum);
    return mask ? vmask(sum, vload(mask)) : sum;
}

#endif
