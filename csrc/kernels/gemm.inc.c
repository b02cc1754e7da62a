/* Matrix products on plain arrays: a register tile of GEMM_MR rows and one panel (two vectors, or one that is enough) of
 * columns, a block of A packed in L2, a panel of B in L1 or, with 16 lanes, L2; or, of few columns, A's rows where they lie. */
#include "gemm.h"
#include "math.h"
#include "transpose.h"

#if VREGS == 32
#define GEMM_MR 12
#define GEMM_EACH_ROW(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11)
#elif VW == 8
#define GEMM_MR 6
#define GEMM_EACH_ROW(f) f(0) f(1) f(2) f(3) f(4) f(5)
#else
#define GEMM_MR 4
#define GEMM_EACH_ROW(f) f(0) f(1) f(2) f(3)
#endif

/* Terms of a block. Of more, the sums are added to C less often, but a panel of B (64 KB) and a block of A (400 KB) want a
 * second cache of 1 MB, as CPUs of 16 lanes have. On Zen 5 512 instead of 256 are 1.01 (n = 256) to 1.04 x (n = 4096). */
#define GEMM_KC (VW == 16 ? 512 : 256)
#define GEMM_ROW gemm_row(GEMM_KC) /* floats between packed rows of A */

/* A tile asks for what comes next every so many terms: a core has few requests under way, and all at once held the tile up. */
#define GEMM_STEP 16
/* Floats of the next panel of B to ask for then: the panel is spread over the tiles of a block of A. */
#define GEMM_AHEAD (GEMM_STEP * GEMM_N / (GEMM_MC / GEMM_MR))

FC_DEFINE(gemm_pack_b) {
    enum { K_BLOCK = 32 };
    const int64_t panels = (a->n + GEMM_N - 1) / GEMM_N, k_blocks = (a->k + K_BLOCK - 1) / K_BLOCK;
    int64_t lo, hi;
    share(panels * k_blocks, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t panel = item % panels, k0 = item / panels * K_BLOCK;
        const int64_t k1 = k0 + K_BLOCK < a->k ? k0 + K_BLOCK : a->k;
        const int64_t count = a->n - panel * GEMM_N < GEMM_N ? a->n - panel * GEMM_N : GEMM_N;
        const float *b = a->b + panel * GEMM_N * a->b_n + k0 * a->b_k;
        float *out = a->bp + (panel * a->k + k0) * GEMM_N;
        if (count == GEMM_N && a->b_n == 1) {
            for (int64_t k = 0; k < k1 - k0; k++) {
                vstore(out + k * GEMM_N, vload(b + k * a->b_k));
                vstore(out + k * GEMM_N + VW, vload(b + k * a->b_k + VW));
            }
        } else if (count == GEMM_N && a->b_k == 1) {
            int64_t offset[VW];
            for (int lane = 0; lane < VW; lane++) offset[lane] = lane * a->b_n;
            rows_to_lanes(b, offset, iset(-1), out, GEMM_N, k1 - k0);
            rows_to_lanes(b + VW * a->b_n, offset, iset(-1), out + VW, GEMM_N, k1 - k0);
        } else {
            for (int64_t k = 0; k < k1 - k0; k++)
                for (int64_t j = 0; j < GEMM_N; j++)
                    out[k * GEMM_N + j] = j < count ? b[k * a->b_k + j * a->b_n] : 0.0f;
        }
    }
}

#define GEMM_ROWS_AHEAD 4 /* rows of memory that are asked for while one is packed: they lie far apart */

/* Tiles of GEMM_MR rows, rows past m 0, element (i, p) of a tile at p*GEMM_MR + i. */
INLINE void pack_columns(const float *a, int64_t a_m, int64_t a_k, int64_t m, int64_t k, float *out) {
    for (int64_t p = 0; p < k; p++) { /* along the rows of memory */
        const float *x = a + p * a_k;
        float *y = out + p * GEMM_MR;
        int64_t row = 0;
        for (int64_t i = 0; a_m == 1 && i < m && p + GEMM_ROWS_AHEAD < k; i += 16)
            __builtin_prefetch(x + GEMM_ROWS_AHEAD * a_k + i);
        if (a_m == 1) /* what a vector has beyond GEMM_MR, the next p writes again */
            for (; row + VW <= m; row += GEMM_MR, y += GEMM_MR * GEMM_ROW) vstore(y, vload(x + row));
        for (; row < m; row += GEMM_MR, y += GEMM_MR * GEMM_ROW)
            for (int64_t i = 0; i < GEMM_MR; i++) y[i] = row + i < m ? x[(row + i) * a_m] : 0.0f;
    }
}

