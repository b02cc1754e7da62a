#include "fastcnn.h"

#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)

static int64_t fail_countdown;

void fc_fail_alloc(int64_t nth) { fail_countdown = nth; }

void *fc_alloc(size_t bytes) {
    if (fail_countdown > 0 && --fail_countdown == 0) return NULL;
    size_t align = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 64;
    if (bytes > SIZE_MAX - align) return NULL;
    size_t size = (bytes + align - 1) / align * align;
    void *p = NULL;
    if (posix_memalign(&p, align, size ? size : align)) return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (align == HUGE_PAGE) madvise(p, size, MADV_HUGEPAGE); /* a hint: failing is harmless */
#endif
    return p;
}

void fc_free(void *p) { free(p); }

void fc_release_memory(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
