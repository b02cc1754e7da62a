/* Winograd's algorithm with channels in the lanes: the weights' points, and the weight gradient. winograd.inc.c has the tiles,
 * wgrad_lanes_c.inc.c the register tile of the gradient's products. */
#include "winograd.h"

/* The weights of a later channel are asked for. Either a channel's lie side by side, far from the next one's: 4 channels ahead.
 * Or each lane has a stream of its own, more of them than the processor follows: 8 ahead, some lines. Measured on Zen 5. */
FC_DEFINE(winograd_weights) {
    int64_t width = a->nv * VW, k_of_phase = a->k / a->red_phases, lo, hi;
    share(a->npanels * a->k, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t panel = item / a->k, i = item % a->k, red = i % k_of_phase;
        const int64_t *order = a->order + (panel % a->lane_phases + i / k_of_phase) * a->r * a->r;
        for (int64_t b = 0; b < a->nv; b++) {
            int64_t lane = panel / a->lane_phases * width + b * VW, lanes = red < a->red ? a->lanes - lane : 0,
                    offset[VW];
            ivec keep;
            for (int64_t l = 0; l < VW; l++) keep[l] = l < lanes ? -1 : 0, offset[l] = l < lanes ? l * a->s_lane : 0;
            float w[(MOST_WEIGHTS + 1) * VW], *u = a->u + item * width + b * VW;
            const float *from = lanes > 0 ? a->w + red * a->s_red + lane * a->s_lane : a->w;
            rows_to_lanes(from, offset, keep, w, VW, a->area);
            if (lanes > 0 && a->s_lane < a->s_red)
                ask_pixels(1, a->s_lane, from + 4 * a->s_red, 0);
            else if (lanes > 0)
                for (int64_t l = 0; l < VW; l++) __builtin_prefetch(from + offset[l] + 8 * a->s_red);
            vstore(w + a->area * VW, (vec){0});
#define BODY(side, r) winograd_tile_weights(side, r, w, order, u, a->u_p, 4 * width)
            WINOGRAD_KINDS(a->side, a->r, BODY);
#undef BODY
        }
    }
}

/* The weight gradient by F(r x r, m x m): the same points of x with those of m x m tiles of dy, summed over all tiles. */

/* The points of a pair of dy's tiles [first, first + count), blocks [begin, end): v[point * v_p + tile * v_tile + block * VW]. */
static void winograd_dy_points(const fc_winograd_wgrad_args *a, const winograd_part *part, int pair, int64_t first,
                               int64_t count, int64_t begin, int64_t end, float *v, int64_t v_p, int64_t v_tile) {
    winograd_tile_dy whole = 0;
#define BODY(side, r) whole = winograd_tile_dy_##side##_##r
    WINOGRAD_KINDS(a->side, a->r, BODY);
#undef BODY
    const int64_t step = winograd_step(a->side, a->r);
    for (int64_t block = begin; block < end; block++) {
        winograd_place at = winograd_at(part, first);
        for (int64_t tile = 0; tile < count; tile++, winograd_next(part, &at)) {
            const float *dy = a->dy + at.n * a->y_n + block * a->y_c + step * (at.row * a->y_h + at.col * VW);
            float *to = v + tile * v_tile + (block - begin) * VW;
            if (at.kind == WHOLE)
                whole(pair, dy, a->y_h, to, v_p);
            else if (a->side == 9)
                winograd_cut_dy_9(pair, (int)a->r, (int)at.rows, (int)at.cols, dy, a->y_h, to, v_p);
            else if (a->side == 4)
                winograd_cut_dy_4(pair, (int)a->r, (int)at.rows, (int)at.cols, dy, a->y_h, to, v_p);
            else
                winograd_cut_dy_6(pair, (int)a->r, (int)at.rows, (int)at.cols, dy, a->y_h, to, v_p);
        }
    }
}

