/* 3x3 convolution by Winograd's F(4x4, 3x3) (Lavin and Gray, 2015), channels in the lanes: tiles of 6x6 inputs become 36
 * points, the points of many tiles are multiplied with the weights' as 36 matrices, and tiles of 4x4 outputs come back.
 * conv_lanes_c.inc.c has the register tile of the product. */
#define POINTS 36

/* One dimension of the input's transform. */
INLINE void winograd_input(vec *t, vec d0, vec d1, vec d2, vec d3, vec d4, vec d5) {
    vec even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1, near = d4 - d2, twice = 2.0f * (d3 - d1);
    t[0] = 4.0f * d0 - 5.0f * d2 + d4;
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = near + twice;
    t[4] = near - twice;
    t[5] = 4.0f * d1 - 5.0f * d3 + d5;
}

/* One dimension of the output's. */
INLINE void winograd_output(vec *y, vec m0, vec m1, vec m2, vec m3, vec m4, vec m5) {
    vec s = m1 + m2, d = m1 - m2, s2 = m3 + m4, d2 = m3 - m4;
    y[0] = m0 + s + s2;
    y[1] = d + 2.0f * d2;
    y[2] = s + 4.0f * s2;
    y[3] = d + 8.0f * d2 + m5;
}

/* One dimension of the weights'. */
INLINE void winograd_weight(vec *u, vec g0, vec g1, vec g2) {
    vec ends = g0 + g2, far = g0 + 4.0f * g2;
    u[0] = 0.25f * g0;
    u[1] = (ends + g1) * (-1.0f / 6);
    u[2] = (ends - g1) * (-1.0f / 6);
    u[3] = (far + 2.0f * g1) * (1.0f / 24);
    u[4] = (far - 2.0f * g1) * (1.0f / 24);
    u[5] = g2;
}

/* The points of one tile of one block of channels: v[point * v_p]. */
INLINE void winograd_tile_in(const float *x, int64_t x_h, int64_t x_w, float *v, int64_t v_p) {
    vec t[6][6], out[6];
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) {
        const float *c = x + j * x_w;
        vec column[6];
        winograd_input(column, vload(c), vload(c + x_h), vload(c + 2 * x_h), vload(c + 3 * x_h), vload(c + 4 * x_h),
                       vload(c + 5 * x_h));
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++) t[i][j] = column[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++) {
        winograd_input(out, t[i][0], t[i][1], t[i][2], t[i][3], t[i][4], t[i][5]);
#pragma GCC unroll 6
        for (int j = 0; j < 6; j++) vstore(v + (6 * i + j) * v_p, out[j]);
    }
}

typedef struct {
    int64_t n, row, col; /* image, and the tile's place in it in tiles */
} winograd_place;

INLINE winograd_place winograd_at(int64_t tile, int64_t high, int64_t wide) {
    return (winograd_place){tile / (high * wide), tile / wide % high, tile % wide};
}

/* What is cut into tiles: an image's first window and what lies around it, pixels VW apart. */
typedef struct {
    const float *x;
    int64_t x_n, x_c, x_h, oh, ow, blocks;
} winograd_source;

/* The points of tiles [first, first + count): v[point * v_p + block * v_block + tile * v_tile]. */
static void winograd_points(winograd_source s, int64_t first, int64_t count, float *v, int64_t v_p, int64_t v_block,
                            int64_t v_tile) {
    int64_t high = (s.oh + 3) / 4, wide = (s.ow + 3) / 4;
    for (int64_t block = 0; block < s.blocks; block++)
        for (int64_t t = 0; t < count; t++) {
            winograd_place at = winograd_at(first + t, high, wide);
            const float *x = s.x + at.n * s.x_n + block * s.x_c + 4 * at.row * s.x_h + 4 * at.col * VW;
            int64_t rows = s.oh + 2 - 4 * at.row, cols = s.ow + 2 - 4 * at.col; /* what x has from here on */
            float *to = v + block * v_block + t * v_tile;
            if (rows >= 6 && cols >= 6) {
                winograd_tile_in(x, s.x_h, VW, to, v_p);
                continue;
            }
            float edge[6][6][VW] = {0};
            for (int64_t i = 0; i < 6 && i < rows; i++)
                for (int64_t j = 0; j < 6 && j < cols; j++) vstore(edge[i][j], vload(x + i * s.x_h + j * VW));
            winograd_tile_in(edge[0][0], 6 * VW, VW, to, v_p);
        }
}

