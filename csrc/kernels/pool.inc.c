/* Pooling of blocked values. Work is shared in rows; a window's part inside the input is cut once per row and column. */

/* The taps [lo, hi) of window `o` that fall on the input's [0, size), and where tap 0 lies. */
typedef struct {
    int64_t at, lo, hi;
} taps;

INLINE taps taps_of(int64_t o, int64_t stride, int64_t pad, int64_t dil, int64_t k, int64_t size) {
    taps t = {o * stride - pad, 0, k};
    if (t.at < 0) t.lo = (dil - 1 - t.at) / dil;
    if (t.at + (k - 1) * dil >= size) t.hi = t.at >= size ? 0 : (size - t.at + dil - 1) / dil;
    return t;
}

INLINE int64_t clamp(int64_t i, int64_t size) { return i < 0 ? 0 : i < size ? i : size - 1; }

/* A row of windows that all lie inside the input; kh and kw may be literals. */
INLINE void max_pool_inside(const fc_max_pool_args *a, int64_t kh, int64_t kw, const float *x, float *y, int32_t *idx,
                            int32_t position) {
    for (int64_t ow = 0; ow < a->ow; ow++, x += a->stride_w * VW, position += (int32_t)a->stride_w) {
        vec best = vload(x);
        ivec where = iset(position);
        for (int64_t i = 0; i < kh; i++)
            for (int64_t j = i == 0; j < kw; j++) {
                vec v = vload(x + i * a->x_h + j * VW);
                if (idx)
                    vmax_where(&best, &where, v, iset(position + (int32_t)(i * a->w + j)));
                else
                    best = vmax(best, v);
            }
        vstore(y + ow * VW, best);
        if (idx) istore(idx + ow * VW, where);
    }
}

FC_DEFINE(max_pool) {
    int64_t lo, hi;
    share(a->n * a->c * a->oh, ith, nth, &lo, &hi);
    int inside = !a->pad_h && !a->pad_w && a->dil_h == 1 && a->dil_w == 1 &&
                 (a->oh - 1) * a->stride_h + a->kh <= a->h && (a->ow - 1) * a->stride_w + a->kw <= a->w;
    for (int64_t row = lo; inside && row < hi; row++) {
        int64_t oh = row % a->oh, c = row / a->oh % a->c, n = row / a->oh / a->c;
        const float *x = a->x + n * a->x_n + c * a->x_c + oh * a->stride_h * a->x_h;
        float *y = a->y + n * a->y_n + c * a->y_c + oh * a->y_h;
        int32_t *idx = a->idx ? a->idx + row * a->ow * VW : NULL, position = (int32_t)(oh * a->stride_h * a->w);
        if (a->kh == 2 && a->kw == 2)
            max_pool_inside(a, 2, 2, x, y, idx, position);
        else
            max_pool_inside(a, a->kh, a->kw, x, y, idx, position);
    }
    if (inside) return;
    for (int64_t row = lo; row < hi; row++) {
        int64_t oh = row % a->oh, c = row / a->oh % a->c, n = row / a->oh / a->c;
        const float *x = a->x + n * a->x_n + c * a->x_c;
        float *y = a->y + n * a->y_n + c * a->y_c + oh * a->y_h;
        int32_t *idx = a->idx ? a->idx + row * a->ow * VW : NULL;
        taps th = taps_of(oh, a->stride_h, a->pad_h, a->dil_h, a->kh, a->h);
        for (int64_t ow = 0; ow < a->ow; ow++) {
            taps tw = taps_of(ow, a->stride_w, a->pad_w, a->dil_w, a->kw, a->w);
            int64_t first_h = clamp(th.at + th.lo * a->dil_h, a->h), first_w = clamp(tw.at + tw.lo * a->dil_w, a->w);
            vec best = vset(-__builtin_inff());
            ivec where = iset((int32_t)(first_h * a->w + first_w));
            for (int64_t i = th.lo; i < th.hi; i++)
                for (int64_t j = tw.lo; j < tw.hi; j++) {
                    int64_t ih = th.at + i * a->dil_h, iw = tw.at + j * a->dil_w;
                    vmax_where(&best, &where, vload(x + ih * a->x_h + iw * VW), iset((int32_t)(ih * a->w + iw)));
                }
            vstore(y + ow * VW, best);
            if (idx) istore(idx + ow * VW, where);
        }
    }
}

