/* Between plain and blocked values, and copies. */
#include "math.h"
#include "rows.h"
#include "transpose.h"

/* Row pieces of a blocked value, in pixels: strides {n, c, h} of the blocked side counted in pixels of VW floats, and the
 * plain side's, where the merged dimensions are contiguous too. */
INLINE rows blocked_rows(int64_t n, int64_t c, int64_t h, int64_t w, int64_t b_n, int64_t b_c, int64_t b_h,
                         int channels_follow, int ith, int nth) {
    int64_t strides[2][3] = {{b_n / VW, b_c / VW, b_h / VW}, {0, channels_follow ? h * w : -1, w}};
    return rows_share(n, c, h, w, strides, 2, ith, nth);
}

FC_DEFINE(pack_lanes_c) {
    const int64_t plane = a->h * a->w, blocks = (a->c + VW - 1) / VW;
    rows r = blocked_rows(a->n, blocks, a->h, a->w, a->y_n, a->y_c, a->y_h, 0, ith, nth);
    while (rows_next(&r)) {
        int64_t offset[VW];
        int32_t live[VW];
        for (int lane = 0; lane < VW; lane++) {
            live[lane] = r.c * VW + lane < a->c ? -1 : 0;
            offset[lane] = live[lane] ? lane * plane : 0;
        }
        const float *x = a->x + (r.n * a->c + r.c * VW) * plane + r.h * a->w + r.at;
        float *y = a->y + r.n * a->y_n + r.c * a->y_c + r.h * a->y_h + r.at * VW;
        if (plane == 1 && live[VW - 1])
            vstore(y, vload(x)); /* the channels are next to each other already */
        else
            rows_to_lanes(x, offset, iload(live), y, VW, r.count);
    }
}

FC_DEFINE(pack_lanes_n) {
    const int64_t plane = a->h * a->w, image = a->c * plane, blocks = (a->n + VW - 1) / VW;
    rows r = blocked_rows(blocks, a->c, a->h, a->w, a->y_n, a->y_c, a->y_h, 1, ith, nth);
    while (rows_next(&r)) {
        int64_t offset[VW];
        int32_t live[VW];
        for (int lane = 0; lane < VW; lane++) {
            const int64_t last = a->n - 1 - r.n * VW;
            live[lane] = lane <= last || a->repeat_last ? -1 : 0;
            offset[lane] = (lane <= last ? lane : last) * image;
        }
        const float *x = a->x + r.n * VW * image + r.c * plane + r.h * a->w + r.at;
        rows_to_lanes(x, offset, iload(live), a->y + r.n * a->y_n + r.c * a->y_c + r.h * a->y_h + r.at * VW, VW,
                      r.count);
    }
}

FC_DEFINE(unpack_lanes_c) {
    const int64_t plane = a->h * a->w, blocks = (a->c + VW - 1) / VW;
    rows r = blocked_rows(a->n, blocks, a->h, a->w, a->x_n, a->x_c, a->x_h, 0, ith, nth);
    int64_t offset[VW];
    for (int lane = 0; lane < VW; lane++) offset[lane] = lane * plane;
    while (rows_next(&r)) {
        const int64_t lanes = a->c - r.c * VW < VW ? a->c - r.c * VW : VW;
        const float *x = a->x + r.n * a->x_n + r.c * a->x_c + r.h * a->x_h + r.at * VW;
        float *y = a->y + (r.n * a->c + r.c * VW) * plane + r.h * a->w + r.at;
        if (plane == 1 && lanes == VW)
            vstore(y, vload(x));
        else
            lanes_to_rows(x, VW, y, offset, (int)lanes, r.count);
    }
}

FC_DEFINE(unpack_lanes_n) {
    const int64_t plane = a->h * a->w, image = a->c * plane, blocks = (a->n + VW - 1) / VW;
    rows r = blocked_rows(blocks, a->c, a->h, a->w, a->x_n, a->x_c, a->x_h, 1, ith, nth);
    int64_t offset[VW];
    for (int lane = 0; lane < VW; lane++) offset[lane] = lane * image;
    while (rows_next(&r)) {
        const int64_t lanes = a->n - r.n * VW < VW ? a->n - r.n * VW : VW;
        lanes_to_rows(a->x + r.n * a->x_n + r.c * a->x_c + r.h * a->x_h + r.at * VW, VW,
                      a->y + r.n * VW * image + r.c * plane + r.h * a->w + r.at, offset, (int)lanes, r.count);
    }
}

FC_DEFINE(copy) {
    int64_t strides[2][3] = {{a->x_n, a->x_c, a->x_h}, {a->y_n, a->y_c, a->y_h}};
    rows r = rows_share(a->n, a->c, a->h, a->len, strides, 2, ith, nth);
    while (rows_next(&r)) {
        const float *x = ROW_AT(r, a->x, a->x_n, a->x_c, a->x_h);
        float *y = ROW_AT(r, a->y, a->y_n, a->y_c, a->y_h);
        int64_t i = 0;
        for (; i + VW <= r.count; i += VW) vstore(y + i, vload(x + i));
        for (; i < r.count; i++) y[i] = x[i];
    }
}

