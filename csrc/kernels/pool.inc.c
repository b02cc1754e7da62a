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

/* Taps of a window, how far they lie apart in x, and the numbers that name them: first (none yet), i * row + j * col. */
typedef struct {
    taps h, w;
    int64_t x_h, x_w, first, row, col;
} window;

enum { NO_INDEX, POSITIONS, TAPS };

/* The first maximum of a window whose tap (0, 0) lies at x; a NaN wins if `nans`. Literals are unrolled. */
INLINE void max_of_window(const window *k, int index, int nans, const float *x, vec *best, ivec *where) {
    *best = vset(-__builtin_inff());
    *where = iset((int32_t)k->first);
#pragma GCC unroll 3
    for (int64_t i = k->h.lo; i < k->h.hi; i++)
#pragma GCC unroll 3
        for (int64_t j = k->w.lo; j < k->w.hi; j++) {
            vec v = vload(x + i * k->x_h + j * k->x_w);
            ivec at = iset((int32_t)(i * k->row + j * k->col));
            if (nans) {
                vmax_where(best, where, v, at);
            } else {
                if (index) *where = (ivec)vselect((ivec)(v > *best), (vec)at, (vec)*where);
                *best = VGREATER(v, *best);
            }
        }
}

/* Windows [first, last) of a row, which have the same taps. x: where their taps' row 0 is, at: its position; out: the first
 * window of the row. */
INLINE void max_pool_windows(const fc_max_pool_args *a, const window *k, int index, int nans, int64_t first,
                             int64_t last, const float *x, int64_t at, float *y, int64_t out) {
    for (int64_t ow = first; ow < last; ow++) {
        int64_t left = ow * a->stride_w - a->pad_w;
        vec best;
        ivec where;
        max_of_window(k, index, nans, x + left * VW, &best, &where);
        vstore(y + ow * VW, best);
        if (index == POSITIONS) istore(a->idx + (out + ow) * VW, where + iset((int32_t)(at + left)));
        if (index == TAPS) bstore(a->taps + (out + ow) * VW, where);
    }
}

/* Square windows of which no tap is outside. */
INLINE void max_pool_square(const fc_max_pool_args *a, int64_t size, int64_t first, int64_t last, const float *x, float *y,
                            int64_t out) {
    const window k = {{0, 0, size}, {0, 0, size}, a->x_h, VW, 0, size, 1};
    if (a->taps)
        max_pool_windows(a, &k, TAPS, 0, first, last, x, 0, y, out);
    else
        max_pool_windows(a, &k, NO_INDEX, 0, first, last, x, 0, y, out);
}

/* Whether some of these floats, whole vectors, are NaN (or infinite). */
INLINE int any_not_finite(const float *x, int64_t count) {
    const vec zero = {0};
    vec sum[4] = {0};
    int64_t i = 0;
    for (; i + 4 * VW <= count; i += 4 * VW)
        for (int k = 0; k < 4; k++) sum[k] += vload(x + i + k * VW) * zero;
    for (; i < count; i += VW) sum[0] += vload(x + i) * zero;
    float total = vsum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    return total != total;
}

FC_DEFINE(max_pool) {
    int64_t lo, hi, span = (a->kw - 1) * a->dil_w;
    int64_t inside = (a->pad_w + a->stride_w - 1) / a->stride_w; /* [inside, end): windows with no column outside */
    int64_t end = a->w + a->pad_w > span ? (a->w + a->pad_w - span - 1) / a->stride_w + 1 : 0;
    if (end > a->ow) end = a->ow;
    if (inside > end) inside = end;
    int index = a->idx ? POSITIONS : a->taps ? TAPS : NO_INDEX;
    int square = a->kh == a->kw && a->dil_h == 1 && a->dil_w == 1 && index != POSITIONS ? (int)a->kh : 0;
    share(a->n * a->c * a->oh, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t oh = row % a->oh, c = row / a->oh % a->c, n = row / a->oh / a->c, out = row * a->ow;
        taps th = taps_of(oh, a->stride_h, a->pad_h, a->dil_h, a->kh, a->h);
        const float *x = a->x + n * a->x_n + c * a->x_c + th.at * a->x_h;
        float *y = a->y + n * a->y_n + c * a->y_c + oh * a->y_h;
        int nans = 0;
        for (int64_t i = th.lo; i < th.hi; i++) nans |= any_not_finite(x + i * a->dil_h * a->x_h, a->w * VW);
        for (int64_t ow = 0; ow < a->ow;) {
            int within = ow >= inside && ow < end;
            int64_t next = within ? end : ow + 1;
            int full = within && th.hi - th.lo == a->kh && !nans;
            if (full && square == 3) {
                max_pool_square(a, 3, ow, next, x, y, out);
            } else if (full && square == 2) {
                max_pool_square(a, 2, ow, next, x, y, out);
            } else {
                taps tw = taps_of(ow, a->stride_w, a->pad_w, a->dil_w, a->kw, a->w);
                window k = {th, tw, a->dil_h * a->x_h, a->dil_w * VW, th.lo * a->kw + tw.lo, a->kw, 1};
                if (index == POSITIONS) { /* also of a window that is all outside */
                    k.first = clamp(th.at + th.lo * a->dil_h, a->h) * a->w + clamp(tw.at + tw.lo * a->dil_w, a->w);
                    k.first -= th.at * a->w + tw.at;
                    k.row = a->dil_h * a->w, k.col = a->dil_w;
                }
                max_pool_windows(a, &k, index, nans, ow, next, x, th.at * a->w, y, out);
            }
            ow = next;
        }
    }
}

