/* Bytes into floats. */

FC_DEFINE(gather_u8) {
    const float scale = (float)a->scale, shift = (float)a->shift;
    int64_t lo, hi;
    share(a->count, ith, nth, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const uint8_t *restrict x = a->x + a->index[i] * a->size;
        float *restrict y = a->y + i * a->size;
        for (int64_t j = 0; j < a->size; j++) y[j] = (float)x[j] * scale + shift;
    }
}
