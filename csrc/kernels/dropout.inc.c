/* Dropout. The draw for an element hashes its logical NCHW index with three keys made of (seed, stream): two rounds of
 * multiply and xor-shift (the murmur3 finalizer's structure and constants) with a key before, between and after. */
#include "math.h"

typedef uint32_t uvec __attribute__((vector_size(VBYTES), may_alias));

typedef struct {
    uint32_t k[3];
} draw_key;

/* splitmix64 (Steele, Lea and Flood) turns (seed, stream) into independent keys. */
INLINE uint64_t splitmix(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

INLINE draw_key draw_key_of(uint64_t seed, uint64_t stream) {
    uint64_t state = seed, mixed = splitmix(&state) ^ stream;
    uint64_t first = splitmix(&mixed), second = splitmix(&mixed);
    return (draw_key){{(uint32_t)first, (uint32_t)(first >> 32), (uint32_t)second}};
}

/* 24 random bits for each lane of the index (high, low). */
INLINE ivec draw(draw_key key, uvec high, uvec low) {
    uvec z = low ^ key.k[0];
    z = (z ^ (z >> 16)) * 0x85ebca6bu;
    z = (z ^ (z >> 13)) * 0xc2b2ae35u;
    z = (z ^ (z >> 16)) + (key.k[1] ^ high * 0x9e3779b1u);
    z = (z ^ (z >> 16)) * 0x85ebca6bu;
    z = (z ^ (z >> 13)) * 0xc2b2ae35u;
    return (ivec)(((z ^ (z >> 16)) + key.k[2]) >> 8);
}

typedef struct {
    draw_key key;
    ivec threshold; /* kept where the draw reaches it */
    vec scale;
} dropper;

/* `index` is that of lane 0's first element; lane l's is lane_step * l further. */
INLINE vec drop(const dropper *d, vec x, uvec high, uvec low) {
    return (vec)(~(ivec)(draw(d->key, high, low) < d->threshold) & (ivec)(x * d->scale));
}

/* A row of w elements whose lanes are its own consecutive pixels. */
INLINE void drop_plain_row(const dropper *d, const float *x, float *y, int64_t w, uint64_t index) {
    uint32_t offsets[VW];
    for (int lane = 0; lane < VW; lane++) offsets[lane] = (uint32_t)lane;
    const uvec lanes = (uvec)iload((const int32_t *)offsets);
    for (int64_t i = 0; i < w; i += VW) {
        const uvec low = lanes + (uint32_t)(index + (uint64_t)i);
        const uvec wrapped = (uvec)(low < lanes) & 1u;
        const uvec high = wrapped + (uint32_t)((index + (uint64_t)i) >> 32);
        if (w - i >= VW)
            vstore(y + i, drop(d, vload(x + i), high, low));
        else
            tail_store(y + i, drop(d, tail_load(x + i, w - i), high, low), w - i);
    }
}

/* A row of w blocked pixels whose lanes are lane_step elements apart. */
INLINE void drop_blocked_row(const dropper *d, const float *x, float *y, int64_t w, uint64_t index,
                             uint64_t lane_step) {
    uint32_t lows[VW], highs[VW];
    for (int lane = 0; lane < VW; lane++) {
        const uint64_t first = index + (uint64_t)lane * lane_step;
        lows[lane] = (uint32_t)first;
        highs[lane] = (uint32_t)(first >> 32);
    }
    const uvec base = (uvec)iload((const int32_t *)lows), base_high = (uvec)iload((const int32_t *)highs);
    for (int64_t i = 0; i < w; i++) {
        const uvec low = base + (uint32_t)i;
        const uvec high = base_high + ((uvec)(low < base) & 1u);
        vstore(y + i * VW, drop(d, vload(x + i * VW), high, low));
    }
}

FC_DEFINE(dropout) {
    const dropper d = {draw_key_of(a->seed[0], (uint64_t)a->stream), iset((int32_t)(a->p * 16777216.0 + 0.5)),
                       vset((float)(1.0 / (1.0 - a->p)))};
    const int64_t plane = a->h * a->w;
    const int64_t blocks_n = a->layout == 2 ? (a->n + VW - 1) / VW : a->n;
    const int64_t blocks_c = a->layout == 1 ? (a->c + VW - 1) / VW : a->c;
    int64_t lo, hi;
    share(blocks_n * blocks_c * a->h, ith, nth, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        const int64_t h = row % a->h, c = row / a->h % blocks_c, n = row / a->h / blocks_c;
        const float *x = a->x + n * a->x_n + c * a->x_c + h * a->x_h;
        float *y = a->y + n * a->y_n + c * a->y_c + h * a->y_h;
        const int64_t image = a->layout == 2 ? n * VW : n, channel = a->layout == 1 ? c * VW : c;
        const uint64_t index = (uint64_t)((image * a->c + channel) * plane + h * a->w);
        if (a->layout == 0)
            drop_plain_row(&d, x, y, a->w, index);
        else
            drop_blocked_row(&d, x, y, a->w, index, (uint64_t)(a->layout == 1 ? plane : a->c * plane));
    }
}
