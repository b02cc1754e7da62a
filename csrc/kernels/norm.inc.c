/* Batch normalisation: moments of every channel, and y = x * scale + shift per channel. A plane is one block of lanes: the
 * channels of one block (lanes_c), or one channel of a block of images (lanes_n). */

#define MOMENTS_FLUSH 512 /* pixels summed in float before the sums move on to double */

/* What a lane of plane `plane` of block `block` means for a per-channel array p[channels, rounded up to VW]. */
INLINE vec of_channel(const float *p, int layout, int64_t plane) {
    return layout == 1 ? vload(p + plane * VW) : vset(p[plane]);
}

/* The same for an array that ends with the last channel. */
INLINE vec of_true_channel(const float *p, int layout, int64_t plane, int64_t channels) {
    if (layout != 1) return vset(p[plane]);
    float lane[VW] = {0};
    for (int64_t i = 0; i < VW && plane * VW + i < channels; i++) lane[i] = p[plane * VW + i];
    return vload(lane);
}

/* Lanes of block n that hold an image, as 1 or 0; all of them in lanes_c. */
INLINE vec filled(int layout, int64_t n, int64_t images) {
    float lane[VW];
    for (int i = 0; i < VW; i++) lane[i] = layout == 1 || n * VW + i < images;
    return vload(lane);
}

/* Two sums per lane over up to MOMENTS_FLUSH pixels: four of each side by side, as an addition takes four cycles. */
typedef struct {
    vec first[4], second[4];
} moments;

INLINE void flush(double *sums, const moments *m) {
    float lane[2][VW];
    vstore(lane[0], (m->first[0] + m->first[1]) + (m->first[2] + m->first[3]));
    vstore(lane[1], (m->second[0] + m->second[1]) + (m->second[2] + m->second[3]));
    for (int i = 0; i < VW; i++) sums[i] += lane[0][i], sums[VW + i] += lane[1][i];
}

/* A slot's rows as few long ones where none of the values has anything between them. */
INLINE int64_t long_rows(int64_t *h, int64_t w, int64_t x_h, int64_t y_h) {
    if (x_h != w * VW || y_h != w * VW) return w;
    w *= *h, *h = 1;
    return w;
}

/* Into out[channel][slot][2]: the sums of a plane's lanes, per channel. */
static void moments_store(const double *sums, double *out, int layout, int64_t plane, int64_t channels, int64_t slots,
                          int64_t slot) {
    if (layout == 1) {
        for (int64_t i = 0; i < VW && plane * VW + i < channels; i++)
            for (int64_t k = 0; k < 2; k++) out[((plane * VW + i) * slots + slot) * 2 + k] = sums[k * VW + i];
        return;
    }
    for (int64_t k = 0; k < 2; k++) {
        double sum = 0;
        for (int64_t i = 0; i < VW; i++) sum += sums[k * VW + i];
        out[(plane * slots + slot) * 2 + k] = sum;
    }
}

INLINE void add_value(moments *m, int i, vec d) {
    m->first[i] += d;
    m->second[i] += d * d;
}

/* Images last to first: the end of what was written just now is in the cache, and its beginning will be. */
FC_DEFINE(channel_moments) {
    int64_t lo, hi, h = a->h, w = long_rows(&h, a->w, a->x_h, a->x_h);
    int layout = (int)a->layout;
    share(a->c * a->slots, ith, nth, &lo, &hi);
    for (int64_t item = hi - 1; item >= lo; item--) {
        int64_t plane = item % a->c, slot = item / a->c;
        const float *start = a->x + plane * a->x_c;
        vec from = layout == 1 ? vload(start) : vset(start[0]);
        double sums[2 * VW] = {0};
        for (int64_t n = slot * a->n / a->slots; n < (slot + 1) * a->n / a->slots; n++) {
            vec valid = filled(layout, n, a->images);
            for (int64_t row = 0; row < h; row++) {
                const float *x = start + n * a->x_n + row * a->x_h;
                for (int64_t at = 0; at < w;) {
                    int64_t stop = at + MOMENTS_FLUSH < w ? at + MOMENTS_FLUSH : w;
                    moments m = {0};
                    for (; at + 4 <= stop; at += 4)
                        for (int i = 0; i < 4; i++) add_value(&m, i, (vload(x + (at + i) * VW) - from) * valid);
                    for (; at < stop; at++) add_value(&m, 0, (vload(x + at * VW) - from) * valid);
                    flush(sums, &m);
                }
            }
        }
        moments_store(sums, a->sums, layout, plane, a->channels, a->slots, slot);
    }
}

