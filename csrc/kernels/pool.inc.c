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

/* The first maximum of a window whose tap (0, 0) lies at x. A NaN wins if `nans`; else it may be lost, but not from
 * *sum, which all elements are added to. */
INLINE void max_of_window(const window *k, int index, int nans, const float *x, vec *best, ivec *where, vec *sum) {
    *best = vset(-__builtin_inff());
    *where = iset((int32_t)k->first);
    for (int64_t i = k->h.lo; i < k->h.hi; i++)
        for (int64_t j = k->w.lo; j < k->w.hi; j++) {
            vec v = vload(x + i * k->x_h + j * k->x_w);
            ivec at = iset((int32_t)(i * k->row + j * k->col));
            if (nans) {
                vmax_where(best, where, v, at);
            } else {
                *sum += v;
                if (index) *where = (ivec)vselect((ivec)(v > *best), (vec)at, (vec)*where);
                *best = VGREATER(v, *best);
            }
        }
}

/* A row of windows of any kind. */
static void max_pool_any(const fc_max_pool_args *a, int nans, int64_t n, int64_t c, int64_t oh, vec *sum) {
    int index = a->idx ? POSITIONS : a->taps ? TAPS : NO_INDEX;
    int64_t out = ((n * a->c + c) * a->oh + oh) * a->ow;
    taps th = taps_of(oh, a->stride_h, a->pad_h, a->dil_h, a->kh, a->h);
    const float *x = a->x + n * a->x_n + c * a->x_c + th.at * a->x_h;
    float *y = a->y + n * a->y_n + c * a->y_c + oh * a->y_h;
    for (int64_t ow = 0; ow < a->ow; ow++) {
        taps tw = taps_of(ow, a->stride_w, a->pad_w, a->dil_w, a->kw, a->w);
        window k = {th, tw, a->dil_h * a->x_h, a->dil_w * VW, th.lo * a->kw + tw.lo, a->kw, 1};
        int64_t at = th.at * a->w + tw.at;
        if (index == POSITIONS) { /* also of a window that is all outside */
            k.first = clamp(th.at + th.lo * a->dil_h, a->h) * a->w + clamp(tw.at + tw.lo * a->dil_w, a->w) - at;
            k.row = a->dil_h * a->w, k.col = a->dil_w;
        }
        vec best;
        ivec where;
        if (nans)
            max_of_window(&k, 1, 1, x + tw.at * VW, &best, &where, sum);
        else if (index)
            max_of_window(&k, 1, 0, x + tw.at * VW, &best, &where, sum);
        else
            max_of_window(&k, 0, 0, x + tw.at * VW, &best, &where, sum);
        vstore(y + ow * VW, best);
        if (index == POSITIONS) istore(a->idx + (out + ow) * VW, where + iset((int32_t)at));
        if (index == TAPS) bstore(a->taps + (out + ow) * VW, where);
    }
}

/* A row of k x k windows, k 2 or 3: the rows of x they meet, and of each k * (k - its number in the window), so that the first of
 * equals has the greatest. Where the window hangs over, rows are there twice. */
typedef struct {
    const float *x[3];
    const float *next; /* the first row below them, which is fetched meanwhile */
    int64_t x_h;
    ivec key[3];
    float *y;
    uint8_t *taps;
} pool_row;

typedef struct {
    vec max;
    ivec key; /* of the row where it is */
} pool_column;

/* Column `at` of a row of windows. `edge`: it may be outside. */
INLINE pool_column max_of_column(const pool_row *r, int k, int index, int edge, int64_t at, int64_t w, vec *sum) {
    if (edge && (at < 0 || at >= w)) return (pool_column){vset(-__builtin_inff()), {0}};
    pool_column c = {vload(r->x[0] + at * VW), r->key[0]};
    vec all = c.max;
#pragma GCC unroll 3
    for (int i = 1; i < k; i++) {
        vec v = vload(r->x[i] + at * VW);
        all += v;
        if (index) c.key = (ivec)vselect((ivec)(v > c.max), (vec)r->key[i], (vec)c.key);
        c.max = VGREATER(v, c.max);
    }
    *sum += all;
    return c;
}

/* The first maximum of k columns side by side: the one with the greatest key less its column, of those equal to the maximum. */
INLINE void max_of_columns(const pool_column *c, int k, int index, vec *best, ivec *tap) {
    *best = c[0].max;
#pragma GCC unroll 3
    for (int j = 1; j < k; j++) *best = VGREATER(c[j].max, *best);
    if (!index) return;
    ivec key = {0};
#pragma GCC unroll 3
    for (int j = 0; j < k; j++) {
        ivec this = (ivec)(c[j].max == *best) & (c[j].key - iset(j));
        key = j ? VMAX_INT(this, key) : this;
    }
    *tap = iset(k * k) - key;
}

