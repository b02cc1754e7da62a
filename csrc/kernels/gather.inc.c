/* Sums and maxima over table-driven windows of pixels: resampling, padding, adaptive and 1-D/3-D pooling. Blocked planes. */

FC_DEFINE(gather_sum) {
    int64_t lo, hi;
    share(a->planes * a->outs, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t plane = item / a->outs, j = item % a->outs;
        const float *x = a->x + plane * a->ins * VW;
        vec sum = {0};
        for (int64_t k = a->starts[j]; k < a->starts[j + 1]; k++)
            sum += vset(a->weights[k]) * vload(x + a->index[k] * VW);
        vstore(a->y + item * VW, sum);
    }
}

FC_DEFINE(gather_max) {
    int64_t lo, hi;
    share(a->planes * a->outs, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t plane = item / a->outs, j = item % a->outs, k = a->starts[j];
        const float *x = a->x + plane * a->ins * VW;
        vec best = vset(-__builtin_inff());
        ivec where = iset(0);
        if (k < a->starts[j + 1]) {
            best = vload(x + a->index[k] * VW);
            where = iset((int32_t)a->index[k]);
        }
        for (k++; k < a->starts[j + 1]; k++)
            vmax_where(&best, &where, vload(x + a->index[k] * VW), iset((int32_t)a->index[k]));
        vstore(a->y + item * VW, best);
        if (a->idx) istore(a->idx + item * VW, where);
    }
}

FC_DEFINE(gather_max_bwd) {
    int64_t lo, hi;
    share(a->planes * a->ins, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t plane = item / a->ins;
        const float *dy = a->dy + plane * a->outs * VW;
        const int32_t *idx = a->idx + plane * a->outs * VW;
        ivec here = iset((int32_t)(item % a->ins));
        vec sum = {0};
        for (int64_t k = a->starts[item % a->ins]; k < a->starts[item % a->ins + 1]; k++) {
            ivec mine = (ivec)(iload(idx + a->index[k] * VW) == here);
            sum += (vec)(mine & (ivec)vload(dy + a->index[k] * VW));
        }
        vstore(a->dx + item * VW, sum);
    }
}

FC_DEFINE(scatter) {
    int64_t lo, hi;
    share(a->planes, ith, nth, &lo, &hi);
    for (int64_t plane = lo; plane < hi; plane++) {
        const float *x = a->x + plane * a->ins;
        float *y = a->y + plane * a->outs;
        for (int64_t j = 0; j < a->outs; j++) y[j] = 0.0f;
        for (int64_t j = 0; j < a->ins; j++) {
            int64_t to = a->narrow ? a->narrow[plane * a->ins + j] : a->wide[plane * a->ins + j];
            if (to >= 0 && to < a->outs) y[to] = x[j];
        }
    }
}

FC_DEFINE(gather) {
    int64_t lo, hi;
    share(a->planes, ith, nth, &lo, &hi);
    for (int64_t plane = lo; plane < hi; plane++)
        for (int64_t j = 0; j < a->outs; j++) {
            int64_t from = a->narrow ? a->narrow[plane * a->outs + j] : a->wide[plane * a->outs + j];
            a->y[plane * a->outs + j] = from >= 0 && from < a->ins && from != a->skip ? a->x[plane * a->ins + from] : 0.0f;
        }
}

/* Sums of at most this many floats are added up in float, the sums of those in double. */
#define REDUCE_CHUNK 128

FC_DEFINE(reduce_sum) {
    int64_t lo, hi;
    if (a->inner == 1) {
        share(a->outer, ith, nth, &lo, &hi);
        for (int64_t o = lo; o < hi; o++) {
            const float *x = a->x + o * a->count;
            double sum = 0;
            for (int64_t r = 0; r < a->count; r += REDUCE_CHUNK * VW) {
                int64_t stop = r + REDUCE_CHUNK * VW < a->count ? r + REDUCE_CHUNK * VW : a->count, i = r;
                vec part = {0};
                for (; i + VW <= stop; i += VW) part += vload(x + i);
                if (i < stop) part += tail_load(x + i, stop - i);
                sum += (double)vsum(part);
            }
            a->y[o] = (float)(a->alpha * sum);
        }
        return;
    }
    int64_t vectors = (a->inner + VW - 1) / VW;
    share(a->outer * vectors, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t o = item / vectors, i = item % vectors * VW, left = a->inner - i;
        const float *x = a->x + o * a->count * a->inner + i;
        double sum[VW] = {0};
        for (int64_t r = 0; r < a->count; r += REDUCE_CHUNK) {
            int64_t stop = r + REDUCE_CHUNK < a->count ? r + REDUCE_CHUNK : a->count;
            vec part = {0};
            for (int64_t k = r; k < stop; k++)
                part += left >= VW ? vload(x + k * a->inner) : tail_load(x + k * a->inner, left);
            float lane[VW];
            vstore(lane, part);
            for (int l = 0; l < VW; l++) sum[l] += lane[l];
        }
        for (int l = 0; l < VW && l < left; l++) a->y[o * a->inner + i + l] = (float)(a->alpha * sum[l]);
    }
}
