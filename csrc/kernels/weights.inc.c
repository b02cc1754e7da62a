/* Weights into panels and back, and the sums that end a gradient. */
#include "transpose.h"

#define WEIGHTS_CHUNK (25 * VW) /* reduction elements at a time, at most */

/* Where reduction elements k of a panel lie in w (for lane 0), and which lanes [first, last) they join. */
typedef struct {
    int64_t count, at[WEIGHTS_CHUNK], first[WEIGHTS_CHUNK], last[WEIGHTS_CHUNK];
    int64_t low, high; /* the lanes that every element joins */
    int64_t start;     /* the first of them in w */
    int dense;         /* they fill a piece of w, in any order */
} weights_chunk;

/* Elements of a chunk: whole blocks of VW reduction channels, whose weights fill a piece of w, if they fit. */
INLINE int64_t weights_chunk_size(const int64_t *red, int64_t k) {
    int64_t block = 0;
    while (block < k && block < WEIGHTS_CHUNK && red[2 * block] < VW) block++;
    return block < 32 ? block * (32 / block) : block;
}

INLINE void weights_find(weights_chunk *c, const int64_t *panel, const int64_t *red, int64_t count, int64_t lanes_per_group,
                         int64_t red_per_group, int64_t s_group, int64_t s_lane, int64_t s_red) {
    int64_t end = INT64_MIN;
    c->count = count, c->low = 0, c->high = panel[2], c->start = INT64_MAX;
    for (int64_t k = 0; k < count; k++) {
        int64_t r = panel[0] + red[2 * k], group = r / red_per_group, first = group * lanes_per_group - panel[1];
        c->at[k] = group * s_group - first * s_lane + (r - group * red_per_group) * s_red + red[2 * k + 1];
        c->first[k] = first < 0 ? 0 : first < panel[2] ? first : panel[2];
        c->last[k] = first + lanes_per_group < panel[2] ? first + lanes_per_group : panel[2];
        if (c->last[k] < c->first[k]) c->last[k] = c->first[k];
        if (c->first[k] > c->low) c->low = c->first[k];
        if (c->last[k] < c->high) c->high = c->last[k];
        if (c->at[k] < c->start) c->start = c->at[k];
        if (c->at[k] >= end) end = c->at[k] + 1;
    }
    c->dense = end - c->start == count;
}

FC_DEFINE(pack_weights) {
    int64_t lo, hi, chunk = weights_chunk_size(a->red, a->k), chunks = (a->k + chunk - 1) / chunk, offset[VW];
    for (int64_t l = 0; l < VW; l++) offset[l] = l * a->s_lane;
    share(a->npanels * chunks, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t p = item / chunks, k0 = item % chunks * chunk;
        weights_chunk c;
        weights_find(&c, a->panels + 3 * p, a->red + 2 * k0, a->k - k0 < chunk ? a->k - k0 : chunk, a->lanes_per_group,
                     a->red_per_group, a->s_group, a->s_lane, a->s_red);
        float *out = a->out + (p * a->k + k0) * a->width, rows[WEIGHTS_CHUNK][VW];
        if (a->s_lane == 1 && c.low == 0 && c.high == a->width) {
            for (int64_t k = 0; k < c.count; k++) {
                const float *w = a->w + c.at[k];
                ask_pixels(1, a->width / VW, w + 16 * a->s_red, 0); /* another page */
                for (int64_t j = 0; j < a->width; j++) out[k * a->width + j] = w[j];
            }
            continue;
        }
        for (int64_t j = 0; j < a->width; j++)
            if (c.dense && j % VW == 0 && j >= c.low && j + VW <= c.high) {
                rows_to_lanes(a->w + c.start + j * a->s_lane, offset, (ivec){0} - 1, rows[0], VW, c.count);
                for (int64_t k = 0; k < c.count; k++) vstore(out + k * a->width + j, vload(rows[c.at[k] - c.start]));
                j += VW - 1;
            } else if (j >= c.low && j < c.high) {
                for (int64_t k = 0; k < c.count; k++) out[k * a->width + j] = a->w[c.at[k] + j * a->s_lane];
            } else {
                for (int64_t k = 0; k < c.count; k++)
                    out[k * a->width + j] = j >= c.first[k] && j < c.last[k] ? a->w[c.at[k] + j * a->s_lane] : 0;
            }
    }
}

FC_DEFINE(unpack_wgrad) {
    int64_t size = a->npanels * a->k * a->width, offset[VW];
    int64_t lo, hi, chunk = weights_chunk_size(a->red, a->k), chunks = (a->k + chunk - 1) / chunk;
    for (int64_t l = 0; l < VW; l++) offset[l] = l * a->s_lane;
    share(a->npanels * chunks, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t p = item / chunks, k0 = item % chunks * chunk;
        weights_chunk c;
        weights_find(&c, a->panels + 3 * p, a->red + 2 * k0, a->k - k0 < chunk ? a->k - k0 : chunk, a->lanes_per_group,
                     a->red_per_group, a->s_group, a->s_lane, a->s_red);
        for (int64_t j = 0; j < a->panels[3 * p + 2]; j += VW) {
            const float *src = a->src + (p * a->k + k0) * a->width + j;
            float rows[WEIGHTS_CHUNK][VW], *dw = a->dw + j * a->s_lane;
            int whole = c.dense && j >= c.low && j + VW <= c.high;
            for (int64_t k = 0; k < c.count; k++) {
                vec sum = vload(src + k * a->width);
                for (int64_t slot = 1; slot < a->slots; slot++) sum += vload(src + slot * size + k * a->width);
                vstore(rows[whole ? c.at[k] - c.start : k], sum);
            }
            if (whole) {
                lanes_to_rows(rows[0], VW, dw + c.start, offset, VW, c.count);
                continue;
            }
            for (int64_t l = 0; l < VW; l++)
                for (int64_t k = 0; k < c.count; k++)
                    if (j + l >= c.first[k] && j + l < c.last[k]) dw[c.at[k] + l * a->s_lane] = rows[k][l];
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