/* The same with element (i, p) at i*GEMM_ROW + p, of a row-major A. */
INLINE void pack_rows(const float *a, int64_t a_m, int64_t m, int64_t k, float *out) {
    for (int64_t row = 0; row < m; row += GEMM_MR, out += GEMM_MR * GEMM_ROW)
        for (int64_t i = 0; i < GEMM_MR; i++) {
            const float *x = a + (row + i) * a_m;
            float *y = out + i * GEMM_ROW;
            for (int64_t p = 0; p < k; p++) y[p] = row + i < m ? x[p] : 0.0f;
        }
}

typedef struct {
    const float *bias, *mask;
    float *c;
    int64_t c_m, columns;
    const float *next_b;         /* what the next tiles will read: fetched while this one is computed */
    const float *asked[4];       /* as is what is read or written after the tile, C or what an update changes, or NULL: */
    int64_t asked_m;             /* a row for each of the tile's, so far apart */
    int rows, load, finish, act; /* load: add to what c holds; finish: bias, act and mask now */
} gemm_tile_out;

static __attribute__((noinline)) void gemm_store_part(const gemm_tile_out *o, int row, vec v0, vec v1) {
    float value[GEMM_N];
    vstore(value, v0);
    vstore(value + VW, v1);
    for (int64_t j = 0; j < o->columns; j++) {
        float v = value[j];
        const int64_t at = row * o->c_m + j;
        if (o->load) v += o->c[at];
        if (o->finish) {
            if (o->bias) v += o->bias[j];
            if (o->act) v = v <= 0.0f ? 0.0f : v;
            if (o->mask) v = o->mask[at] > 0.0f ? v : 0.0f;
        }
        o->c[at] = v;
    }
}

/* Asks for every line of `floats` in a row, which may begin and end within one. */
INLINE void gemm_ask_row(const float *row, const int floats) {
#pragma GCC unroll 2
    for (int i = 0; i < floats; i += 16) __builtin_prefetch(row + i, 1);
    __builtin_prefetch(row + floats - 1, 1);
}

