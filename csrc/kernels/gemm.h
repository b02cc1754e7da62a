/* The blocks of gemm: a thread packs GEMM_MC x kc of A, kc as the ISA has it (fc_isa). */
#ifndef FASTCNN_KERNELS_GEMM_H
#define FASTCNN_KERNELS_GEMM_H

#include <stdint.h>

#define GEMM_MC 192

/* Floats between packed rows of kc: not a power of two, so that rows spread over the cache. */
static inline int64_t gemm_row(int64_t kc) { return kc + 16; }

static inline int64_t gemm_k_blocks(int64_t k, int64_t kc) { return k > 0 ? (k + kc - 1) / kc : 1; }

/* Floats of scratch a thread needs for gemm of m rows; a multiple of 16. */
static inline int64_t gemm_scratch(int64_t m, int64_t kc) {
    int64_t rows = m + 15 < GEMM_MC + 16 ? m + 15 : GEMM_MC + 16;
    return rows * gemm_row(kc);
}

/* Rows of A that a thread packs at a time, with all of k, for gemm_update(k): whole tiles on every ISA, of 4, 6 or 12 rows. */
static inline int64_t gemm_update_rows(int64_t k, int64_t kc) {
    int64_t rows = GEMM_MC / gemm_k_blocks(k, kc) / 12 * 12;
    return rows < 12 ? 12 : rows;
}

/* Floats of scratch it needs for that; a multiple of 16. */
static inline int64_t gemm_update_scratch(int64_t k, int64_t kc) {
    return (gemm_update_rows(k, kc) + 4) * gemm_row(kc) * gemm_k_blocks(k, kc);
}

#endif
