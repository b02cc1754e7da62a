/* Optimizers, with PyTorch's formulae and order of operations. */
#include "math.h"
#include "rows.h"

INLINE vec load_up_to(const float *p, int64_t count) { return count >= VW ? vload(p) : tail_load(p, count); }

INLINE void store_up_to(float *p, vec v, int64_t count) {
    if (count >= VW)
        vstore(p, v);
    else
        tail_store(p, v, count);
}

/* 16 running sums whatever VW is: the same bits on every ISA. */
static double squares(const float *x, int64_t size) {
    double sum[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= size; i += 16)
        for (int lane = 0; lane < 16; lane++) sum[lane] += (double)x[i + lane] * x[i + lane];
    for (int lane = 0; i < size; i++, lane++) sum[lane] += (double)x[i] * x[i];
    for (int width = 8; width > 0; width /= 2)
        for (int lane = 0; lane < width; lane++) sum[lane] += sum[lane + width];
    return sum[0];
}

FC_DEFINE(sum_squares) {
    int64_t k, end;
    share(a->count, ith, nth, &k, &end);
    for (; k < end; k++) a->sums[k] = squares(a->x + a->chunks[2 * k], a->chunks[2 * k + 1] - a->chunks[2 * k]);
}

/* The sum of x, with what each addition loses kept apart: the order of the items does not show. */
static double careful_sum(const double *x, int64_t size) {
    double sum = 0, lost = 0;
    for (int64_t i = 0; i < size; i++) {
        double next = sum + x[i], part = next - sum;
        lost += (sum - (next - part)) + (x[i] - part);
        sum = next;
    }
    return __builtin_isfinite(sum) ? sum + lost : sum;
}

FC_DEFINE(clip_norm) {
    const double factor = a->max_norm / (__builtin_sqrt(careful_sum(a->sums, a->total)) + 1e-6);
    if (factor >= 1) return;
    const vec scale = vset((float)factor);
    int64_t k, end;
    share(a->count, ith, nth, &k, &end);
    for (; k < end; k++)
        for (int64_t i = a->chunks[2 * k], stop = a->chunks[2 * k + 1]; i < stop; i += VW)
            store_up_to(a->g + i, scale * load_up_to(a->g + i, stop - i), stop - i);
}

/* weight * sign(p), 0 where p is 0. */
INLINE vec signed_weight(vec weight, vec p) {
    const vec zero = vset(0.0f);
    return vselect((ivec)(p > zero), weight, vselect((ivec)(p < zero), -weight, zero));
}

/* What an optimizer's step changes: `rows` rows of `count` elements, `row` apart in p and its states, g_row in g. The states
 * are those of the kernel, in its order, or NULL. */
typedef struct {
    float *p, *states[3];
    const float *g;
    const double *hyper;
    int64_t rows, count, row, g_row;
} update;

typedef void (*update_step)(const update *u); /* of whole vectors: count is a multiple of VW */

/* For each vector of an update: its place i in p and the states, j in g. */
#define EACH_UPDATED(u, i, j)                           \
    for (int64_t row_ = 0; row_ < (u)->rows; row_++)    \
        for (int64_t i = row_ * (u)->row, j = row_ * (u)->g_row, end_ = i + (u)->count; i < end_; i += VW, j += VW)

/* A step of any count: the rest of each row in arrays of a vector. */
static void update_rows(update_step step, const update *u) {
    update whole = *u;
    whole.count = u->count / VW * VW;
    step(&whole);
    const int64_t rest = u->count - whole.count;
    for (int64_t row = 0; rest > 0 && row < u->rows; row++) {
        const int64_t at = row * u->row + whole.count;
        float p[VW], g[VW], state[3][VW];
        update last = {p, {NULL}, g, u->hyper, 1, VW, 0, 0};
        vstore(p, load_up_to(u->p + at, rest));
        vstore(g, load_up_to(u->g + row * u->g_row + whole.count, rest));
        for (int s = 0; s < 3; s++)
            if (u->states[s]) vstore(last.states[s] = state[s], load_up_to(u->states[s] + at, rest));
        step(&last);
        store_up_to(u->p + at, vload(p), rest);
        for (int s = 0; s < 3; s++)
            if (u->states[s]) store_up_to(u->states[s] + at, vload(state[s]), rest);
    }
}

/* A thread's share of a step over `size` elements. */
INLINE void update_share(update_step step, float *p, const float *g, float *s0, float *s1, float *s2, const double *hyper,
                         int64_t size, int ith, int nth) {
    int64_t strides[1][3] = {{0}};
    rows r = rows_share(1, 1, 1, size, strides, 1, ith, nth);
    rows_next(&r);
    float *const states[3] = {s0 ? s0 + r.at : NULL, s1 ? s1 + r.at : NULL, s2 ? s2 + r.at : NULL};
    const update u = {p + r.at, {states[0], states[1], states[2]}, g + r.at, hyper, 1, r.count, 0, 0};
    update_rows(step, &u);
}