/* Of `vectors` (1 or 2) of a panel's vectors. ahead: how far along each row of A to ask for what comes, or 0. Both literals. */
INLINE void gemm_tile(const int vectors, const int ahead, const float *a, int64_t a_i, int64_t a_p, const float *b,
                      int64_t k, const gemm_tile_out *o) {
    vec acc[GEMM_MR][2];
    float *c = o->c;
    const int64_t c_m = o->c_m;
    const int full = o->rows == GEMM_MR && o->columns == vectors * VW;
#define CLEAR(i) acc[i][0] = acc[i][1] = vset(0.0f);
    GEMM_EACH_ROW(CLEAR)
#undef CLEAR
#define TERM(ADDRESS)                                                   \
    {                                                                   \
        const vec b0 = vload(b), b1 = vectors > 1 ? vload(b + VW) : b0; \
        GEMM_EACH_ROW(ADDRESS)                                          \
        b += GEMM_N;                                                    \
    }
#define ROW_STEP(i, x)                                \
    {                                                 \
        const vec broadcast = vset(x);                \
        acc[i][0] += broadcast * b0;                  \
        if (vectors > 1) acc[i][1] += broadcast * b1; \
    }
#define PACKED(i) ROW_STEP(i, a[(i) * a_i])
#define THIRD(i) ROW_STEP(i, third[(i) / 3][(i) % 3 * a_i + p])
#define ASK(i) __builtin_prefetch(third[(i) / 3] + (i) % 3 * a_i + ahead, 0, 2);
    const float *third[(GEMM_MR + 2) / 3]; /* of rows in memory: an address is one of these and 0, 1 or 2 steps */
#pragma GCC unroll 4
    for (int i = 0; i < GEMM_MR; i += 3) third[i / 3] = a + i * a_i;
    const float *next_b = o->next_b;
    int64_t asked = 0;
    for (int64_t rows = GEMM_MR; k > 0; k -= GEMM_STEP) {
        const int64_t steps = (k - 1) / GEMM_STEP; /* to come: a row at each, more now if they are too few */
        for (int64_t now = rows > steps ? rows - steps : 1; now > 0 && rows > 0; now--, rows--, asked += o->asked_m)
            for (int s = 0; s < 4; s++)
                if (o->asked[s]) gemm_ask_row(o->asked[s] + asked, vectors * VW);
        if (ahead) {
            GEMM_EACH_ROW(ASK)
        } else {
            for (int i = 0; i < GEMM_AHEAD; i += 16) __builtin_prefetch(next_b + i, 0, 2);
            next_b += GEMM_AHEAD;
        }
        if (k < GEMM_STEP) {
            for (int p = 0; p < k; p++, a += a_p) {
                if (ahead)
                    TERM(THIRD)
                else
                    TERM(PACKED)
            }
            break;
        }
        if (ahead) {
#pragma GCC unroll 4
            for (int i = 0; i < GEMM_MR; i += 3) __asm__("" : "+r"(third[i / 3]));
#pragma GCC unroll 16
            for (int p = 0; p < GEMM_STEP; p++) TERM(THIRD)
#pragma GCC unroll 4
            for (int i = 0; i < GEMM_MR; i += 3) third[i / 3] += GEMM_STEP;
        } else {
#pragma GCC unroll 4
            for (int p = 0; p < GEMM_STEP; p++, a += a_p) TERM(PACKED)
        }
    }
#undef TERM
#undef ROW_STEP
#undef PACKED
#undef THIRD
#undef ASK
    if (!full) {
#define STORE(i) \
    if (i < o->rows) gemm_store_part(o, i, acc[i][0], acc[i][1]);
        GEMM_EACH_ROW(STORE)
#undef STORE
        return;
    }
#define BOTH(i, EXPRESSION)                                                               \
    {                                                                                     \
        _Pragma("GCC unroll 2") for (int j = 0; j < vectors; j++) acc[i][j] = EXPRESSION; \
    }
#define ADD(i) BOTH(i, acc[i][j] + vload(c + (i) * c_m + j * VW))
#define BIAS(i) BOTH(i, acc[i][j] + vload(o->bias + j * VW))
#define ACT(i) BOTH(i, vrelu(acc[i][j]))
#define MASK(i) BOTH(i, vmask(acc[i][j], vload(o->mask + (i) * c_m + j * VW)))
#define STORE(i)                      \
    vstore(c + (i) * c_m, acc[i][0]); \
    if (vectors > 1) vstore(c + (i) * c_m + VW, acc[i][1]);
    if (o->load) {
        GEMM_EACH_ROW(ADD)
    }
    if (o->finish) {
        if (o->bias) {
            GEMM_EACH_ROW(BIAS)
        }
        if (o->act) {
            GEMM_EACH_ROW(ACT)
        }
        if (o->mask) {
            GEMM_EACH_ROW(MASK)
        }
    }
    GEMM_EACH_ROW(STORE)
#undef BOTH
#undef ADD
#undef BIAS
#undef ACT
#undef MASK
#undef STORE
}

#define GEMM_TILE(name, vectors, a_i, a_p)                                                                          \
    static __attribute__((noinline)) void name(const float *a, const float *b, int64_t k, const gemm_tile_out *o) { \
        gemm_tile(vectors, 0, a, a_i, a_p, b, k, o);                                                                \
    }
GEMM_TILE(gemm_tile_rows, 2, GEMM_ROW, 1)
GEMM_TILE(gemm_tile_columns, 2, 1, GEMM_MR)
GEMM_TILE(gemm_half_tile_columns, 1, 1, GEMM_MR)

#define GEMM_TILE_MEMORY(name, vectors)                                                                \
    static __attribute__((noinline)) void name(const float *a, int64_t a_m, const float *b, int64_t k, \
                                               const gemm_tile_out *o) {                               \
        gemm_tile(vectors, GEMM_KC, a, a_m, 1, b, k, o);                                               \
    }
GEMM_TILE_MEMORY(gemm_tile_memory, 2)
GEMM_TILE_MEMORY(gemm_half_tile_memory, 1)

/* What becomes of the sums of a block of terms, of rows [row, row + rows) and a panel's columns from `column` on; fetches the
 * first panel next. */
INLINE gemm_tile_out gemm_out(const fc_gemm_args *a, int64_t row, int64_t rows, int64_t column, int64_t block,
                              int64_t k_blocks) {
    const int64_t at = row * a->c_m + column;
    return (gemm_tile_out){.bias = a->bias ? a->bias + column : NULL,
                           .mask = a->mask ? a->mask + at : NULL,
                           .c = a->c + at,
                           .c_m = a->c_m,
                           .columns = a->n - column < GEMM_N ? a->n - column : GEMM_N,
                           .next_b = a->bp,
                           .asked = {a->c + at},
                           .asked_m = a->c_m,
                           .rows = (int)rows,
                           .load = block > 0 || a->accumulate,
                           .finish = block == k_blocks - 1 && (a->bias || a->act || a->mask),
                           .act = (int)a->act};
}

