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

INLINE void flush(double *sums, vec *a, vec *b) {
    float lane[2][VW];
    vstore(lane[0], *a), vstore(lane[1], *b);
    for (int i = 0; i < VW; i++) sums[i] += lane[0][i], sums[VW + i] += lane[1][i];
    *a = *b = (vec){0};
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

FC_DEFINE(channel_moments) {
    int64_t lo, hi;
    int layout = (int)a->layout;
    share(a->c * a->slots, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t plane = item / a->slots, slot = item % a->slots;
        const float *start = a->x + plane * a->x_c;
        vec from = layout == 1 ? vload(start) : vset(start[0]);
        double sums[2 * VW] = {0};
        for (int64_t n = slot * a->n / a->slots; n < (slot + 1) * a->n / a->slots; n++) {
            vec valid = filled(layout, n, a->images), sum = {0}, squares = {0};
            int64_t since = 0;
            for (int64_t h = 0; h < a->h; h++) {
                const float *x = start + n * a->x_n + h * a->x_h;
                for (int64_t w = 0; w < a->w;) {
                    int64_t stop = w + MOMENTS_FLUSH - since < a->w ? w + MOMENTS_FLUSH - since : a->w;
                    since += stop - w;
                    for (; w < stop; w++) {
                        vec d = (vload(x + w * VW) - from) * valid;
                        sum += d;
                        squares += d * d;
                    }
                    if (since == MOMENTS_FLUSH) flush(sums, &sum, &squares), since = 0;
                }
            }
            flush(sums, &sum, &squares);
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

FC_DEFINE(channel_affine) {
    int64_t lo, hi;
    int layout = (int)a->layout;
    share(a->n * a->c * a->h, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t h = row % a->h, plane = row / a->h % a->c, n = row / a->h / a->c;
        const float *x = a->x + n * a->x_n + plane * a->x_c + h * a->x_h;
        const float *r = a->residual ? a->residual + n * a->r_n + plane * a->r_c + h * a->r_h : NULL;
        float *y = a->y + n * a->y_n + plane * a->y_c + h * a->y_h;
        vec scale = of_channel(a->scale, layout, plane), shift = of_channel(a->shift, layout, plane);
        if (r) {
            for (int64_t w = 0; w < a->w * VW; w += VW) {
                vec v = vload(x + w) * scale + shift + vload(r + w);
                vstore(y + w, a->act ? vrelu(v) : v);
            }
        } else if (a->act) {
            for (int64_t w = 0; w < a->w * VW; w += VW) vstore(y + w, vrelu(vload(x + w) * scale + shift));
        } else {
            for (int64_t w = 0; w < a->w * VW; w += VW) vstore(y + w, vload(x + w) * scale + shift);
        }
    }
}

FC_DEFINE(batch_norm_bwd_sums) {
    int64_t lo, hi;
    int layout = (int)a->layout;
    share(a->c * a->slots, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t plane = item / a->slots, slot = item % a->slots;
        vec mean = of_true_channel(a->mean, layout, plane, a->channels);
        double sums[2 * VW] = {0};
        for (int64_t n = slot * a->n / a->slots; n < (slot + 1) * a->n / a->slots; n++) {
            vec sum = {0}, product = {0};
            int64_t since = 0;
            for (int64_t h = 0; h < a->h; h++) {
                const float *x = a->x + n * a->x_n + plane * a->x_c + h * a->x_h;
                const float *dy = a->dy + n * a->y_n + plane * a->y_c + h * a->y_h;
                const float *mask = a->mask ? a->mask + n * a->m_n + plane * a->m_c + h * a->m_h : NULL;
                for (int64_t w = 0; w < a->w;) {
                    int64_t stop = w + MOMENTS_FLUSH - since < a->w ? w + MOMENTS_FLUSH - since : a->w;
                    since += stop - w;
                    for (; w < stop; w++) { /* dy is 0 in padding lanes */
                        vec d = vload(dy + w * VW);
                        if (mask) d = vmask(d, vload(mask + w * VW));
                        sum += d;
                        product += d * (vload(x + w * VW) - mean);
                    }
                    if (since == MOMENTS_FLUSH) flush(sums, &sum, &product), since = 0;
                }
            }
            flush(sums, &sum, &product);
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
        for (int64_t w = 0; w < a->w * VW; w += VW) {
            vec d = vload(dy + w);
            if (mask) d = vmask(d, vload(mask + w));
            vstore(dx + w, d * of_dy + vload(x + w) * of_x + shift);
        }
    }
}