static void sgd_update(const update *u) {
    const double *hyper = u->hyper;
    const vec lr = vset((float)-hyper[0]), momentum = vset((float)hyper[1]);
    const vec damping = vset((float)(1.0 - hyper[2])), decay = vset((float)hyper[3]);
    const int nesterov = hyper[4] != 0, first = hyper[5] != 0;
    const vec sign = vset(hyper[6] != 0 ? -1.0f : 1.0f);
    const vec l1 = vset((float)hyper[7]);
    const int sparse = hyper[7] != 0;
    float *state_buf = u->states[0];
    EACH_UPDATED(u, i, j) {
        vec p = vload(u->p + i), g = sign * vload(u->g + j);
        if (sparse) g = g + signed_weight(l1, p);
        if (hyper[3] != 0) g = g + decay * p;
        if (state_buf) {
            vec buf = g;
            if (!first) buf = vload(state_buf + i) * momentum + damping * g;
            vstore(state_buf + i, buf);
            if (nesterov)
                g = g + momentum * buf;
            else
                g = buf;
        }
        vstore(u->p + i, p + lr * g);
    }
}

FC_DEFINE(sgd) { update_share(sgd_update, a->p, a->g, a->buf, NULL, NULL, a->hyper, a->size, ith, nth); }

/* base^exponent by squaring: the exponent is a count of steps. */
static inline double int_power(double base, int64_t exponent) {
    double result = 1.0;
    for (; exponent > 0; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

static void adam_update(const update *u) {
    const double *hyper = u->hyper;
    const double rate = hyper[0], beta1 = hyper[1], beta2 = hyper[2];
    const int64_t step = (int64_t)hyper[5];
    const int decoupled = hyper[6] != 0;
    const vec sign = vset(hyper[7] != 0 ? -1.0f : 1.0f);
    const vec shrink = vset((float)(1.0 - rate * hyper[4])), decay = vset((float)hyper[4]);
    const vec weight1 = vset((float)(1.0 - beta1)), keep2 = vset((float)beta2), weight2 = vset((float)(1.0 - beta2));
    const vec size = vset((float)-(rate / (1.0 - int_power(beta1, step))));
    const vec root = vset((float)__builtin_sqrt(1.0 - int_power(beta2, step))), eps = vset((float)hyper[3]);
    const vec l1 = vset((float)hyper[8]);
    const int sparse = hyper[8] != 0;
    float *state_m = u->states[0], *state_v = u->states[1], *state_vmax = u->states[2];
    EACH_UPDATED(u, i, j) {
        vec p = vload(u->p + i), g = sign * vload(u->g + j);
        vec m = vload(state_m + i), v = vload(state_v + i);
        if (sparse) g = g + signed_weight(l1, p);
        if (hyper[4] != 0) {
            if (decoupled)
                p = p * shrink;
            else
                g = g + decay * p;
        }
        m = m + weight1 * (g - m);
        v = v * keep2 + weight2 * g * g;
        vstore(state_m + i, m);
        vstore(state_v + i, v);
        if (state_vmax) {
            vec top = vload(state_vmax + i);
            v = vselect((ivec)(v <= top), top, v);
            vstore(state_vmax + i, v);
        }
        vec denominator = vsqrt(v) / root + eps;
        vstore(u->p + i, p + size * m / denominator);
    }
}

FC_DEFINE(adam) { update_share(adam_update, a->p, a->g, a->m, a->v, a->vmax, a->hyper, a->size, ith, nth); }

static void rmsprop_update(const update *u) {
    const double *hyper = u->hyper;
    const vec lr = vset((float)-hyper[0]), keep = vset((float)hyper[1]), take = vset((float)(1.0 - hyper[1]));
    const vec eps = vset((float)hyper[2]), decay = vset((float)hyper[3]), momentum = vset((float)hyper[4]);
    const vec sign = vset(hyper[5] != 0 ? -1.0f : 1.0f);
    const vec l1 = vset((float)hyper[6]);
    const int sparse = hyper[6] != 0;
    float *state_v = u->states[0], *state_buf = u->states[1], *state_avg = u->states[2];
    EACH_UPDATED(u, i, j) {
        vec p = vload(u->p + i), g = sign * vload(u->g + j);
        if (sparse) g = g + signed_weight(l1, p);
        if (hyper[3] != 0) g = g + decay * p;
        vec v = vload(state_v + i) * keep + take * g * g, spread = v;
        vstore(state_v + i, v);
        if (state_avg) {
            vec avg = vload(state_avg + i);
            avg = avg + take * (g - avg);
            vstore(state_avg + i, avg);
            spread = v - avg * avg;
        }
        vec move = g / (vsqrt(spread) + eps);
        if (state_buf) {
            move = vload(state_buf + i) * momentum + move;
            vstore(state_buf + i, move);
        }
        vstore(u->p + i, p + lr * move);
    }
}

FC_DEFINE(rmsprop) { update_share(rmsprop_update, a->p, a->g, a->v, a->buf, a->avg, a->hyper, a->size, ith, nth); }

static void adagrad_update(const update *u) {
    const double *hyper = u->hyper;
    const vec lr = vset((float)-(hyper[0] / (1.0 + (hyper[5] - 1.0) * hyper[1]))), eps = vset((float)hyper[2]);
    const vec decay = vset((float)hyper[3]), initial = vset((float)hyper[4]);
    const vec sign = vset(hyper[6] != 0 ? -1.0f : 1.0f);
    const int first = hyper[5] == 1;
    const vec l1 = vset((float)hyper[7]);
    const int sparse = hyper[7] != 0;
    float *state_v = u->states[0];
    EACH_UPDATED(u, i, j) {
        vec p = vload(u->p + i), g = sign * vload(u->g + j);
        if (sparse) g = g + signed_weight(l1, p);
        if (hyper[3] != 0) g = g + decay * p;
        vec v = (first ? initial : vload(state_v + i)) + g * g;
        vstore(state_v + i, v);
        vstore(u->p + i, p + lr * g / (vsqrt(v) + eps));
    }
}

FC_DEFINE(adagrad) { update_share(adagrad_update, a->p, a->g, a->v, NULL, NULL, a->hyper, a->size, ith, nth); }

/* ---- the optimizer's step right behind a product that is the gradient ---- */

static const update_step updates[] = {sgd_update, adam_update, rmsprop_update, adagrad_update};

#define UPDATE_PANELS 16 /* of the gradient that are in the nearest cache at a time */

/* The gradients of a tile's rows and of `panels` panels of columns, then the step. packed: [block of k]. */
INLINE void gemm_update_tile(const fc_gemm_update_args *a, const float *packed, int64_t block_size, int64_t k_blocks,
                             int64_t row, int64_t rows, int64_t panel, int64_t panels) {
    float g[UPDATE_PANELS * GEMM_MR * GEMM_N] __attribute__((aligned(64)));
    const int64_t at = row * a->n + panel * GEMM_N, width = panels * GEMM_N;
    const int64_t count = a->n - panel * GEMM_N < width ? a->n - panel * GEMM_N : width;
    const update u = {a->p + at, {a->s0 ? a->s0 + at : NULL, a->s1 ? a->s1 + at : NULL, a->s2 ? a->s2 + at : NULL},
                      g, a->hyper, rows, count, a->n, UPDATE_PANELS * GEMM_N};
    for (int64_t i = 0; i < panels; i++) {
        for (int64_t block = 0; block < k_blocks; block++) {
            const int64_t k0 = a->k * block / k_blocks, k1 = a->k * (block + 1) / k_blocks;
            const float *b = a->bp + ((panel + i) * a->k + k0) * GEMM_N;
            gemm_tile_out out = {.c = g + i * GEMM_N, .c_m = UPDATE_PANELS * GEMM_N, .columns = GEMM_N,
                                 .asked_m = a->n, .rows = GEMM_MR, .next_b = b + (k1 - k0) * GEMM_N, .load = block > 0};
            if (block == 0) {
                out.asked[0] = u.p + i * GEMM_N;
                for (int s = 0; s < 3; s++) out.asked[s + 1] = u.states[s] ? u.states[s] + i * GEMM_N : NULL;
            }
            gemm_tile_columns(packed + block * block_size, b, k1 - k0, &out);
        }
    }
    update_rows(updates[a->kind], &u);
}

FC_DEFINE(gemm_update) {
    const int64_t k_blocks = gemm_k_blocks(a->k, GEMM_KC), most = gemm_update_rows(a->k, GEMM_KC);
    const int64_t tiles = (a->m + GEMM_MR - 1) / GEMM_MR, panels = (a->n + GEMM_N - 1) / GEMM_N;
    const int64_t groups = (panels + UPDATE_PANELS - 1) / UPDATE_PANELS, block_size = most * GEMM_ROW;
    int64_t tile_lo = 0, tile_hi = tiles, group_lo = 0, group_hi = groups;
    if (tiles >= groups)
        share(tiles, ith, nth, &tile_lo, &tile_hi);
    else
        share(groups, ith, nth, &group_lo, &group_hi);
    const int64_t row_hi = tile_hi * GEMM_MR < a->m ? tile_hi * GEMM_MR : a->m;
    float *packed = a->scratch + ith * a->scratch_size;
    for (int64_t row = tile_lo * GEMM_MR; row < row_hi; row += most) {
        const int64_t m = row_hi - row < most ? row_hi - row : most;
        for (int64_t block = 0; block < k_blocks; block++) {
            const int64_t k0 = a->k * block / k_blocks, k1 = a->k * (block + 1) / k_blocks;
            pack_columns(a->a + row * a->a_m + k0 * a->a_k, a->a_m, a->a_k, m, k1 - k0, packed + block * block_size);
        }
        for (int64_t group = group_lo; group < group_hi; group++) {
            const int64_t panel = group * UPDATE_PANELS, rest = panels - panel;
            for (int64_t i = 0; i < m; i += GEMM_MR)
                gemm_update_tile(a, packed + i * GEMM_ROW, block_size, k_blocks, row + i, m - i < GEMM_MR ? m - i : GEMM_MR,
                                 panel, rest < UPDATE_PANELS ? rest : UPDATE_PANELS);
        }
    }
}