/* Asks for the 4x4 pixels from p on, rows p_h apart. */
INLINE void winograd_ask(const float *p, int64_t p_h) {
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4 * VBYTES; j += 64) __builtin_prefetch((const char *)(p + i * p_h) + j);
}

/* Tiles [first, first + count) of one block of outputs from m[point * m_p + tile * m_t]. */
static void winograd_outputs(const fc_winograd_args *a, int64_t first, int64_t count, int64_t block, const float *bias,
                             const float *m, int64_t m_p, int64_t m_t) {
    int64_t high = (a->oh + 3) / 4, wide = (a->ow + 3) / 4;
    vec b = bias ? vload(bias) : (vec){0};
    for (int64_t tile = 0; tile < count; tile++) {
        winograd_place at = winograd_at(first + tile, high, wide);
        const float *p = m + tile * m_t;
        const float *mask = a->mask ? a->mask + at.n * a->m_n + block * a->m_c + 4 * at.row * a->m_h + 4 * at.col * VW : 0;
        const float *add = a->add ? a->add + at.n * a->r_n + block * a->r_c + 4 * at.row * a->r_h + 4 * at.col * VW : 0;
        if (mask) winograd_ask(mask + 8 * VW, a->m_h); /* of the tile after the next one */
        if (add) winograd_ask(add + 8 * VW, a->r_h);
        vec t[4][6], y[4];
#pragma GCC unroll 6
        for (int j = 0; j < 6; j++) {
            vec column[4];
            winograd_output(column, vload(p + j * m_p), vload(p + (6 + j) * m_p), vload(p + (12 + j) * m_p),
                            vload(p + (18 + j) * m_p), vload(p + (24 + j) * m_p), vload(p + (30 + j) * m_p));
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) t[i][j] = column[i];
        }
        int64_t rows = a->oh - 4 * at.row, cols = a->ow - 4 * at.col;
        float *to = a->y + at.n * a->y_n + block * a->y_c + 4 * at.row * a->y_h + 4 * at.col * VW;
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            if (i >= rows) break;
            winograd_output(y, t[i][0], t[i][1], t[i][2], t[i][3], t[i][4], t[i][5]);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                if (j >= cols) break;
                vec value = y[j] + b;
                if (add) value += vload(add + i * a->r_h + j * VW);
                if (a->act) value = vrelu(value);
                if (mask) value = vmask(value, vload(mask + i * a->m_h + j * VW));
                vstore(to + i * a->y_h + j * VW, value);
            }
        }
    }
}

FC_DEFINE(winograd) {
    int64_t total = a->n * ((a->oh + 3) / 4) * ((a->ow + 3) / 4), k = a->blocks * VW, lo, hi, ready = -1;
    int64_t v_p = a->blocks * a->tiles * VW + 16, m_t = a->nv * VW, m_p = a->tiles * m_t + 16;
    float *v = a->scratch + ith * a->scratch_size, *m = v + POINTS * v_p;
    winograd_source source = {a->x, a->x_n, a->x_c, a->x_h, a->oh, a->ow, a->blocks};
    fc_conv_lanes_c_args product = {.x_w = VW, .run_len = VW, .nv = a->nv, .y_w = m_t, .y_c = VW};
    share((total + a->tiles - 1) / a->tiles * a->npanels, ith, nth, &lo, &hi);
    for (int64_t unit = lo; unit < hi; unit++) {
        int64_t first = unit / a->npanels * a->tiles, panel = unit % a->npanels;
        int64_t count = first + a->tiles <= total ? a->tiles : total - first;
        int64_t nb = a->outs - panel * a->nv < a->nv ? a->outs - panel * a->nv : a->nv;
        if (ready != first) winograd_points(source, first, count, v, v_p, a->tiles * VW, VW);
        ready = first;
        int64_t parts = (count + tile_rows(nb) - 1) / tile_rows(nb), rows = count / parts, longer = count % parts;
        for (int64_t p = 0; p < POINTS; p++) {
            conv_c_slab slab = {.runs = a->runs, .runs_end = a->runs + a->blocks, .first = 1, .last = 1,
                                .w = a->u + p * a->u_p + panel * k * m_t};
            for (int64_t part = 0, at = 0; part < parts; part++) {
                int64_t height = rows + (part < longer);
                conv_c_tiles[nb - 1][height - 1](&product, &slab, v + p * v_p + at * VW, 0, 0, m + p * m_p + at * m_t);
                at += height;
            }
        }
        for (int64_t b = 0; b < nb; b++)
            winograd_outputs(a, first, count, panel * a->nv + b, a->bias ? a->bias + (panel * a->nv + b) * VW : 0,
                             m + b * VW, m_p, m_t);
    }
}

