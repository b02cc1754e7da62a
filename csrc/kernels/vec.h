/* The vector type every kernel is written over: GCC/Clang vector extensions, VW lanes (isa/<isa>.h). */
#ifndef FASTCNN_VEC_H
#define FASTCNN_VEC_H

#include "../fastcnn.h"

#define INLINE static inline __attribute__((always_inline))
#define VBYTES (4 * VW)
#define GEMM_N (2 * VW)

typedef float vec __attribute__((vector_size(VBYTES), may_alias));
typedef int32_t ivec __attribute__((vector_size(VBYTES), may_alias));
typedef float vec_u __attribute__((vector_size(VBYTES), aligned(4), may_alias));
typedef int32_t ivec_u __attribute__((vector_size(VBYTES), aligned(4), may_alias));
typedef uint8_t bvec __attribute__((vector_size(VW), aligned(1), may_alias));

INLINE vec vload(const float *p) { return *(const vec_u *)p; }
INLINE void vstore(float *p, vec v) { *(vec_u *)p = v; }
INLINE ivec iload(const int32_t *p) { return *(const ivec_u *)p; }
INLINE void istore(int32_t *p, ivec v) { *(ivec_u *)p = v; }
INLINE vec vset(float x) { return x - (vec){0}; }
INLINE ivec iset(int32_t x) { return x - (ivec){0}; }

/* What an ISA may have an instruction for (isa/<isa>.h): a store past the caches, to a whole vector's place; lanes of a where
 * mask is -1, of b where it is 0; a > b ? a : b (VMAX_INT: of integers); VW bytes as integers and back. */
#ifndef VSTREAM
#define VSTREAM(p, v) vstore(p, v)
#endif
#ifndef VSELECT
#define VSELECT(mask, a, b) (vec)(((mask) & (ivec)(a)) | (~(mask) & (ivec)(b)))
#endif
#ifndef VGREATER
#define VGREATER(a, b) VSELECT((ivec)((a) > (b)), a, b)
#endif
#ifndef VMAX_INT
#define VMAX_INT(a, b) (ivec)VSELECT((a) > (b), a, b)
#endif
#ifndef VBYTES_LOAD
#define VBYTES_LOAD(p) __builtin_convertvector(*(const bvec *)(p), ivec)
#define VBYTES_STORE(p, v) *(bvec *)(p) = __builtin_convertvector(v, bvec)
#endif
/* past: past the caches. Such stores are ordered by the barrier after a step, an atomic addition; where there is none, the same
 * thread reads on. */
INLINE void vput(float *p, vec v, int64_t past) {
    if (past)
        VSTREAM(p, v);
    else
        vstore(p, v);
}

/* VW whole numbers below 256, a byte each. */
INLINE ivec bload(const uint8_t *p) { return VBYTES_LOAD(p); }
INLINE void bstore(uint8_t *p, ivec v) { VBYTES_STORE(p, v); }

INLINE vec vselect(ivec mask, vec a, vec b) { return VSELECT(mask, a, b); }

/* max(x, 0), but NaN stays NaN. */
INLINE vec vrelu(vec x) {
    const vec zero = {0};
    return VGREATER(zero, x);
}

/* x where m > 0, else 0. */
INLINE vec vmask(vec x, vec m) { return (vec)((ivec)(m > (vec){0}) & (ivec)x); }

/* The larger one; a NaN wins. */
INLINE vec vmax(vec a, vec b) { return vselect((ivec)(a != a), a, VGREATER(a, b)); }

/* One more candidate of a maximum and where it lies: the first maximum stays, a NaN wins. */
INLINE void vmax_where(vec *best, ivec *where, vec v, ivec position) {
    ivec take = (ivec)(v > *best) | (ivec)(v != v);
    *best = vselect(take, v, *best);
    *where = (ivec)vselect(take, (vec)position, (vec)*where);
}

/* Sum of the lanes, as a balanced tree: its halves are added, as long as there are two. */
INLINE float vsum(vec v) {
    typedef float quarter __attribute__((vector_size(16), may_alias));
#if VW == 4
    quarter q = v;
#else
#if VW == 16
    typedef float half __attribute__((vector_size(32), may_alias));
    half h = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
             __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    vec h = v;
#endif
    quarter q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
#endif
    q += __builtin_shufflevector(q, q, 2, 3, 2, 3);
    return q[0] + q[1];
}

/* Every second element of a and then b, from the first or the second on. */
INLINE vec vevens(vec a, vec b) {
    ivec from;
    for (int i = 0; i < VW; i++) from[i] = 2 * i;
    return __builtin_shuffle(a, b, from);
}

INLINE vec vodds(vec a, vec b) {
    ivec from;
    for (int i = 0; i < VW; i++) from[i] = 2 * i + 1;
    return __builtin_shuffle(a, b, from);
}

/* Asks for rows x cols pixels from p on, every line of them. */
INLINE void ask_pixels(int64_t rows, int64_t cols, const float *p, int64_t p_h) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols * VBYTES; j += 64) __builtin_prefetch((const char *)(p + i * p_h) + j);
}

/* The share [*lo, *hi) of `items` that thread ith of nth takes. */
INLINE void share(int64_t items, int ith, int nth, int64_t *lo, int64_t *hi) {
    *lo = items * ith / nth;
    *hi = items * (ith + 1) / nth;
}

/* Defines kernel `name`: FC_DEFINE(name) { ... uses a->field, ith, nth ... } */
#define FC_DEFINE(name)                                                                  \
    static void body_##name(const fc_##name##_args *a, int ith, int nth);                \
    static void entry_##name(const void *args, int ith, int nth) {                       \
        body_##name((const fc_##name##_args *)args, ith, nth);                           \
    }                                                                                    \
    static void body_##name(const fc_##name##_args *a, int ith, int nth)

#endif
