FC_DEFINE(conv_lanes_c) {
    int64_t lo, hi;
    share(a->n * a->npanels * a->oh, ith, nth, &lo, &hi);
    for (int64_t item = lo; item < hi; item++) {
        int64_t oh = item % a->oh, n = item / a->oh % a->n, panel = item / a->oh / a->n;
        const int64_t *pan = a->panels + 3 * panel;
        for (int64_t ow = 0; ow < a->ow; ow++)
            for (int64_t v = 0; v < pan[2]; v++) {
                vec acc = a->bias ? vload(a->bias + (panel * a->nv + v) * VW) : (vec){0};
                const float *w = a->w + panel * a->nruns * a->run_len * a->nv * VW + v * VW;
                const float *x = a->x + n * a->x_n + pan[0] + oh * a->x_h + ow * a->x_w;
                for (int64_t t = 0; t < a->nruns; t++)
                    for (int64_t i = 0; i < a->run_len; i++, w += a->nv * VW) acc += vset(x[a->runs[t] + i]) * vload(w);
                if (a->act) acc = vrelu(acc);
                if (a->mask)
                    acc = vmask(acc, vload(a->mask + n * a->m_n + (pan[1] + v) * a->m_c + oh * a->m_h + ow * a->m_w));
                vstore(a->y + n * a->y_n + (pan[1] + v) * a->y_c + oh * a->y_h + ow * a->y_w, acc);
            }
    }
}