/* Whether input position `at` is tap `k` of a window: which one, or -1. */
INLINE int64_t window_of(int64_t at, int64_t k, int64_t stride, int64_t pad, int64_t dil, int64_t windows) {
    int64_t from = at + pad - k * dil;
    return from < 0 || from % stride || from / stride >= windows ? -1 : from / stride;
}

/* Windows side by side, none outside the input: each pixel has at most one window, so dx is written once. */
INLINE void max_pool_bwd_apart(const fc_max_pool_bwd_args *a, int64_t kh, int64_t kw, int64_t n, int64_t c, int64_t oh) {
    const float *dy = a->dy + n * a->y_n + c * a->y_c + oh * a->y_h;
    const float *mask = a->mask ? a->mask + n * a->m_n + c * a->m_c + oh * a->m_h : NULL;
    const int32_t *idx = a->idx + ((n * a->c + c) * a->oh + oh) * a->ow * VW;
    float *dx = a->dx + n * a->x_n + c * a->x_c + oh * kh * a->x_h;
    int32_t position = (int32_t)(oh * kh * a->w);
    for (int64_t ow = 0; ow < a->ow; ow++, position += (int32_t)kw) {
        vec d = vload(dy + ow * VW);
        if (mask) d = vmask(d, vload(mask + ow * VW));
        ivec where = iload(idx + ow * VW);
        for (int64_t i = 0; i < kh; i++)
            for (int64_t j = 0; j < kw; j++) {
                ivec here = (ivec)(where == iset(position + (int32_t)(i * a->w + j)));
                vstore(dx + i * a->x_h + (ow * kw + j) * VW, (vec)((ivec)d & here));
            }
    }
    for (int64_t i = 0; i < kh; i++)
        for (int64_t iw = a->ow * kw; iw < a->w; iw++) vstore(dx + i * a->x_h + iw * VW, (vec){0});
    for (int64_t ih = a->oh * kh; oh == a->oh - 1 && ih < a->h; ih++)
        for (int64_t iw = 0; iw < a->w; iw++) vstore(dx + (ih - oh * kh) * a->x_h + iw * VW, (vec){0});
}

FC_DEFINE(max_pool_bwd) {
    int64_t lo, hi;
    if (!a->pad_h && !a->pad_w && a->dil_h == 1 && a->dil_w == 1 && a->stride_h == a->kh && a->stride_w == a->kw &&
        a->oh * a->kh <= a->h && a->ow * a->kw <= a->w) {
        share(a->n * a->c * a->oh, ith, nth, &lo, &hi);
        for (int64_t row = lo; row < hi; row++) {
            int64_t oh = row % a->oh, c = row / a->oh % a->c, n = row / a->oh / a->c;
            if (a->kh == 2 && a->kw == 2)
                max_pool_bwd_apart(a, 2, 2, n, c, oh);
            else
                max_pool_bwd_apart(a, a->kh, a->kw, n, c, oh);
        }
        return;
    }
    share(a->n * a->c * a->h, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t ih = row % a->h, c = row / a->h % a->c, n = row / a->h / a->c;
        float *dx = a->dx + n * a->x_n + c * a->x_c + ih * a->x_h;
        for (int64_t iw = 0; iw < a->w; iw++) vstore(dx + iw * VW, (vec){0});
        for (int64_t i = a->kh - 1; i >= 0; i--) {
            int64_t oh = window_of(ih, i, a->stride_h, a->pad_h, a->dil_h, a->oh);
            if (oh < 0) continue;
            const float *dy = a->dy + n * a->y_n + c * a->y_c + oh * a->y_h;
            const float *mask = a->mask ? a->mask + n * a->m_n + c * a->m_c + oh * a->m_h : NULL;
            const int32_t *idx = a->idx + ((n * a->c + c) * a->oh + oh) * a->ow * VW;
            for (int64_t ow = 0; ow < a->ow; ow++) {
                taps tw = taps_of(ow, a->stride_w, a->pad_w, a->dil_w, a->kw, a->w);
                vec d = vload(dy + ow * VW);
                if (mask) d = vmask(d, vload(mask + ow * VW));
                ivec where = iload(idx + ow * VW);
                for (int64_t j = tw.lo; j < tw.hi; j++) {
                    int64_t iw = tw.at + j * a->dil_w;
                    ivec here = (ivec)(where == iset((int32_t)(ih * a->w + iw)));
                    vstore(dx + iw * VW, vload(dx + iw * VW) + (vec)((ivec)d & here));
                }
            }
        }
    }
}