FC_DEFINE(winograd_weights) {
    int64_t width = a->nv * VW, lo, hi;
    share(a->npanels * a->k, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t panel = item / a->k, r = item % a->k;
        for (int64_t b = 0; b < a->nv; b++) {
            int64_t lane = panel * width + b * VW, lanes = r < a->red ? a->lanes - lane : 0;
            float taps[9][VW] = {0};
            for (int64_t l = 0; l < VW && l < lanes; l++) {
                const float *w = a->w + r * a->s_red + (lane + l) * a->s_lane;
                for (int t = 0; t < 9; t++) taps[a->flip ? 8 - t : t][l] = w[t];
            }
            vec t[6][3], out[6];
#pragma GCC unroll 3
            for (int j = 0; j < 3; j++) {
                vec column[6];
                winograd_weight(column, vload(taps[j]), vload(taps[3 + j]), vload(taps[6 + j]));
#pragma GCC unroll 6
                for (int i = 0; i < 6; i++) t[i][j] = column[i];
            }
            float *u = a->u + item * width + b * VW;
#pragma GCC unroll 6
            for (int i = 0; i < 6; i++) {
                winograd_weight(out, t[i][0], t[i][1], t[i][2]);
#pragma GCC unroll 6
                for (int j = 0; j < 6; j++) vstore(u + (6 * i + j) * a->u_p, out[j]);
            }
        }
    }
}

/* The weight gradient by F(3x3, 4x4): the same points of x with those of 4x4 tiles of dy, summed over all tiles. */

/* One dimension of the output gradient's transform. */
INLINE void winograd_gradient(vec *u, vec g0, vec g1, vec g2, vec g3) {
    vec even = g0 + g2, odd = g1 + g3, even2 = g0 + 4.0f * g2, odd2 = 2.0f * g1 + 8.0f * g3;
    u[0] = 0.25f * g0;
    u[1] = (even + odd) * (-1.0f / 6);
    u[2] = (even - odd) * (-1.0f / 6);
    u[3] = (even2 + odd2) * (1.0f / 24);
    u[4] = (even2 - odd2) * (1.0f / 24);
    u[5] = g3;
}

/* The points of dy's tiles [first, first + count), blocks [begin, end): v[point * v_p + tile * v_tile + block * VW]. */
static void winograd_dy_points(const fc_winograd_wgrad_args *a, int64_t first, int64_t count, int64_t begin, int64_t end,
                               float *v, int64_t v_p, int64_t v_tile) {
    int64_t high = (a->oh + 3) / 4, wide = (a->ow + 3) / 4;
    for (int64_t block = begin; block < end; block++)
        for (int64_t tile = 0; tile < count; tile++) {
            winograd_place at = winograd_at(first + tile, high, wide);
            const float *dy = a->dy + at.n * a->y_n + block * a->y_c + 4 * at.row * a->y_h + 4 * at.col * VW;
            int64_t rows = a->oh - 4 * at.row, cols = a->ow - 4 * at.col;
            vec g[4][4], t[6][4], out[6];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) g[i][j] = i < rows && j < cols ? vload(dy + i * a->y_h + j * VW) : (vec){0};
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                winograd_gradient(out, g[0][j], g[1][j], g[2][j], g[3][j]);
#pragma GCC unroll 6
                for (int i = 0; i < 6; i++) t[i][j] = out[i];
            }
            float *to = v + (block - begin) * VW + tile * v_tile;
#pragma GCC unroll 6
            for (int i = 0; i < 6; i++) {
                winograd_gradient(out, t[i][0], t[i][1], t[i][2], t[i][3]);
#pragma GCC unroll 6
                for (int j = 0; j < 6; j++) vstore(to + (6 * i + j) * v_p, out[j]);
            }
        }
}