INLINE void fill_row(float *y, float value, int64_t count) {
    int64_t i = 0;
    for (; i + VW <= count; i += VW) vstore(y + i, vset(value));
    for (; i < count; i++) y[i] = value;
}

FC_DEFINE(fill) {
    int64_t strides[1][3] = {{a->y_n, a->y_c, a->y_h}};
    rows r = rows_share(a->n, a->c, a->h, a->len, strides, 1, ith, nth);
    while (rows_next(&r)) fill_row(ROW_AT(r, a->y, a->y_n, a->y_c, a->y_h), (float)a->value, r.count);
}

FC_DEFINE(halo) {
    const int64_t left = a->left * a->lanes, right = a->right * a->lanes, len = a->w * a->lanes;
    int64_t lo, hi;
    share(a->n * a->c, ith, nth, &lo, &hi);
    for (int64_t plane = lo; plane < hi; plane++) {
        float *y = a->y + plane / a->c * a->y_n + plane % a->c * a->y_c;
        for (int64_t row = -a->top; row < a->h + a->bottom; row++) {
            float *start = y + row * a->y_h - left;
            if (row < 0 || row >= a->h) {
                fill_row(start, 0.0f, left + len + right);
            } else {
                fill_row(start, 0.0f, left);
                fill_row(start + left + len, 0.0f, right);
            }
        }
    }
}

FC_DEFINE(pack_phases) {
    const int64_t step = a->step, blocks = (step * step * a->c + VW - 1) / VW;
    int64_t lo, hi;
    share(a->n * blocks * a->rows, ith, nth, &lo, &hi);
    for (int64_t at = lo; at < hi; at++) {
        float *y = a->y + at * a->cols * VW;
        for (int64_t lane = 0; lane < VW; lane++) {
            const int64_t channel = at / a->rows % blocks * VW + lane, phase = channel / a->c;
            const int64_t row = step * (at % a->rows) + phase / step - a->top, left = phase % step - a->left;
            const int inside = phase < step * step && row >= 0 && row < a->h;
            int64_t last = inside && a->w > left ? (a->w - left + step - 1) / step : 0, j = 0;
            if (last > a->cols) last = a->cols;
            for (; j < a->cols && (j >= last || step * j + left < 0); j++) y[j * VW + lane] = 0.0f;
            const float *x = a->x + at / a->rows / blocks * a->x_n + channel % a->c * a->x_c + row * a->x_h + left;
            for (; j < last; j++) y[j * VW + lane] = x[step * j];
            for (; j < a->cols; j++) y[j * VW + lane] = 0.0f;
        }
    }
}

FC_DEFINE(pick_pixels) {
    int64_t lo, hi;
    share(a->n * a->c * a->h, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        const float *x = a->x + row / a->h / a->c * a->x_n + row / a->h % a->c * a->x_c + row % a->h * a->x_h;
        float *y = a->y + row * a->w * VW;
        for (int64_t i = 0; i < a->w; i++) {
            __builtin_prefetch(x + 2 * a->x_h + i * a->x_w); /* every second line of every second row */
            vstore(y + i * VW, vload(x + i * a->x_w));
        }
    }
}

FC_DEFINE(place_pixels) {
    const int64_t rows = (a->h + a->step_h - 1) / a->step_h, columns = (a->w + a->step_w - 1) / a->step_w;
    int64_t lo, hi;
    share(a->n * a->c * a->h, ith, nth, &lo, &hi);
    for (int64_t at = lo; at < hi; at++) {
        int64_t h = at % a->h, c = at / a->h % a->c, n = at / a->h / a->c;
        const float *x = h % a->step_h ? 0 : a->x + (at / a->h * rows + h / a->step_h) * columns * VW;
        const float *add = a->add ? a->add + n * a->r_n + c * a->r_c + h * a->r_h : 0;
        const float *mask = a->mask ? a->mask + n * a->m_n + c * a->m_c + h * a->m_h : 0;
        float *y = a->y + n * a->y_n + c * a->y_c + h * a->y_h;
        for (int64_t w = 0, next = 0; w < a->w; w++) {
            vec sum = add ? vload(add + w * VW) : (vec){0};
            if (x && w == next) sum += vload(x), x += VW, next += a->step_w;
            vstore(y + w * VW, mask ? vmask(sum, vload(mask + w * VW)) : sum);
        }
    }
}

FC_DEFINE(strided_copy) {
    const int64_t *size = a->table, *x_step = a->table + 6, *y_step = a->table + 12;
    int64_t outer = 1, lo, hi;
    for (int d = 0; d < 5; d++) outer *= size[d];
    share(outer, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        int64_t rest = row, x_at = 0, y_at = 0;
        for (int d = 4; d >= 0; d--) {
            const int64_t i = rest % size[d];
            rest /= size[d];
            x_at += i * x_step[d];
            y_at += i * y_step[d];
        }
        const float *x = a->x + x_at;
        float *y = a->y + y_at;
        if (a->accumulate)
            for (int64_t i = 0; i < size[5]; i++) y[i * y_step[5]] += x[i * x_step[5]];
        else if (x_step[5] == 1 && y_step[5] == 1)
            for (int64_t i = 0; i < size[5]; i++) y[i] = x[i];
        else
            for (int64_t i = 0; i < size[5]; i++) y[i * y_step[5]] = x[i * x_step[5]];
    }
}
