FC_DEFINE(wgrad_lanes_c) {
    int64_t lo, hi;
    share(a->slots * a->npanels * a->nruns, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t t = item % a->nruns, panel = item / a->nruns % a->npanels, slot = item / a->nruns / a->npanels;
        const int64_t *pan = a->panels + 3 * panel;
        for (int64_t i = 0; i < a->run_len; i++)
            for (int64_t v = 0; v < a->nv; v++) {
                vec acc = {0};
                for (int64_t n = slot * a->n / a->slots; n < (slot + 1) * a->n / a->slots && v < pan[2]; n++)
                    for (int64_t oh = 0; oh < a->oh; oh++)
                        for (int64_t ow = 0; ow < a->ow; ow++)
                            acc += vset(a->x[n * a->x_n + pan[0] + a->runs[t] + oh * a->x_h + ow * a->x_w + i]) *
                                   vload(a->dy + n * a->y_n + (pan[1] + v) * a->y_c + oh * a->y_h + ow * a->y_w);
                vstore(a->dw + ((item * a->run_len + i) * a->nv + v) * VW, acc);
            }
    }
}