/* Tiles of slot `slot` with panels [begin, end). */
static void winograd_wgrad_unit(const fc_winograd_wgrad_args *a, int64_t slot, int64_t begin, int64_t end, float *v) {
    int64_t total = a->n * ((a->oh + 3) / 4) * ((a->ow + 3) / 4), k = a->blocks * VW, width = a->nv * VW;
    int64_t last = total * (slot + 1) / a->slots, blocks = a->outs < end * a->nv ? a->outs : end * a->nv;
    int64_t v_tile = k + 16, v_p = a->tiles * v_tile, d_tile = (end - begin) * width + 16, d_p = a->tiles * d_tile;
    float *d = v + POINTS * v_p;
    winograd_source source = {a->x, a->x_n, a->x_c, a->x_h, a->oh, a->ow, a->blocks};
    for (int64_t first = total * slot / a->slots, fresh = 1; first < last; first += a->tiles, fresh = 0) {
        int64_t count = last - first < a->tiles ? last - first : a->tiles;
        winograd_points(source, first, count, v, v_p, VW, v_tile);
        winograd_dy_points(a, first, count, begin * a->nv, blocks, d, d_p, d_tile);
        fc_wgrad_lanes_c_args product = {.x_w = v_tile, .y_w = d_tile, .y_c = VW, .nv = a->nv, .ow = count};
        for (int64_t p = 0; p < POINTS; p++)
            for (int64_t panel = begin; panel < end; panel++) {
                int64_t nb = a->outs - panel * a->nv < a->nv ? a->outs - panel * a->nv : a->nv;
                int64_t parts = (k + tile_rows(nb) - 1) / tile_rows(nb), rows = k / parts, longer = k % parts;
                float *u = a->u + (((slot * POINTS + p) * a->npanels + panel) * k) * width;
                for (int64_t part = 0, at = 0; part < parts; part++) {
                    int64_t height = rows + (part < longer);
                    wgrad_c_tiles[nb - 1][height - 1](&product, v + p * v_p + at, d + p * d_p + (panel - begin) * width,
                                                      u + at * width, 1, fresh);
                    at += height;
                }
            }
    }
}

FC_DEFINE(winograd_wgrad) {
    int64_t lo, hi;
    share(a->slots * a->groups, ith, nth, &lo, &hi);
    for (int64_t unit = lo; unit < hi; unit++) {
        int64_t slot = unit / a->groups, group = unit % a->groups;
        winograd_wgrad_unit(a, slot, a->npanels * group / a->groups, a->npanels * (group + 1) / a->groups,
                            a->scratch + ith * a->scratch_size);
    }
}

/* One dimension of the weight gradient's way back. */
INLINE void winograd_taps(vec *w, vec m0, vec m1, vec m2, vec m3, vec m4, vec m5) {
    vec s = m1 + m2, s2 = m3 + m4;
    w[0] = m0 + s + s2;
    w[1] = (m1 - m2) + 2.0f * (m3 - m4);
    w[2] = s + 4.0f * s2 + m5;
}

FC_DEFINE(winograd_unpack) {
    int64_t width = a->nv * VW, u_p = a->npanels * a->k * width, lo, hi;
    share(a->npanels * a->red, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t panel = item / a->red, r = item % a->red;
        for (int64_t b = 0; b < a->nv; b++) {
            int64_t lane = panel * width + b * VW, lanes = a->lanes - lane;
            if (lanes <= 0) break;
            const float *u = a->u + (panel * a->k + r) * width + b * VW;
            vec t[3][6];
#pragma GCC unroll 6
            for (int j = 0; j < 6; j++) {
                vec m[6], column[3];
#pragma GCC unroll 6
                for (int i = 0; i < 6; i++) {
                    m[i] = vload(u + (6 * i + j) * u_p);
                    for (int64_t slot = 1; slot < a->slots; slot++) m[i] += vload(u + (slot * POINTS + 6 * i + j) * u_p);
                }
                winograd_taps(column, m[0], m[1], m[2], m[3], m[4], m[5]);
#pragma GCC unroll 3
                for (int i = 0; i < 3; i++) t[i][j] = column[i];
            }
            float taps[9][VW];
#pragma GCC unroll 3
            for (int i = 0; i < 3; i++) {
                vec row[3];
                winograd_taps(row, t[i][0], t[i][1], t[i][2], t[i][3], t[i][4], t[i][5]);
#pragma GCC unroll 3
                for (int j = 0; j < 3; j++) vstore(taps[3 * i + j], row[j]);
            }
            for (int64_t l = 0; l < VW && l < lanes; l++)
                for (int i = 0; i < 9; i++) a->dw[((lane + l) * a->red + r) * 9 + i] = taps[i][l];
        }
    }
}