/* Windows [first, last) of a row, of which columns are kept from one to the next. */
INLINE void max_pool_windows(const pool_row *r, int k, int stride, int index, int edge, int64_t first, int64_t last,
                             int64_t pad, int64_t w, vec *sum) {
    pool_column c[3];
    if (first >= last) return;
    for (int j = 0; j < k - stride; j++) c[j] = max_of_column(r, k, index, edge, first * stride - pad + j, w, sum);
    for (int64_t ow = first; ow < last; ow++) {
#pragma GCC unroll 3
        for (int j = k - stride; j < k; j++)
            c[j] = max_of_column(r, k, index, edge, ow * stride - pad + j, w, sum + j % 2);
        /* Some of the lines but not all are worse than none. */
        if (stride > 1 && !edge) ask_pixels(stride, stride, r->next + (ow * stride - pad) * VW, r->x_h);
        vec best;
        ivec tap = {0};
        max_of_columns(c, k, index, &best, &tap);
        vstore(r->y + ow * VW, best);
        if (index) bstore(r->taps + ow * VW, tap);
#pragma GCC unroll 3
        for (int j = 0; j < k - stride; j++) c[j] = c[j + stride];
    }
}

/* Row oh of a plane, of k x k windows a literal stride apart. */
INLINE void max_pool_square(const fc_max_pool_args *a, int k, int stride, int index, int64_t n, int64_t c, int64_t oh,
                            vec *sum) {
    taps th = taps_of(oh, stride, a->pad_h, 1, k, a->h);
    pool_row r = {.y = a->y + n * a->y_n + c * a->y_c + oh * a->y_h};
    if (index) r.taps = a->taps + ((n * a->c + c) * a->oh + oh) * a->ow * VW;
    for (int64_t i = 0; i < k; i++) {
        int64_t tap = i < th.lo ? th.lo : i < th.hi ? i : th.hi - 1;
        r.x[i] = a->x + n * a->x_n + c * a->x_c + (th.at + tap) * a->x_h;
        r.key[i] = iset((int32_t)(k * (k - tap)));
    }
    r.next = a->x + n * a->x_n + c * a->x_c + (th.at + k) * a->x_h;
    r.x_h = a->x_h;
    int64_t pad = a->pad_w, w = a->w, ow = a->ow, inside = (pad + stride - 1) / stride;
    int64_t end = w + pad >= k ? (w + pad - k) / stride + 1 : 0; /* [inside, end): windows with no column outside */
    if (end > ow) end = ow;
    if (inside > end) inside = end;
    max_pool_windows(&r, k, stride, index, 1, 0, inside, pad, w, sum);
    max_pool_windows(&r, k, stride, index, 0, inside, end, pad, w, sum);
    max_pool_windows(&r, k, stride, index, 1, end, ow, pad, w, sum);
}

/* kind: size * 10 + stride of square windows that have their own loop, or anything else. */
INLINE void max_pool_row(const fc_max_pool_args *a, int64_t kind, int index, int64_t n, int64_t c, int64_t oh, vec *sum) {
    if (kind == 22)
        max_pool_square(a, 2, 2, index, n, c, oh, sum);
    else if (kind == 31)
        max_pool_square(a, 3, 1, index, n, c, oh, sum);
    else if (kind == 32)
        max_pool_square(a, 3, 2, index, n, c, oh, sum);
    else
        max_pool_any(a, 0, n, c, oh, sum);
}

/* Rows of one plane at a time; once more where a NaN was among them, which the comparisons do not see. */
FC_DEFINE(max_pool) {
    int64_t lo, hi;
    int square = a->kh == a->kw && a->stride_h == a->stride_w && a->dil_h == 1 && a->dil_w == 1 && !a->idx;
    int64_t kind = square ? a->kw * 10 + a->stride_w : 0;
    share(a->n * a->c * a->oh, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi;) {
        int64_t c = row / a->oh % a->c, n = row / a->oh / a->c, first = row % a->oh;
        int64_t last = hi - row < a->oh - first ? first + hi - row : a->oh;
        vec sum[2] = {0};
        for (int64_t oh = first; oh < last; oh++)
            if (a->taps)
                max_pool_row(a, kind, 1, n, c, oh, sum);
            else
                max_pool_row(a, kind, 0, n, c, oh, sum);
        float total = vsum(sum[0] + sum[1]);
        for (int64_t oh = first; oh < last && total != total; oh++) max_pool_any(a, 1, n, c, oh, sum);
        row += last - first;
    }
}