/* The points of a pair, over tiles [from, to) of a slot, with panels [begin, end). */
static void winograd_wgrad_unit(const fc_winograd_wgrad_args *a, const winograd_part *tiles, int64_t from, int64_t to,
                                int64_t slot, int pair, int64_t begin, int64_t end, float *v) {
    int64_t k = a->x_apart * a->x_apart * a->blocks * VW, width = a->nv * VW;
    int64_t blocks = a->outs < end * a->nv ? a->outs : end * a->nv;
    int64_t v_tile = k + 16, v_p = a->tiles * v_tile, d_tile = (end - begin) * width + 16, d_p = a->tiles * d_tile;
    const int64_t before = pair * winograd_pair_points(a->side, 0), points = a->side * a->side;
    float *d = v + winograd_pair_points(a->side, 0) * v_p;
    winograd_source source = {
        a->x, a->x_n, a->x_c, a->x_h, a->x_apart, a->blocks, winograd_phases(a->x_apart, a->phases)};
    for (int64_t first = from; first < to; first += a->tiles) {
        int64_t count = to - first < a->tiles ? to - first : a->tiles;
        winograd_points(source, tiles, pair, pair + 1, first, count, v, v_p, VW, v_tile);
        winograd_dy_points(a, tiles, pair, first, count, begin * a->nv, blocks, d, d_p, d_tile);
        for (int64_t p = 0; p < winograd_pair_points(a->side, pair); p++) {
            int64_t lo, hi;
            winograd_having(tiles, before + p, first, count, &lo, &hi);
            if (lo >= hi && first) continue;
            const int64_t *reach = a->reach + 2 * (before + p), low = reach[0] * a->blocks * VW;
            const int64_t high = reach[1] * a->blocks * VW;
            fc_wgrad_lanes_c_args product = {.x_w = v_tile, .y_w = d_tile, .y_c = VW, .nv = a->nv, .ow = hi - lo};
            for (int64_t panel = begin; panel < end; panel++) {
                int64_t nb = a->outs - panel * a->nv < a->nv ? a->outs - panel * a->nv : a->nv;
                int64_t parts = (high - low + tile_rows(nb) - 1) / tile_rows(nb), rows = (high - low) / parts;
                float *u = a->u + (slot * points + before + p) * a->u_p + panel * k * width;
                for (int64_t part = 0, at = low; part < parts; part++) {
                    int64_t height = rows + (part < (high - low) % parts);
                    wgrad_c_tiles[nb - 1][height - 1](&product, v + p * v_p + lo * v_tile + at,
                                                      d + p * d_p + lo * d_tile + (panel - begin) * width,
                                                      u + at * width, 1, (wgrad_c_next){d, 0, 0}, first == 0);
                    at += height;
                }
            }
        }
    }
}

/* Threads share the panels of all pairs and slots; a pair weighs as much as it has points, of the cut tiles too. The pairs
 * go over a chunk of x and dy, twice as large as their sums, before the next: it is read from memory once. */
FC_DEFINE(winograd_wgrad) {
    const int64_t points = a->side * a->side;
    const int pairs = winograd_pairs(a->side);
    const winograd_part all = winograd_cut(a->n, a->oh, a->ow, a->side, a->r, 0, 1);
    const int64_t k_blocks = a->x_apart * a->x_apart * a->blocks, step = winograd_step(a->side, a->r);
    const int64_t sums = points * a->npanels * k_blocks * VW * a->nv,
                  of_tiles = a->tiles * step * step * (k_blocks + a->outs);
    const int64_t chunk = a->tiles * (1 + 2 * sums / of_tiles);
    int64_t weight[5] = {1, 1, 1, 1, 1}, of_panel = 0, start = 0, lo, hi;
    for (int64_t p = 0; p < points; p++) {
        winograd_having(&all, p, 0, all.start[KINDS], &lo, &hi);
        if (lo < hi)
            weight[p / winograd_pair_points(a->side, 0)] += (hi - lo) * (a->reach[2 * p + 1] - a->reach[2 * p]);
    }
    for (int pair = 0; pair < pairs; pair++) of_panel += weight[pair];
    share(a->slots * a->npanels * of_panel, ith, nth, &lo, &hi);
    for (int64_t slot = 0; slot < a->slots; slot++) {
        const winograd_part tiles = winograd_cut(a->n, a->oh, a->ow, a->side, a->r, slot, a->slots);
        int64_t begin[5], end[5], total = tiles.start[KINDS];
        for (int pair = 0; pair < pairs; pair++) {
            rows_within(start, weight[pair], a->npanels, lo, hi, begin + pair, end + pair);
            start += weight[pair] * a->npanels;
        }
        for (int64_t from = 0; from < total; from += chunk)
            for (int pair = 0; pair < pairs; pair++)
                if (begin[pair] < end[pair])
                    winograd_wgrad_unit(a, &tiles, from, from + chunk < total ? from + chunk : total, slot, pair,
                                        begin[pair], end[pair], a->scratch + ith * a->scratch_size);
    }
}

/* What reach left out is read, too, but only reaches taps that no phase has. */
FC_DEFINE(winograd_unpack) {
    int64_t width = a->nv * VW, taps_count = a->r * a->r, lo, hi;
    share(a->npanels * a->red, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t panel = item / a->red, red = item % a->red;
        for (int64_t b = 0; b < a->nv; b++) {
            int64_t lane = panel * width + b * VW, lanes = a->lanes - lane, offset[VW];
            if (lanes <= 0) break;
            float taps[25 * VW], w[(MOST_WEIGHTS + 1) * VW];
            for (int64_t phase = 0; phase < a->phases; phase++) {
                const float *u = a->u + (panel * a->k + phase * (a->k / a->phases) + red) * width + b * VW;
#define BODY(side, r) winograd_tile_taps(side, r, u, a->u_p, a->slots, 4 * width, taps)
                WINOGRAD_KINDS(a->side, a->r, BODY);
#undef BODY
                for (int64_t t = 0; t < taps_count; t++)
                    vstore(w + a->order[phase * taps_count + t] * VW, vload(taps + t * VW));
            }
            for (int64_t l = 0; l < VW; l++) offset[l] = l * a->red * a->area;
            float *dw = a->dw + (lane * a->red + red) * a->area;
            for (int64_t l = 0; l < VW && l < lanes; l++)
                __builtin_prefetch(dw + offset[l] + 8 * a->area, 1); /* as above */
            lanes_to_rows(w, VW, dw, offset, (int)(lanes < VW ? lanes : VW), a->area);
        }
    }
}
