/* What the machine can do: see graph/roofline.py. */

enum { CHAINS = 12 }; /* at least latency x ports of the multiply-add units there are, and fewer than the registers */

FC_DEFINE(multiply_adds) {
    const vec half = vset(0.5f), one = vset(1.0f);
    int64_t lo, hi;
    share(a->count, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        vec acc[CHAINS], sum = {0};
        for (int i = 0; i < CHAINS; i++) acc[i] = vset((float)i);
        /* No chain begins at the -2 where it would stay: compilers fold such a one away. */
        for (int64_t round = 0; round < a->rounds; round++)
            for (int i = 0; i < CHAINS; i++) acc[i] = half * acc[i] - one;
        for (int i = 0; i < CHAINS; i++) sum += acc[i];
        vstore(a->y + item * VW, sum);
    }
}