/* Whether input position `at` is tap `k` of a window: which one, or -1. */
INLINE int64_t window_of(int64_t at, int64_t k, int64_t stride, int64_t pad, int64_t dil, int64_t windows) {
    int64_t from = at + pad - k * dil;
    return from < 0 || from % stride || from / stride >= windows ? -1 : from / stride;
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

#define POOL_AHEAD 16 /* pixels of dx that are asked for before they are written: 1.1 to 1.2 x in memory on Zen 5 */

/* A row of dx and the rows of windows that meet it: their dy, mask and taps, and the number of their first tap in it. */
typedef struct {
    float *dx;
    const float *dy[3], *mask[3];
    const uint8_t *taps[3];
    ivec first[3];
} bwd_row;

/* Windows [begin, end) of a row add to the k pixels each meets, sum; the first `stride` of them are then complete. `edge`: some
 * may be outside. */
INLINE void max_pool_bwd_windows(const bwd_row *r, int rows, int mask, int k, int stride, int edge, int64_t begin,
                                 int64_t end, int64_t pad, int64_t w, vec *sum) {
    for (int64_t ow = begin; ow < end; ow++) {
#pragma GCC unroll 3
        for (int i = 0; i < rows; i++) {
            vec d = vload(r->dy[i] + ow * VW);
            if (mask) d = vmask(d, vload(r->mask[i] + ow * VW));
            ivec tap = bload(r->taps[i] + ow * VW) - r->first[i];
#pragma GCC unroll 3
            for (int j = 0; j < k; j++) {
                vec one = (vec)((ivec)d & (ivec)(tap == iset(j)));
                if (!i && j >= k - stride) sum[j] = (vec){0};
                sum[j] += one;
            }
        }
        int64_t at = ow * stride - pad;
        for (int j = 0; j < stride * VBYTES; j += 64) __builtin_prefetch((char *)(r->dx + (at + POOL_AHEAD) * VW) + j, 1);
#pragma GCC unroll 3
        for (int j = 0; j < stride; j++)
            if (!edge || (at + j >= 0 && at + j < w)) vstore(r->dx + (at + j) * VW, sum[j]);
#pragma GCC unroll 3
        for (int j = 0; j < k - stride; j++) sum[j] = sum[j + stride];
    }
}

INLINE void max_pool_bwd_rows(const fc_max_pool_bwd_args *a, const bwd_row *r, int rows, int mask, int k, int stride) {
    int64_t pad = a->pad_w, w = a->w, ow = a->ow, inside = (pad + stride - 1) / stride, end = (w + pad) / stride;
    if (end > ow) end = ow; /* [inside, end): windows whose first `stride` pixels are inside */
    if (inside > end) inside = end;
    vec sum[3] = {0};
    max_pool_bwd_windows(r, rows, mask, k, stride, 1, 0, inside, pad, w, sum);
    max_pool_bwd_windows(r, rows, mask, k, stride, 0, inside, end, pad, w, sum);
    max_pool_bwd_windows(r, rows, mask, k, stride, 1, end, ow, pad, w, sum);
    int64_t at = ow * stride - pad;
    for (int j = 0; j < k - stride; j++, at++)
        if (at >= 0 && at < w) vstore(r->dx + at * VW, sum[j]);
    for (; at < w; at++) vstore(r->dx + at * VW, (vec){0});
}

/* Row ih of dx of k x k windows a literal stride apart. */
INLINE void max_pool_bwd_square(const fc_max_pool_bwd_args *a, int k, int stride, int mask, int64_t n, int64_t c,
                                int64_t ih) {
    bwd_row r = {.dx = a->dx + n * a->x_n + c * a->x_c + ih * a->x_h};
    int rows = 0;
    for (int64_t i = k - 1; i >= 0; i--) {
        int64_t oh = window_of(ih, i, stride, a->pad_h, 1, a->oh);
        if (oh < 0) continue;
        r.dy[rows] = a->dy + n * a->y_n + c * a->y_c + oh * a->y_h;
        if (mask) r.mask[rows] = a->mask + n * a->m_n + c * a->m_c + oh * a->m_h;
        r.taps[rows] = a->taps + ((n * a->c + c) * a->oh + oh) * a->ow * VW;
        r.first[rows++] = iset((int32_t)(i * k));
    }
    if (rows == 3)
        max_pool_bwd_rows(a, &r, 3, mask, k, stride);
    else if (rows == 2)
        max_pool_bwd_rows(a, &r, 2, mask, k, stride);
    else if (rows == 1)
        max_pool_bwd_rows(a, &r, 1, mask, k, stride);
    else
        for (int64_t iw = 0; iw < a->w; iw++) vstore(r.dx + iw * VW, (vec){0});
}

INLINE void max_pool_bwd_any(const fc_max_pool_bwd_args *a, int64_t kind, int mask, int64_t n, int64_t c, int64_t ih) {
    if (kind == 22)
        max_pool_bwd_square(a, 2, 2, mask, n, c, ih);
    else if (kind == 31)
        max_pool_bwd_square(a, 3, 1, mask, n, c, ih);
    else if (kind == 32)
        max_pool_bwd_square(a, 3, 2, mask, n, c, ih);
    else
        max_pool_bwd_row(a, n, c, ih);
}

FC_DEFINE(max_pool_bwd) {
    int64_t lo, hi;
    int square = a->kh == a->kw && a->stride_h == a->stride_w && a->dil_h == 1 && a->dil_w == 1 && a->taps;
    int64_t kind = square ? a->kw * 10 + a->stride_w : 0;
    share(a->n * a->c * a->h, ith, nth, &lo, &hi);
    int64_t ih = lo % a->h, c = lo / a->h % a->c, n = lo / a->h / a->c;
    for (int64_t row = lo; row < hi; row++) {
        if (a->mask)
            max_pool_bwd_any(a, kind, 1, n, c, ih);
        else
            max_pool_bwd_any(a, kind, 0, n, c, ih);
        if (++ih < a->h) continue;
        ih = 0;
        if (++c == a->c) c = 0, n++;
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
