/* Blocks of VW rows into vectors of VW lanes, and back, four columns at a time. */
#ifndef FASTCNN_KERNELS_TRANSPOSE_H
#define FASTCNN_KERNELS_TRANSPOSE_H

#include "vec.h"

typedef float quad __attribute__((vector_size(16), may_alias));
typedef float quad_u __attribute__((vector_size(16), aligned(4), may_alias));

/* Shuffles that act alike on every quad of a vector. */
#if VW == 4
#define UNPACK_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define UNPACK_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define PAIRS_LOW(a, b) __builtin_shufflevector(a, b, 0, 1, 4, 5)
#define PAIRS_HIGH(a, b) __builtin_shufflevector(a, b, 2, 3, 6, 7)
#elif VW == 8
#define UNPACK_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define UNPACK_HIGH(a, b) __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define PAIRS_LOW(a, b) __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define PAIRS_HIGH(a, b) __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#else
#define UNPACK_LOW(a, b) \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define UNPACK_HIGH(a, b) \
    __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define PAIRS_LOW(a, b) \
    __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define PAIRS_HIGH(a, b) \
    __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#endif

/* The vector whose quad q is the four floats at p[offset[4 * q + row]]. */
INLINE vec load_quads(const float *p, const int64_t *offset, int row) {
#define QUAD(q) (*(const quad_u *)(p + offset[4 * (q) + row]))
#if VW == 4
    return QUAD(0);
#elif VW == 8
    return __builtin_shufflevector(QUAD(0), QUAD(1), 0, 1, 2, 3, 4, 5, 6, 7);
#else
    typedef float half __attribute__((vector_size(32), may_alias));
    half low = __builtin_shufflevector(QUAD(0), QUAD(1), 0, 1, 2, 3, 4, 5, 6, 7);
    half high = __builtin_shufflevector(QUAD(2), QUAD(3), 0, 1, 2, 3, 4, 5, 6, 7);
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#endif
#undef QUAD
}

INLINE void store_quads(float *p, const int64_t *offset, int row, vec v) {
#define QUAD(q) (*(quad_u *)(p + offset[4 * (q) + row]))
#if VW == 4
    QUAD(0) = v;
#else
    QUAD(0) = __builtin_shufflevector(v, v, 0, 1, 2, 3);
    QUAD(1) = __builtin_shufflevector(v, v, 4, 5, 6, 7);
#if VW == 16
    QUAD(2) = __builtin_shufflevector(v, v, 8, 9, 10, 11);
    QUAD(3) = __builtin_shufflevector(v, v, 12, 13, 14, 15);
#endif
#endif
#undef QUAD
}

/* The 4x4 transpose within every quad. */
INLINE void transpose_quads(vec v[4]) {
    vec low01 = UNPACK_LOW(v[0], v[1]), low23 = UNPACK_LOW(v[2], v[3]);
    vec high01 = UNPACK_HIGH(v[0], v[1]), high23 = UNPACK_HIGH(v[2], v[3]);
    v[0] = PAIRS_LOW(low01, low23);
    v[1] = PAIRS_HIGH(low01, low23);
    v[2] = PAIRS_LOW(high01, high23);
    v[3] = PAIRS_HIGH(high01, high23);
}

/* Per quad of lanes: the sums of a, b, c and d. Pairwise, in an order that is the same for every call. */
INLINE quad sum_four(vec a, vec b, vec c, vec d) {
    vec ab = UNPACK_LOW(a, b) + UNPACK_HIGH(a, b), cd = UNPACK_LOW(c, d) + UNPACK_HIGH(c, d);
    vec sum = PAIRS_LOW(ab, cd) + PAIRS_HIGH(ab, cd);
#if VW == 4
    return sum;
#elif VW == 8
    return __builtin_shufflevector(sum, sum, 0, 1, 2, 3) + __builtin_shufflevector(sum, sum, 4, 5, 6, 7);
#else
    return (__builtin_shufflevector(sum, sum, 0, 1, 2, 3) + __builtin_shufflevector(sum, sum, 4, 5, 6, 7)) +
           (__builtin_shufflevector(sum, sum, 8, 9, 10, 11) + __builtin_shufflevector(sum, sum, 12, 13, 14, 15));
#endif
}

/* y[i*y_step + lane] = x[offset[lane] + i] for i < count, 0 where keep is 0. */
INLINE void rows_to_lanes(const float *x, const int64_t *offset, ivec keep, float *y, int64_t y_step, int64_t count) {
    int64_t i = 0;
    while (i + 4 <= count) {
        vec v[4];
        for (int row = 0; row < 4; row++) v[row] = load_quads(x + i, offset, row);
        transpose_quads(v);
        for (int j = 0; j < 4; j++) vstore(y + (i + j) * y_step, (vec)((ivec)v[j] & keep));
        i += 4;
        if (i < count && i + 4 > count) i = count - 4; /* the last quad overlaps the one before */
    }
    for (; i < count; i++)
        for (int lane = 0; lane < VW; lane++) y[i * y_step + lane] = keep[lane] ? x[offset[lane] + i] : 0.0f;
}

/* The way back, for the first `lanes` lanes: y[offset[lane] + i] = x[i*x_step + lane]. */
INLINE void lanes_to_rows(const float *x, int64_t x_step, float *y, const int64_t *offset, int lanes, int64_t count) {
    int64_t i = 0;
    while (lanes == VW && i + 4 <= count) {
        vec v[4];
        for (int j = 0; j < 4; j++) v[j] = vload(x + (i + j) * x_step);
        transpose_quads(v);
        for (int row = 0; row < 4; row++) store_quads(y + i, offset, row, v[row]);
        i += 4;
        if (i < count && i + 4 > count) i = count - 4;
    }
    for (; i < count; i++)
        for (int lane = 0; lane < lanes; lane++) y[offset[lane] + i] = x[i * x_step + lane];
}

#endif