/* The two sums of a channel over its slots, in order. */
INLINE void moments_of(const double *sums, int64_t channel, int64_t slots, double *first, double *second) {
    *first = *second = 0;
    for (int64_t s = 0; s < slots; s++) {
        *first += sums[(channel * slots + s) * 2];
        *second += sums[(channel * slots + s) * 2 + 1];
    }
}

FC_DEFINE(batch_norm_moments) {
    if (ith) return;
    (void)nth;
    int64_t lanes = a->layout == 1 ? VW : 1, stride = a->layout == 1 ? 1 : a->x_c;
    for (int64_t c = 0; c < a->channels; c++) {
        double sum, squares, from = a->x[a->layout == 1 ? c / lanes * a->x_c + c % lanes : c * stride];
        moments_of(a->sums, c, a->slots, &sum, &squares);
        double count = (double)a->count, variance = (squares - sum * sum / count) / count;
        if (variance < 0) variance = 0;
        a->mean[c] = (float)(from + sum / count);
        a->var[c] = (float)variance;
    }
}

FC_DEFINE(batch_norm_running) {
    if (ith) return;
    (void)nth;
    if (a->tracked) a->tracked[0]++;
    double momentum = a->hyper[0] >= 0 ? a->hyper[0] : 1.0 / (double)a->tracked[0];
    double unbiased = (double)a->count / (double)(a->count - 1);
    for (int64_t c = 0; c < a->channels; c++) {
        a->running_mean[c] = (float)((1 - momentum) * a->running_mean[c] + momentum * a->mean[c]);
        a->running_var[c] = (float)((1 - momentum) * a->running_var[c] + momentum * unbiased * a->var[c]);
    }
}

FC_DEFINE(batch_norm_scale) {
    if (ith) return;
    (void)nth;
    int64_t padded = (a->channels + VW - 1) / VW * VW;
    for (int64_t c = 0; c < padded; c++) {
        double scale = 0, shift = 0;
        if (c < a->channels) {
            scale = (a->weight ? a->weight[c] : 1.0) / __builtin_sqrt((double)a->var[c] + a->eps);
            shift = (a->bias ? a->bias[c] : 0.0) - a->mean[c] * scale;
        }
        a->scale[c] = (float)scale;
        a->shift[c] = (float)shift;
    }
}

FC_DEFINE(fold_norm) {
    int64_t lo, hi;
    share(a->channels, ith, nth, &lo, &hi);
    for (int64_t c = lo; c < hi; c++) {
        double scale = (a->weight ? a->weight[c] : 1.0) / __builtin_sqrt((double)a->var[c] + a->eps);
        double from_mean = (a->w_bias ? a->w_bias[c] : 0.0) - (double)a->mean[c];
        a->y_bias[c] = (float)(from_mean * scale + (a->bias ? a->bias[c] : 0.0));
        for (int64_t i = 0; i < a->size; i++) a->y[c * a->size + i] = (float)(a->w[c * a->size + i] * scale);
    }
}

FC_DEFINE(channel_affine) {
    int64_t lo, hi;
    const int64_t len = a->w * VW, past = a->past, act = a->act;
    int layout = (int)a->layout;
    share(a->n * a->c * a->h, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t h = row % a->h, plane = row / a->h % a->c, n = row / a->h / a->c;
        const float *x = a->x + n * a->x_n + plane * a->x_c + h * a->x_h;
        const float *r = a->residual ? a->residual + n * a->r_n + plane * a->r_c + h * a->r_h : NULL;
        float *y = a->y + n * a->y_n + plane * a->y_c + h * a->y_h;
        vec scale = of_channel(a->scale, layout, plane), shift = of_channel(a->shift, layout, plane);
        if (r) {
            for (int64_t w = 0; w < len; w += VW) {
                vec v = vload(x + w) * scale + shift + vload(r + w);
                vput(y + w, act ? vrelu(v) : v, past);
            }
        } else if (act) {
            for (int64_t w = 0; w < len; w += VW) vput(y + w, vrelu(vload(x + w) * scale + shift), past);
        } else {
            for (int64_t w = 0; w < len; w += VW) vput(y + w, vload(x + w) * scale + shift, past);
        }
    }
}

/* One pixel of dy and x; dy is 0 in padding lanes. */
INLINE void add_gradient(moments *m, int i, const float *dy, const float *mask, const float *x, vec mean) {
    vec d = vload(dy);
    if (mask) d = vmask(d, vload(mask));
    m->first[i] += d;
    m->second[i] += d * (vload(x) - mean);
}