/* PyTorch's divisor of the window whose first tap lies at (h, w). */
INLINE float avg_divisor(int64_t divisor, int64_t include_pad, taps th, taps tw, int64_t kh, int64_t kw,
                         int64_t end_h, int64_t end_w) {
    if (divisor) return (float)divisor;
    if (!include_pad) return (float)((th.hi - th.lo) * (tw.hi - tw.lo));
    if (kh > end_h - th.at) kh = end_h - th.at;
    if (kw > end_w - tw.at) kw = end_w - tw.at;
    return (float)(kh * kw);
}

FC_DEFINE(avg_pool) {
    int64_t lo, hi;
    share(a->n * a->c * a->oh, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t oh = row % a->oh, c = row / a->oh % a->c, n = row / a->oh / a->c;
        float *y = a->y + n * a->y_n + c * a->y_c + oh * a->y_h;
        taps th = taps_of(oh, a->stride_h, a->pad_h, 1, a->kh, a->h);
        for (int64_t ow = 0; ow < a->ow; ow++) {
            taps tw = taps_of(ow, a->stride_w, a->pad_w, 1, a->kw, a->w);
            vec sum = {0};
            for (int64_t i = th.lo; i < th.hi; i++)
                for (int64_t j = tw.lo; j < tw.hi; j++)
                    sum += vload(a->x + n * a->x_n + c * a->x_c + (th.at + i) * a->x_h + (tw.at + j) * VW);
            if (th.lo < th.hi && tw.lo < tw.hi)
                sum /= vset(avg_divisor(a->divisor, a->count_include_pad, th, tw, a->kh, a->kw, a->h + a->pad_h,
                                        a->w + a->pad_w));
            vstore(y + ow * VW, sum);
        }
    }
}

FC_DEFINE(avg_pool_bwd) {
    int64_t lo, hi;
    share(a->n * a->c * a->h, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t ih = row % a->h, c = row / a->h % a->c, n = row / a->h / a->c;
        float *dx = a->dx + n * a->x_n + c * a->x_c + ih * a->x_h;
        for (int64_t iw = 0; iw < a->w; iw++) vstore(dx + iw * VW, (vec){0});
        for (int64_t i = a->kh - 1; i >= 0; i--) {
            int64_t oh = window_of(ih, i, a->stride_h, a->pad_h, 1, a->oh);
            if (oh < 0) continue;
            const float *dy = a->dy + n * a->y_n + c * a->y_c + oh * a->y_h;
            taps th = taps_of(oh, a->stride_h, a->pad_h, 1, a->kh, a->h);
            for (int64_t ow = 0; ow < a->ow; ow++) {
                taps tw = taps_of(ow, a->stride_w, a->pad_w, 1, a->kw, a->w);
                vec d = vload(dy + ow * VW) / vset(avg_divisor(a->divisor, a->count_include_pad, th, tw, a->kh, a->kw,
                                                               a->h + a->pad_h, a->w + a->pad_w));
                for (int64_t j = tw.lo; j < tw.hi; j++) {
                    float *at = dx + (tw.at + j) * VW;
                    vstore(at, vload(at) + d);
                }
            }
        }
    }
}