/* Rows [row, last) of C where A's rows lie along memory and B is small: A is read once, in memory's order, and not packed. */
static void gemm_along_rows(const fc_gemm_args *a, float *packed, int64_t row, int64_t last) {
    const int64_t k_blocks = gemm_k_blocks(a->k, GEMM_KC);
    for (; row < last; row += GEMM_MR)
        for (int64_t block = 0; block < k_blocks; block++) {
            const int64_t k0 = a->k * block / k_blocks, k1 = a->k * (block + 1) / k_blocks;
            const int64_t rows = last - row < GEMM_MR ? last - row : GEMM_MR;
            const float *tile = a->a + row * a->a_m + k0;
            if (rows < GEMM_MR) pack_rows(tile, a->a_m, rows, k1 - k0, packed);
            for (int64_t column = 0; column < a->n; column += GEMM_N) {
                const gemm_tile_out out = gemm_out(a, row, rows, column, block, k_blocks);
                const float *b = a->bp + column * a->k + k0 * GEMM_N;
                if (rows < GEMM_MR)
                    gemm_tile_rows(packed, b, k1 - k0, &out);
                else if (a->n - column > VW)
                    gemm_tile_memory(tile, a->a_m, b, k1 - k0, &out);
                else
                    gemm_half_tile_memory(tile, a->a_m, b, k1 - k0, &out);
            }
        }
}

FC_DEFINE(gemm) {
    const int64_t tiles = (a->m + GEMM_MR - 1) / GEMM_MR, panels = (a->n + GEMM_N - 1) / GEMM_N;
    int64_t tile_lo = 0, tile_hi = tiles, panel_lo = 0, panel_hi = panels;
    if (tiles >= panels)
        share(tiles, ith, nth, &tile_lo, &tile_hi);
    else
        share(panels, ith, nth, &panel_lo, &panel_hi);
    const int64_t row_hi = tile_hi * GEMM_MR < a->m ? tile_hi * GEMM_MR : a->m;
    const int64_t k_blocks = gemm_k_blocks(a->k, GEMM_KC);
    float *packed = a->scratch + ith * a->scratch_size;
    if (a->a_k == 1 && a->k > 0 && panels <= 2 && tiles >= panels) {
        gemm_along_rows(a, packed, tile_lo * GEMM_MR, row_hi);
        return;
    }
    for (int64_t block = 0; block < k_blocks; block++) {
        const int64_t k0 = a->k * block / k_blocks, k1 = a->k * (block + 1) / k_blocks;
        for (int64_t row = tile_lo * GEMM_MR; row < row_hi; row += GEMM_MC) {
            const int64_t m = row_hi - row < GEMM_MC ? row_hi - row : GEMM_MC;
            const float *block_of_a = a->a + row * a->a_m + k0 * a->a_k;
            if (a->a_k == 1)
                pack_rows(block_of_a, a->a_m, m, k1 - k0, packed);
            else
                pack_columns(block_of_a, a->a_m, a->a_k, m, k1 - k0, packed);
            const int64_t ask = (k1 - k0 + GEMM_STEP - 1) / GEMM_STEP * GEMM_AHEAD; /* what a tile asks for */
            for (int64_t panel = panel_lo; panel < panel_hi; panel++) {
                const float *b = a->bp + (panel * a->k + k0) * GEMM_N;
                const int64_t column = panel * GEMM_N, half = a->n - column <= VW;
                for (int64_t i = 0; i < m; i += GEMM_MR) {
                    gemm_tile_out out =
                        gemm_out(a, row + i, m - i < GEMM_MR ? m - i : GEMM_MR, column, block, k_blocks);
                    out.next_b = b + a->k * GEMM_N + i / GEMM_MR * ask;
                    const float *tile = packed + i * GEMM_ROW;
                    if (a->a_k == 1)
                        gemm_tile_rows(tile, b, k1 - k0, &out);
                    else
                        (half ? gemm_half_tile_columns : gemm_tile_columns)(tile, b, k1 - k0, &out);
                }
            }
        }
    }
}

