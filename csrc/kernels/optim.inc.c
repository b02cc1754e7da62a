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

FC_DEFINE(sgd) {
    const double *hyper = a->hyper;
    const vec lr = vset((float)-hyper[0]), momentum = vset((float)hyper[1]);
    const vec damping = vset((float)(1.0 - hyper[2])), decay = vset((float)hyper[3]);
    const int nesterov = hyper[4] != 0, first = hyper[5] != 0;
    const vec sign = vset(hyper[6] != 0 ? -1.0f : 1.0f);
    const vec l1 = vset((float)hyper[7]);
    const int sparse = hyper[7] != 0;
    int64_t strides[1][3] = {{0}};
    rows r = rows_share(1, 1, 1, a->size, strides, 1, ith, nth);
    rows_next(&r);
    for (int64_t i = r.at, end = r.at + r.count; i < end; i += VW) {
        vec p = load_up_to(a->p + i, end - i), g = sign * load_up_to(a->g + i, end - i);
        if (sparse) g = g + signed_weight(l1, p);
        if (hyper[3] != 0) g = g + decay * p;
        if (a->buf) {
            vec buf = g;
            if (!first) buf = load_up_to(a->buf + i, end - i) * momentum + damping * g;
            store_up_to(a->buf + i, buf, end - i);
            if (nesterov)
                g = g + momentum * buf;
            else
                g = buf;
        }
        store_up_to(a->p + i, p + lr * g, end - i);
    }
}

/* base^exponent by squaring: the exponent is a count of steps. */
static inline double int_power(double base, int64_t exponent) {
    double result = 1.0;
    for (; exponent > 0; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

FC_DEFINE(adam) {
    const double *hyper = a->hyper;
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
    int64_t strides[1][3] = {{0}};
    rows r = rows_share(1, 1, 1, a->size, strides, 1, ith, nth);
    rows_next(&r);
    for (int64_t i = r.at, end = r.at + r.count; i < end; i += VW) {
        vec p = load_up_to(a->p + i, end - i), g = sign * load_up_to(a->g + i, end - i);
        vec m = load_up_to(a->m + i, end - i), v = load_up_to(a->v + i, end - i);
        if (sparse) g = g + signed_weight(l1, p);
        if (hyper[4] != 0) {
            if (decoupled)
                p = p * shrink;
            else
                g = g + decay * p;
        }
        m = m + weight1 * (g - m);
        v = v * keep2 + weight2 * g * g;
        store_up_to(a->m + i, m, end - i);
        store_up_to(a->v + i, v, end - i);
        if (a->vmax) {
            vec top = load_up_to(a->vmax + i, end - i);
            v = vselect((ivec)(v <= top), top, v);
            store_up_to(a->vmax + i, v, end - i);
        }
        vec denominator = vsqrt(v) / root + eps;
        store_up_to(a->p + i, p + size * m / denominator, end - i);
    }
}

FC_DEFINE(rmsprop) {
    const double *hyper = a->hyper;
    const vec lr = vset((float)-hyper[0]), keep = vset((float)hyper[1]), take = vset((float)(1.0 - hyper[1]));
    const vec eps = vset((float)hyper[2]), decay = vset((float)hyper[3]), momentum = vset((float)hyper[4]);
    const vec sign = vset(hyper[5] != 0 ? -1.0f : 1.0f);
    const vec l1 = vset((float)hyper[6]);
    const int sparse = hyper[6] != 0;
    int64_t strides[1][3] = {{0}};
    rows r = rows_share(1, 1, 1, a->size, strides, 1, ith, nth);
    rows_next(&r);
    for (int64_t i = r.at, end = r.at + r.count; i < end; i += VW) {
        vec p = load_up_to(a->p + i, end - i), g = sign * load_up_to(a->g + i, end - i);
        if (sparse) g = g + signed_weight(l1, p);
        if (hyper[3] != 0) g = g + decay * p;
        vec v = load_up_to(a->v + i, end - i) * keep + take * g * g, spread = v;
        store_up_to(a->v + i, v, end - i);
        if (a->avg) {
            vec avg = load_up_to(a->avg + i, end - i);
            avg = avg + take * (g - avg);
            store_up_to(a->avg + i, avg, end - i);
            spread = v - avg * avg;
        }
        vec move = g / (vsqrt(spread) + eps);
        if (a->buf) {
            move = load_up_to(a->buf + i, end - i) * momentum + move;
            store_up_to(a->buf + i, move, end - i);
        }
        store_up_to(a->p + i, p + lr * move, end - i);
    }
}

FC_DEFINE(adagrad) {
    const double *hyper = a->hyper;
    const vec lr = vset((float)-(hyper[0] / (1.0 + (hyper[5] - 1.0) * hyper[1]))), eps = vset((float)hyper[2]);
    const vec decay = vset((float)hyper[3]), initial = vset((float)hyper[4]);
    const vec sign = vset(hyper[6] != 0 ? -1.0f : 1.0f);
    const int first = hyper[5] == 1;
    const vec l1 = vset((float)hyper[7]);
    const int sparse = hyper[7] != 0;
    int64_t strides[1][3] = {{0}};
    rows r = rows_share(1, 1, 1, a->size, strides, 1, ith, nth);
    rows_next(&r);
    for (int64_t i = r.at, end = r.at + r.count; i < end; i += VW) {
        vec p = load_up_to(a->p + i, end - i), g = sign * load_up_to(a->g + i, end - i);
        if (sparse) g = g + signed_weight(l1, p);
        if (hyper[3] != 0) g = g + decay * p;
        vec v = (first ? initial : load_up_to(a->v + i, end - i)) + g * g;
        store_up_to(a->v + i, v, end - i);
        store_up_to(a->p + i, p + lr * g / (vsqrt(v) + eps), end - i);
    }
}
