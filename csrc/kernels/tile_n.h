/* What the lanes_n tiles share: which fit into the registers. */
#ifndef FASTCNN_KERNELS_TILE_N_H
#define FASTCNN_KERNELS_TILE_N_H

#include "vec.h"

#define TILE_N_ROWS 8 /* output channels of a tile at most */
#define TILE_N_COLS 6 /* vectors of x beside them at most */

/* rows x cols accumulators, cols vectors and one more operand must fit. */
#define TILE_N_FITS(rows, cols) ((rows) * (cols) + (cols) + 1 <= VREGS)

#define TILES_N_OF(DEFINE, rows) \
    DEFINE(rows, 1) DEFINE(rows, 2) DEFINE(rows, 3) DEFINE(rows, 4) DEFINE(rows, 5) DEFINE(rows, 6)
#define TILES_N(DEFINE)                                                                                      \
    TILES_N_OF(DEFINE, 1) TILES_N_OF(DEFINE, 2) TILES_N_OF(DEFINE, 3) TILES_N_OF(DEFINE, 4) TILES_N_OF(DEFINE, 5) \
    TILES_N_OF(DEFINE, 6) TILES_N_OF(DEFINE, 7) TILES_N_OF(DEFINE, 8)
#define TILE_N_ENTRY(fn, rows, cols) [rows - 1][cols - 1] = TILE_N_FITS(rows, cols) ? fn##_##rows##_##cols : 0,

/* Half cycles of one step of a tile, fitted to Zen 3: two multiply-adds a cycle with four cycles of latency, a little for
 * the loads, and more where the vectors (`wide` of them) outnumber the rows that share each. */
INLINE int64_t tile_n_cost(int64_t rows, int64_t cols, int wide) {
    int64_t work = rows * cols > 8 ? rows * cols : 8;
    return work + 2 + (wide && cols >= rows ? cols - rows + 1 : 0);
}

/* The number of tiles along rows and cols, of nearly equal size, that takes the least time. Columns come in units of
 * `unit`, which no tile cuts: cols counts units. wide: wide tiles are slow. */
INLINE void tile_n_choose(int64_t rows, int64_t cols, int64_t unit, int wide, int64_t *row_tiles,
                          int64_t *col_tiles) {
    int64_t best = INT64_MAX;
    *row_tiles = *col_tiles = 1;
    for (int64_t m = 1; m <= TILE_N_ROWS; m++)
        for (int64_t n = 1; n * unit <= TILE_N_COLS && TILE_N_FITS(m, n * unit); n++) {
            int64_t mt = (rows + m - 1) / m, nt = (cols + n - 1) / n;
            int64_t m_long = rows % mt ? rows % mt : mt, n_long = cols % nt ? cols % nt : nt; /* how many are longer */
            int64_t ml = (rows + mt - 1) / mt, nl = (cols + nt - 1) / nt * unit, ms = rows / mt, ns = cols / nt * unit;
            int64_t cost = m_long * (n_long * tile_n_cost(ml, nl, wide) + (nt - n_long) * tile_n_cost(ml, ns, wide)) +
                           (mt - m_long) * (n_long * tile_n_cost(ms, nl, wide) + (nt - n_long) * tile_n_cost(ms, ns, wide));
            if (cost <= best) best = cost, *row_tiles = mt, *col_tiles = nt;
        }
}

/* A length cut into tiles nearly equally: the first `longer` of them have size + 1. */
typedef struct {
    int64_t size, longer;
} cuts;

INLINE cuts cut(int64_t length, int64_t tiles) { return (cuts){length / tiles, length % tiles}; }
INLINE int64_t cut_start(cuts c, int64_t i) { return i * c.size + (i < c.longer ? i : c.longer); }
INLINE int64_t cut_size(cuts c, int64_t i) { return c.size + (i < c.longer); }

#endif