FC_DEFINE(transpose) {
    enum { COLUMNS = 64 };
    float turned[COLUMNS * VW] __attribute__((aligned(64)));
    int64_t lo, hi, offset[VW];
    for (int lane = 0; lane < VW; lane++) offset[lane] = lane * a->x_m;
    share((a->m + VW - 1) / VW, ith, nth, &lo, &hi);
    for (int64_t row = lo * VW; row < hi * VW && row < a->m; row += VW) {
        const int64_t rows = a->m - row < VW ? a->m - row : VW;
        const vec bias = a->bias ? tail_load(a->bias + row, rows) : vset(0.0f);
        for (int64_t column = 0; column < a->n; column += COLUMNS) {
            const int64_t count = a->n - column < COLUMNS ? a->n - column : COLUMNS;
            const float *x = a->x + row * a->x_m + column;
            if (rows == VW)
                rows_to_lanes(x, offset, iset(-1), turned, VW, count);
            else
                for (int64_t i = 0; i < count * VW; i++) turned[i] = i % VW < rows ? x[i % VW * a->x_m + i / VW] : 0.0f;
            for (int64_t j = 0; j < count; j++) {
                const int64_t at = (column + j) * a->y_n + row;
                vec sum = vload(turned + j * VW) + bias;
                if (a->act) sum = vrelu(sum);
                if (a->mask) sum = vmask(sum, rows == VW ? vload(a->mask + at) : tail_load(a->mask + at, rows));
                if (rows == VW)
                    vstore(a->y + at, sum);
                else
                    tail_store(a->y + at, sum, rows);
            }
        }
    }
}

/* The last elements of a row of k, in lanes of a vector that `keep` says; those before them have been read. */
INLINE vec gemv_last(const float *row, int64_t k, ivec keep) {
    return k >= VW ? (vec)((ivec)vload(row + k - VW) & keep) : tail_load(row, k);
}

/* rows x columns dot products, both literals: vectors first, then what is left. */
INLINE void gemv_tile(const int rows, const int columns, const fc_gemv_args *a, int64_t m, int64_t n) {
    const float *x = a->x + m * a->x_m, *w = a->w + n * a->w_n;
    const int64_t x_m = a->x_m, w_n = a->w_n, k = a->k, left = k % VW;
    vec acc[4][8] = {0};
    for (int64_t p = 0; p + VW <= k; p += VW)
#pragma GCC unroll 8
        for (int j = 0; j < columns; j++) {
            const vec v = vload(w + j * w_n + p);
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) acc[i][j] += v * vload(x + i * x_m + p);
        }
    if (left) {
        ivec keep;
        for (int lane = 0; lane < VW; lane++) keep[lane] = lane >= VW - left ? -1 : 0;
#pragma GCC unroll 8
        for (int j = 0; j < columns; j++) {
            const vec v = gemv_last(w + j * w_n, k, keep);
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) acc[i][j] += v * gemv_last(x + i * x_m, k, keep);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) {
        float *y = a->y + (m + i) * a->y_m + n, sums[8];
#pragma GCC unroll 8
        for (int j = 0; j < columns; j++) {
            if (columns % 4 == 0 && j % 4 == 0)
                *(quad_u *)(sums + j) = sum_four(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]);
            else if (columns % 4)
                sums[j] = vsum(acc[i][j]);
        }
        for (int j = 0; j < columns; j++) {
            const float sum = sums[j] + (a->bias ? a->bias[n + j] : 0.0f);
            y[j] = a->act && sum <= 0.0f ? 0.0f : sum;
        }
    }
}

#define GEMV_TILE(rows, columns)                                                            \
    static void gemv_tile_##rows##x##columns(const fc_gemv_args *a, int64_t m, int64_t n) { \
        gemv_tile(rows, columns, a, m, n);                                                  \
    }
GEMV_TILE(1, 1)
GEMV_TILE(1, 8)
GEMV_TILE(4, 1)
GEMV_TILE(4, 3)

enum { GEMV_N = 24 }; /* rows of w that all rows of x meet before the next ones are read; whole tiles of 3 and 8 */

FC_DEFINE(gemv) {
    int64_t lo, hi; /* whole blocks: which tile a column is in must not depend on nth */
    share((a->n + GEMV_N - 1) / GEMV_N, ith, nth, &lo, &hi);
    lo *= GEMV_N, hi = hi * GEMV_N < a->n ? hi * GEMV_N : a->n;
    for (int64_t next; lo < hi; lo = next) {
        next = hi - lo < GEMV_N ? hi : lo + GEMV_N;
        int64_t m = 0, n;
        for (; m + 4 <= a->m; m += 4) {
            for (n = lo; n + 3 <= next; n += 3) gemv_tile_4x3(a, m, n);
            for (; n < next; n++) gemv_tile_4x1(a, m, n);
        }
        for (; m < a->m; m++) {
            for (n = lo; n + 8 <= next; n += 8) gemv_tile_1x8(a, m, n);
            for (; n < next; n++) gemv_tile_1x1(a, m, n);
        }
    }
}
