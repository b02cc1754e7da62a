/* Weights into panels and back, and the sums that end a gradient. */
#include "transpose.h"

#define WEIGHTS_CHUNK 32 /* reduction elements at a time: a panel's part stays in L1 whichever way weights are strided */

/* Where reduction elements k of a panel lie in w (for lane 0), and which lanes [first, last) they join. */
typedef struct {
    int64_t at[WEIGHTS_CHUNK], first[WEIGHTS_CHUNK], last[WEIGHTS_CHUNK];
    int64_t low, high; /* the lanes that every element joins */
    int row;           /* whether the elements follow each other in w */
} weights_chunk;

INLINE void weights_find(weights_chunk *c, const int64_t *panel, const int64_t *red, int64_t count, int64_t lanes_per_group,
                         int64_t red_per_group, int64_t s_group, int64_t s_lane, int64_t s_red) {
    c->low = 0, c->high = panel[2], c->row = 1;
    for (int64_t k = 0; k < count; k++) {
        int64_t r = panel[0] + red[2 * k], group = r < red_per_group ? 0 : r / red_per_group, first = group * lanes_per_group - panel[1];
        c->at[k] = group * s_group - first * s_lane + (r - group * red_per_group) * s_red + red[2 * k + 1];
        c->first[k] = first < 0 ? 0 : first < panel[2] ? first : panel[2];
        c->last[k] = first + lanes_per_group < panel[2] ? first + lanes_per_group : panel[2];
        if (c->last[k] < c->first[k]) c->last[k] = c->first[k];
        if (c->first[k] > c->low) c->low = c->first[k];
        if (c->last[k] < c->high) c->high = c->last[k];
        c->row &= c->at[k] == c->at[0] + k;
    }
}

FC_DEFINE(pack_weights) {
    int64_t lo, hi, chunks = (a->k + WEIGHTS_CHUNK - 1) / WEIGHTS_CHUNK;
    share(a->npanels * chunks, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t p = item / chunks, k0 = item % chunks * WEIGHTS_CHUNK;
        int64_t count = a->k - k0 < WEIGHTS_CHUNK ? a->k - k0 : WEIGHTS_CHUNK;
        weights_chunk c;
        weights_find(&c, a->panels + 3 * p, a->red + 2 * k0, count, a->lanes_per_group, a->red_per_group, a->s_group,
                     a->s_lane, a->s_red);
        float *out = a->out + (p * a->k + k0) * a->width;
        if (a->s_lane == 1 && c.low == 0 && c.high == a->width) {
            for (int64_t k = 0; k < count; k++)
                for (int64_t j = 0; j < a->width; j++) out[k * a->width + j] = a->w[c.at[k] + j];
            continue;
        }
        int64_t done = 0, offset[VW];
        for (int64_t lane = 0; lane < VW; lane++) offset[lane] = lane * a->s_lane;
        for (; c.row && c.low == 0 && done + VW <= c.high; done += VW)
            rows_to_lanes(a->w + c.at[0] + done * a->s_lane, offset, iset(-1), out + done, a->width, count);
        for (int64_t j = done; j < a->width; j++)
            if (j >= c.low && j < c.high)
                for (int64_t k = 0; k < count; k++) out[k * a->width + j] = a->w[c.at[k] + j * a->s_lane];
            else
                for (int64_t k = 0; k < count; k++)
                    out[k * a->width + j] = j >= c.first[k] && j < c.last[k] ? a->w[c.at[k] + j * a->s_lane] : 0;
    }
}

FC_DEFINE(unpack_wgrad) {
    int64_t lo, hi, size = a->npanels * a->k * a->width, chunks = (a->k + WEIGHTS_CHUNK - 1) / WEIGHTS_CHUNK;
    share(a->npanels * chunks, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t p = item / chunks, k0 = item % chunks * WEIGHTS_CHUNK;
        int64_t count = a->k - k0 < WEIGHTS_CHUNK ? a->k - k0 : WEIGHTS_CHUNK;
        weights_chunk c;
        weights_find(&c, a->panels + 3 * p, a->red + 2 * k0, count, a->lanes_per_group, a->red_per_group, a->s_group,
                     a->s_lane, a->s_red);
        const float *src = a->src + (p * a->k + k0) * a->width;
        int64_t done = 0, offset[VW];
        for (int64_t lane = 0; lane < VW; lane++) offset[lane] = lane * a->s_lane;
        for (; a->slots == 1 && c.row && c.low == 0 && done + VW <= c.high; done += VW)
            lanes_to_rows(src + done, a->width, a->dw + c.at[0] + done * a->s_lane, offset, VW, count);
        for (int64_t j = done; j < a->panels[3 * p + 2]; j++)
            for (int64_t k = 0; k < count; k++) {
                if (j < c.first[k] || j >= c.last[k]) continue;
                float sum = src[k * a->width + j];
                for (int64_t slot = 1; slot < a->slots; slot++) sum += src[slot * size + k * a->width + j];
                a->dw[c.at[k] + j * a->s_lane] = sum;
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