INLINE void add_gradients(double *sums, const float *dy, const float *mask, const float *x, vec mean, int64_t pixels) {
    for (int64_t at = 0; at < pixels;) {
        int64_t stop = at + MOMENTS_FLUSH < pixels ? at + MOMENTS_FLUSH : pixels;
        moments m = {0};
        for (; at + 4 <= stop; at += 4)
            for (int i = 0; i < 4; i++) {
                int64_t p = (at + i) * VW;
                add_gradient(&m, i, dy + p, mask ? mask + p : NULL, x + p, mean);
            }
        for (; at < stop; at++) add_gradient(&m, 0, dy + at * VW, mask ? mask + at * VW : NULL, x + at * VW, mean);
        flush(sums, &m);
    }
}

FC_DEFINE(batch_norm_bwd_sums) { /* images last to first, as above */
    int64_t lo, hi, h = a->h, w = a->w;
    int layout = (int)a->layout;
    if (!a->mask || a->m_h == w * VW) w = long_rows(&h, w, a->x_h, a->y_h);
    share(a->c * a->slots, ith, nth, &lo, &hi);
    for (int64_t item = hi - 1; item >= lo; item--) {
        int64_t plane = item % a->c, slot = item / a->c;
        vec mean = of_true_channel(a->mean, layout, plane, a->channels);
        double sums[2 * VW] = {0};
        for (int64_t n = slot * a->n / a->slots; n < (slot + 1) * a->n / a->slots; n++)
            for (int64_t row = 0; row < h; row++) {
                const float *x = a->x + n * a->x_n + plane * a->x_c + row * a->x_h;
                const float *dy = a->dy + n * a->y_n + plane * a->y_c + row * a->y_h;
                if (a->mask)
                    add_gradients(sums, dy, a->mask + n * a->m_n + plane * a->m_c + row * a->m_h, x, mean, w);
                else
                    add_gradients(sums, dy, NULL, x, mean, w);
            }
        moments_store(sums, a->sums, layout, plane, a->channels, a->slots, slot);
    }
}

FC_DEFINE(batch_norm_bwd_scale) {
    if (ith) return;
    (void)nth;
    int64_t padded = (a->channels + VW - 1) / VW * VW;
    for (int64_t c = 0; c < padded; c++) {
        double of_dy = 0, of_x = 0, shift = 0;
        if (c < a->channels) {
            double sum, product, invstd = 1 / __builtin_sqrt((double)a->var[c] + a->eps);
            moments_of(a->sums, c, a->slots, &sum, &product);
            if (a->dweight) a->dweight[c] = (float)(product * invstd);
            if (a->dbias) a->dbias[c] = (float)sum;
            of_dy = (a->weight ? a->weight[c] : 1.0) * invstd;
            if (a->training) {
                of_x = -of_dy * product * invstd * invstd / (double)a->count;
                shift = -of_dy * sum / (double)a->count - of_x * a->mean[c];
            }
        }
        if (!a->of_dy) continue;
        a->of_dy[c] = (float)of_dy;
        a->of_x[c] = (float)of_x;
        a->shift[c] = (float)shift;
    }
}

FC_DEFINE(batch_norm_bwd) {
    int64_t lo, hi;
    const int64_t len = a->w * VW, past = a->past;
    int layout = (int)a->layout;
    share(a->n * a->c * a->h, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t h = row % a->h, plane = row / a->h % a->c, n = row / a->h / a->c;
        const float *x = a->x + n * a->x_n + plane * a->x_c + h * a->x_h;
        const float *dy = a->dy + n * a->y_n + plane * a->y_c + h * a->y_h;
        const float *mask = a->mask ? a->mask + n * a->m_n + plane * a->m_c + h * a->m_h : NULL;
        float *dx = a->dx + n * a->dx_n + plane * a->dx_c + h * a->dx_h;
        vec valid = filled(layout, n, a->images); /* padding lanes of a gradient hold 0 */
        vec of_dy = of_channel(a->of_dy, layout, plane) * valid, of_x = of_channel(a->of_x, layout, plane) * valid;
        vec shift = of_channel(a->shift, layout, plane) * valid;
        for (int64_t w = 0; w < len; w += VW) {
            vec d = vload(dy + w);
            if (mask) d = vmask(d, vload(mask + w));
            vput(dx + w, d * of_dy + vload(x + w) * of_x + shift, past);
        }
    }
}
