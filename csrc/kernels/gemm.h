/* The blocks of gemm, the same for every ISA: a thread packs GEMM_MC x GEMM_KC of A. */
#ifndef FASTCNN_KERNELS_GEMM_H
#define FASTCNN_KERNELS_GEMM_H

#include <stdint.h>

#define GEMM_KC 256
#define GEMM_MC 192
#define GEMM_ROW (GEMM_KC + 16) /* floats between packed rows: not a power of two, so that rows spread over the cache */

/* Floats of scratch a thread needs for gemm(m, k); a multiple of 16. */
static inline int64_t gemm_scratch(int64_t m, int64_t k) {
    (void)k;
    int64_t rows = m + 15 < GEMM_MC + 16 ? m + 15 : GEMM_MC + 16;
    return rows * GEMM_ROW;
}

/* Rows of A that a thread packs at a time, with all of k, for gemm_update(k): whole tiles on every ISA, of 4, 6 or 12 rows. */
static inline int64_t gemm_update_rows(int64_t k) {
    int64_t rows = GEMM_MC / ((k + GEMM_KC - 1) / GEMM_KC + (k == 0)) / 12 * 12;
    return rows < 12 ? 12 : rows;
}

/* Floats of scratch it needs for that; a multiple of 16. */
static inline int64_t gemm_update_scratch(int64_t k) {
    return (gemm_update_rows(k) + 4) * GEMM_ROW * ((k + GEMM_KC - 1) / GEMM_KC + (k == 0));
}

#endif
