/* Convolution of plain values to few channels, pixels in the lanes: where a vector of channels would be zeros for a good part, a
 * row of pixels fills one. The sums of a piece of a row, or of two rows, are then turned into vectors of channels. */
#include "transpose.h"

#define PIXELS_PIECE 64 /* pixels of a row at a time at most, a multiple of 2 * VW */
#define PIXELS_OUTS 6   /* channels of a register tile, beside two vectors of pixels */

/* A piece of the result: sums[channel][pixel], or the larger of two rows. */
typedef struct {
    float sums[VW][2][PIXELS_PIECE];
} pixels_piece;

/* VW pixels of two rows, x and x + below, for `outs` channels, a literal, whose weights begin at w. */
INLINE void pixels_tile(const int outs, const fc_conv_pixels_args *a, const float *x, int64_t below, const float *w,
                        const float *bias, float *sums) {
    vec acc[PIXELS_OUTS][2];
#pragma GCC unroll 6
    for (int o = 0; o < outs; o++) acc[o][0] = acc[o][1] = vset(bias ? bias[o] : 0.0f);
    for (int64_t t = 0; t < a->nterms; t++) {
        const vec first = vload(x + a->terms[t]), second = vload(x + a->terms[t] + below);
#pragma GCC unroll 6
        for (int o = 0; o < outs; o++) {
            const vec weight = vset(w[o * a->nterms + t]);
            acc[o][0] += first * weight;
            acc[o][1] += second * weight;
        }
    }
#pragma GCC unroll 6
    for (int o = 0; o < outs; o++, sums += 2 * PIXELS_PIECE) {
        if (a->act) acc[o][0] = vrelu(acc[o][0]), acc[o][1] = vrelu(acc[o][1]);
        vstore(sums, a->pool ? vmax(acc[o][1], acc[o][0]) : acc[o][0]);
        if (!a->pool) vstore(sums + PIXELS_PIECE, acc[o][1]);
    }
}

typedef void (*pixels_tile_of)(const fc_conv_pixels_args *a, const float *x, int64_t below, const float *w,
                               const float *bias, float *sums);
#define PIXELS_TILE(outs)                                                                                       \
    static void pixels_tile_##outs(const fc_conv_pixels_args *a, const float *x, int64_t below, const float *w, \
                                   const float *bias, float *sums) {                                            \
        pixels_tile(outs, a, x, below, w, bias, sums);                                                          \
    }
PIXELS_TILE(1)
PIXELS_TILE(2)
PIXELS_TILE(3)
PIXELS_TILE(4)
PIXELS_TILE(5)
PIXELS_TILE(6)
static const pixels_tile_of pixels_tiles[PIXELS_OUTS] = {pixels_tile_1, pixels_tile_2, pixels_tile_3,
                                                         pixels_tile_4, pixels_tile_5, pixels_tile_6};

/* The larger ones of neighbours of `count` sums of each channel, in their place; whole vectors, of whatever lies beyond too. */
INLINE void pixels_pool(pixels_piece *piece, int64_t outs, int64_t count) {
    for (int64_t o = 0; o < outs; o++) {
        float *sums = piece->sums[o][0];
        for (int64_t at = 0; at < count; at += 2 * VW) {
            const vec a = vload(sums + at), b = vload(sums + at + VW);
            vstore(sums + at / 2, vmax(vodds(a, b), vevens(a, b)));
        }
    }
}

/* Rows `row` and, if there are two, the next one of image n: `outs` channels from `first` on, pixels [from, to). */
static void pixels_rows(const fc_conv_pixels_args *a, int64_t n, int64_t row, int two, int64_t first, int64_t outs,
                        int64_t from, int64_t to) {
    pixels_piece piece;
    const float *x = a->x + n * a->x_n + row * a->x_h + from;
    const int64_t groups = (outs + PIXELS_OUTS - 1) / PIXELS_OUTS, width = to - from;
    for (int64_t group = 0; group < groups; group++) {
        const int64_t o = outs * group / groups, last = outs * (group + 1) / groups;
        const float *bias = a->bias ? a->bias + first + o : NULL;
        for (int64_t at = 0; at < width; at += VW) { /* the last vector overlaps the one before */
            const int64_t pixel = at + VW < width ? at : width - VW;
            pixels_tiles[last - o - 1](a, x + pixel, two ? a->x_h : 0, a->w + (first + o) * a->nterms, bias,
                                       piece.sums[o][0] + pixel);
        }
    }
    if (a->pool) pixels_pool(&piece, outs, width);
    const int64_t shrink = a->pool ? 2 : 1;
    float *y = a->y + n * a->y_n + first / VW * a->y_c + row / shrink * a->y_h + from / shrink * VW;
    int64_t offset[VW];
    ivec keep;
    for (int64_t lane = 0; lane < VW; lane++) {
        offset[lane] = lane < outs ? lane * 2 * PIXELS_PIECE : 0;
        keep[lane] = lane < outs ? -1 : 0;
    }
    rows_to_lanes(piece.sums[0][0], offset, keep, y, VW, width / shrink);
    if (two && !a->pool) rows_to_lanes(piece.sums[0][1], offset, keep, y + a->y_h, VW, width);
}

FC_DEFINE(conv_pixels) {
    const int64_t rows = a->pool ? a->oh / 2 : (a->oh + 1) / 2, cols = a->pool ? a->ow / 2 * 2 : a->ow;
    const int64_t pairs = (cols + 1) / 2, pieces = (pairs + PIXELS_PIECE / 2 - 1) / (PIXELS_PIECE / 2);
    int64_t lo, hi;
    share(a->n * rows, ith, nth, &lo, &hi);
    for (int64_t at = lo; at < hi; at++) {
        const int64_t n = at / rows, row = at % rows * 2;
        for (int64_t first = 0; first < a->outs; first += VW)
            for (int64_t piece = 0; piece < pieces; piece++) {
                const int64_t outs = a->outs - first < VW ? a->outs - first : VW;
                const int64_t from = pairs * piece / pieces * 2, to = pairs * (piece + 1) / pieces * 2;
                pixels_rows(a, n, row, row + 1 < a->oh, first, outs, from, to < cols ? to : cols);
            }
    }
}