/* Whether input position `at` is tap `k` of a window: which one, or -1. */
INLINE int64_t window_of(int64_t at, int64_t k, int64_t stride, int64_t pad, int64_t dil, int64_t windows) {
    int64_t from = at + pad - k * dil;
    return from < 0 || from % stride || from / stride >= windows ? -1 : from / stride;
}

/* Where the lanes' maxima are `tap` of the window `at`, which lies at `position` of the input. */
INLINE ivec is_maximum(const fc_max_pool_bwd_args *a, int64_t at, int64_t tap, int64_t position) {
    if (a->taps) return (ivec)(bload(a->taps + at * VW) == iset((int32_t)tap));
    return (ivec)(iload(a->idx + at * VW) == iset((int32_t)position));
}

/* Windows side by side, none outside the input: each pixel has at most one window, so dx is written once. */
INLINE void max_pool_bwd_apart(const fc_max_pool_bwd_args *a, int64_t kh, int64_t kw, int64_t n, int64_t c, int64_t oh) {
    const float *dy = a->dy + n * a->y_n + c * a->y_c + oh * a->y_h;
    const float *mask = a->mask ? a->mask + n * a->m_n + c * a->m_c + oh * a->m_h : NULL;
    int64_t at = ((n * a->c + c) * a->oh + oh) * a->ow;
    float *dx = a->dx + n * a->x_n + c * a->x_c + oh * kh * a->x_h;
    for (int64_t ow = 0; ow < a->ow; ow++) {
        vec d = vload(dy + ow * VW);
        if (mask) d = vmask(d, vload(mask + ow * VW));
        for (int64_t i = 0; i < kh; i++)
            for (int64_t j = 0; j < kw; j++) {
                ivec here = is_maximum(a, at + ow, i * kw + j, (oh * kh + i) * a->w + ow * kw + j);
                vstore(dx + i * a->x_h + (ow * kw + j) * VW, (vec)((ivec)d & here));
            }
    }
    for (int64_t i = 0; i < kh; i++)
        for (int64_t iw = a->ow * kw; iw < a->w; iw++) vstore(dx + i * a->x_h + iw * VW, (vec){0});
    for (int64_t ih = a->oh * kh; oh == a->oh - 1 && ih < a->h; ih++)
        for (int64_t iw = 0; iw < a->w; iw++) vstore(dx + (ih - oh * kh) * a->x_h + iw * VW, (vec){0});
}

/* One tap of `count` windows side by side adds to the pixels that it falls on, from dx at `position` on. */
INLINE void max_pool_bwd_tap(const float *dy, const float *mask, const uint8_t *taps, const int32_t *idx, int32_t tap,
                             int32_t position, int64_t stride, int64_t count, float *dx) {
    for (int64_t i = 0; i < count; i++) {
        vec d = vload(dy + i * VW);
        if (mask) d = vmask(d, vload(mask + i * VW));
        ivec here = taps ? (ivec)(bload(taps + i * VW) == iset(tap))
                         : (ivec)(iload(idx + i * VW) == iset(position + (int32_t)(i * stride)));
        vstore(dx + i * stride * VW, vload(dx + i * stride * VW) + (vec)((ivec)d & here));
    }
}

/* Row ih of dx, tap by tap of the windows that meet it. */
INLINE void max_pool_bwd_row(const fc_max_pool_bwd_args *a, int64_t n, int64_t c, int64_t ih) {
    float *dx = a->dx + n * a->x_n + c * a->x_c + ih * a->x_h;
    for (int64_t iw = 0; iw < a->w; iw++) vstore(dx + iw * VW, (vec){0});
    for (int64_t i = a->kh - 1; i >= 0; i--) {
        int64_t oh = window_of(ih, i, a->stride_h, a->pad_h, a->dil_h, a->oh);
        if (oh < 0) continue;
        for (int64_t j = a->kw - 1; j >= 0; j--) {
            int64_t from = j * a->dil_w - a->pad_w; /* pixel of the first window */
            int64_t first = from < 0 ? (-from + a->stride_w - 1) / a->stride_w : 0;
            int64_t end = from < a->w ? (a->w - 1 - from) / a->stride_w + 1 : 0, iw = from + first * a->stride_w;
            int64_t count = (end < a->ow ? end : a->ow) - first;
            int64_t at = (((n * a->c + c) * a->oh + oh) * a->ow + first) * VW;
            const float *dy = a->dy + n * a->y_n + c * a->y_c + oh * a->y_h + first * VW;
            int32_t tap = (int32_t)(i * a->kw + j), position = (int32_t)(ih * a->w + iw);
            if (a->mask)
                max_pool_bwd_tap(dy, a->mask + n * a->m_n + c * a->m_c + oh * a->m_h + first * VW,
                                 a->taps ? a->taps + at : NULL, a->idx ? a->idx + at : NULL, tap, position, a->stride_w,
                                 count, dx + iw * VW);
            else if (a->taps)
                max_pool_bwd_tap(dy, NULL, a->taps + at, NULL, tap, 0, a->stride_w, count, dx + iw * VW);
            else
                max_pool_bwd_tap(dy, NULL, NULL, a->idx + at, tap, position, a->stride_w, count, dx + iw * VW);
        }
    }
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
    for (int64_t row = lo; row < hi; row++) max_pool_bwd_row(a, row / a->h / a->c, row / a->h % a->c, row % a->h);
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
