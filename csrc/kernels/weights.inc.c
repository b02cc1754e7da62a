/* Weights into panels and back, and the sums that end a gradient. */

FC_DEFINE(pack_weights) {
    int64_t lo, hi;
    share(a->npanels * a->k, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t *panel = a->panels + item / a->k * 3, *red = a->red + item % a->k * 2;
        int64_t r = panel[0] + red[0], lane = panel[1], count = panel[2];
        int64_t group = r / a->red_per_group;
        float *out = a->out + item * a->width;
        int64_t first = group * a->lanes_per_group - lane, last = first + a->lanes_per_group;
        if (first < 0) first = 0;
        if (last > count) last = count;
        const float *w = a->w + group * a->s_group + (lane - group * a->lanes_per_group) * a->s_lane +
                         (r - group * a->red_per_group) * a->s_red + red[1];
        int64_t j = 0;
        for (; j < first && j < a->width; j++) out[j] = 0;
        for (; j < last; j++) out[j] = w[j * a->s_lane];
        for (; j < a->width; j++) out[j] = 0;
    }
}

FC_DEFINE(unpack_wgrad) {
    int64_t lo, hi, size = a->npanels * a->k * a->width;
    share(a->npanels * a->k, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        const int64_t *panel = a->panels + item / a->k * 3, *red = a->red + item % a->k * 2;
        int64_t r = panel[0] + red[0], lane = panel[1], count = panel[2];
        int64_t group = r / a->red_per_group;
        int64_t first = group * a->lanes_per_group - lane, last = first + a->lanes_per_group;
        if (first < 0) first = 0;
        if (last > count) last = count;
        const float *src = a->src + item * a->width;
        float *dw = a->dw + group * a->s_group + (lane - group * a->lanes_per_group) * a->s_lane +
                    (r - group * a->red_per_group) * a->s_red + red[1];
        for (int64_t j = first; j < last; j++) {
            float sum = src[j];
            for (int64_t slot = 1; slot < a->slots; slot++) sum += src[slot * size + j];
            dw[j * a->s_lane] = sum;
        }
    }
}

FC_DEFINE(sum_slots) {
    int64_t lo, hi;
    share((a->size + 63) / 64, ith, nth, &lo, &hi);
    lo *= 64;
    hi = hi * 64 < a->size ? hi * 64 : a->size;
    int64_t i = lo;
    for (; i + VW <= hi; i += VW) {
        vec sum = vload(a->src + i);
        for (int64_t slot = 1; slot < a->slots; slot++) sum += vload(a->src + slot * a->size + i);
        vstore(a->dst + i, sum);
    }
    for (; i < hi; i++) {
        float sum = a->src[i];
        for (int64_t slot = 1; slot < a->slots; slot++) sum += a->src[slot * a->size + i];
        a->dst[i] = sum;
    }
}

/* The sum of h rows of w vectors over n images: by row, by image, then all (the error grows with each level's count). */
INLINE vec sum_rows(const float *dy, int64_t n, int64_t h, int64_t w, int64_t y_n, int64_t y_h) {
    if (y_h == w * VW && h * w <= 256) w *= h, h = 1;
    vec total = {0};
    for (int64_t in = 0; in < n; in++) {
        vec image = {0};
        for (int64_t ih = 0; ih < h; ih++) {
            const float *y = dy + in * y_n + ih * y_h;
            vec s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0}, s6 = {0}, s7 = {0};
            int64_t i = 0;
            for (; i + 8 <= w; i += 8, y += 8 * VW) {
                s0 += vload(y), s1 += vload(y + VW), s2 += vload(y + 2 * VW), s3 += vload(y + 3 * VW);
                s4 += vload(y + 4 * VW), s5 += vload(y + 5 * VW), s6 += vload(y + 6 * VW), s7 += vload(y + 7 * VW);
            }
            for (; i < w; i++, y += VW) s0 += vload(y);
            image += ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7));
        }
        total += image;
    }
    return total;
}

FC_DEFINE(sum_lanes_c) {
    int64_t lo, hi;
    share((a->channels + VW - 1) / VW, ith, nth, &lo, &hi);
    for (int64_t block = lo; block < hi; block++) {
        vec sum = sum_rows(a->dy + block * a->y_c, a->n, a->h, a->w, a->y_n, a->y_h);
        float *db = a->db + block * VW;
        if (a->channels - block * VW >= VW) {
            vstore(db, sum);
        } else {
            float lane[VW];
            vstore(lane, sum);
            for (int64_t j = 0; j < a->channels - block * VW; j++) db[j] = lane[j];
        }
    }
}

FC_DEFINE(sum_lanes_n) {
    int64_t lo, hi;
    share(a->channels, ith, nth, &lo, &hi);
    for (int64_t c = lo; c < hi; c++)
        a->db[c] = vsum(sum_rows(a->dy + c * a->y_c, a->n, a->h, a->w, a->y_n, a->y_h));
}
