/* Softmax and cross-entropy on dense lanes_n values: every vector holds the same class of VW images. */
#include "math.h"

/* The maximum over c of the vectors at x, `step` apart. */
INLINE vec class_max(const float *x, int64_t c, int64_t step) {
    vec top = vload(x);
    for (int64_t j = 1; j < c; j++) {
        vec v = vload(x + j * step);
        top = vselect((ivec)(v > top), v, top);
    }
    return top;
}

FC_DEFINE(softmax) {
    const int64_t step = a->inner * VW;
    int64_t lo, hi;
    share(a->n * a->inner, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t at = item / a->inner * a->c * step + item % a->inner * VW;
        const float *x = a->x + at;
        float *y = a->y + at;
        const vec top = class_max(x, a->c, step);
        vec sum = vset(0.0f);
        if (a->log) {
            for (int64_t j = 0; j < a->c; j++) sum += vexp(vload(x + j * step) - top);
            const vec log_sum = vlog(sum);
            for (int64_t j = 0; j < a->c; j++) vstore(y + j * step, (vload(x + j * step) - top) - log_sum);
        } else {
            for (int64_t j = 0; j < a->c; j++) {
                vec e = vexp(vload(x + j * step) - top);
                sum += e;
                vstore(y + j * step, e);
            }
            const vec scale = 1.0f / sum;
            for (int64_t j = 0; j < a->c; j++) vstore(y + j * step, vload(y + j * step) * scale);
        }
    }
}

FC_DEFINE(softmax_bwd) {
    const int64_t step = a->inner * VW;
    int64_t lo, hi;
    share(a->n * a->inner, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t at = item / a->inner * a->c * step + item % a->inner * VW;
        const float *y = a->y + at, *dy = a->dy + at;
        float *dx = a->dx + at;
        vec sum = vset(0.0f);
        for (int64_t j = 0; j < a->c; j++) {
            vec g = vload(dy + j * step);
            if (!a->log) g *= vload(y + j * step);
            sum += g;
        }
        for (int64_t j = 0; j < a->c; j++) {
            vec g = vload(dy + j * step), p = vload(y + j * step);
            if (a->log)
                vstore(dx + j * step, g - vexp(p) * sum);
            else
                vstore(dx + j * step, p * (g - sum));
        }
    }
}

/* What reduction "mean" divides by: the weights of the targets that count. */
static double target_weight(const fc_cross_entropy_args *a) {
    double total = 0.0;
    for (int64_t i = 0; i < a->images * a->inner; i++)
        if (a->target[i] != a->ignore_index) total += a->weight ? a->weight[a->target[i]] : 1.0f;
    return total;
}

/* An item's loss is sum over j of share_j * -log p_j, where share_j is smoothing / c * weight_j, and for the target also
 * (1 - smoothing) * weight. Its gradient is p_j * (sum of the shares) - share_j. */
FC_DEFINE(cross_entropy) {
    const int64_t step = a->inner * VW, blocks = (a->images + VW - 1) / VW;
    const float norm = a->reduction == 1 ? (float)target_weight(a) : 1.0f;
    const float spread = (float)(a->label_smoothing / (double)a->c), direct = (float)(1.0 - a->label_smoothing);
    double weights = 0.0;
    for (int64_t j = 0; j < a->c; j++) weights += a->weight ? a->weight[j] : 1.0f;
    const float smooth = (float)(spread * weights);
    int64_t lo, hi;
    share(blocks * a->inner, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t block = item / a->inner, inner = item % a->inner;
        const int64_t at = block * a->c * step + inner * VW;
        const float *x = a->x + at;
        float *dx = a->dx ? a->dx + at : NULL;
        const vec top = class_max(x, a->c, step);
        vec sum = vset(0.0f), all = vset(0.0f); /* all: sum of weight_j * (x_j - top) */
        for (int64_t j = 0; j < a->c; j++) {
            vec v = vload(x + j * step) - top, e = vexp(v);
            sum += e;
            if (spread != 0) all += (a->weight ? a->weight[j] : 1.0f) * v;
            if (dx) vstore(dx + j * step, e);
        }
        const vec log_sum = vlog(sum);
        float counts[VW] = {0}, picked[VW] = {0};
        for (int lane = 0; lane < VW && block * VW + lane < a->images; lane++) {
            const int64_t i = (block * VW + lane) * a->inner + inner, target = a->target[i];
            float loss = 0.0f;
            if (target != a->ignore_index) {
                counts[lane] = 1.0f;
                picked[lane] = direct * (a->weight ? a->weight[target] : 1.0f);
                loss = picked[lane] * (log_sum[lane] - (x[target * step + lane] - top[lane]));
                if (spread != 0) loss += smooth * log_sum[lane] - spread * all[lane];
            }
            a->loss[i] = loss / norm;
        }
        if (!dx) continue;
        const vec live = vload(counts);
        const ivec on = (ivec)(live > vset(0.0f));
        const vec scale = (vload(picked) + smooth) / (sum * norm);
        for (int64_t j = 0; j < a->c; j++) {
            vec g = vload(dx + j * step) * scale;
            if (spread != 0) g -= spread * (a->weight ? a->weight[j] : 1.0f) / norm;
            vstore(dx + j * step, vselect(on, g, vset(0.0f)));
        }
        for (int lane = 0; lane < VW && block * VW + lane < a->images; lane++)
            if (counts[lane] > 0) {
                const int64_t target = a->target[(block * VW + lane) * a->inner + inner];
                dx[target * step + lane] -= picked[lane] / norm;
            }
    }
}

FC_DEFINE(scale_items) {
    const int64_t step = a->inner * VW, blocks = (a->images + VW - 1) / VW;
    int64_t lo, hi;
    share(blocks * a->inner, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t block = item / a->inner, inner = item % a->inner, at = block * a->c * step + inner * VW;
        float lanes[VW] = {0};
        for (int lane = 0; lane < VW && block * VW + lane < a->images; lane++)
            lanes[lane] = a->s[(block * VW + lane) * a->inner + inner];
        const vec scale = vload(lanes);
        for (int64_t j = 0; j < a->c; j++) vstore(a->y + at + j * step, vload(a->x + at + j * step) * scale);
    }
}
