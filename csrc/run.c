#include "fastcnn.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { SPINS = 2000 }; /* some 50 us of waiting before the thread goes to sleep */

/* Denormals cost a hundred times a normal multiply; they count as zero while a plan runs. */
static uint64_t flush_to_zero(void) {
#if defined(__x86_64__)
    unsigned old = _mm_getcsr();
    _mm_setcsr(old | 0x8040);
    return old;
#elif defined(__aarch64__)
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" ::"r"(old | (1u << 24)));
    return old;
#else
    return 0;
#endif
}

static void restore_float_mode(uint64_t old) {
#if defined(__x86_64__)
    _mm_setcsr((unsigned)old);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" ::"r"(old));
#else
    (void)old;
#endif
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

typedef struct {
    atomic_int arrived, generation, sleepers;
} barrier;

/* Sleep until the generation is no longer `seen`; may return early. */
static void sleep_on(barrier *b, int seen) {
#if defined(__linux__)
    atomic_fetch_add(&b->sleepers, 1);
    syscall(SYS_futex, &b->generation, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&b->sleepers, 1);
#else
    (void)b, (void)seen;
    sched_yield();
#endif
}

static void wait_all(barrier *b, int nth) {
    int generation = atomic_load(&b->generation);
    if (atomic_fetch_add(&b->arrived, 1) == nth - 1) {
        atomic_store(&b->arrived, 0);
        atomic_store(&b->generation, generation + 1);
#if defined(__linux__) /* a sleeper counts itself before the kernel looks at the generation: none is missed */
        if (atomic_load(&b->sleepers)) syscall(SYS_futex, &b->generation, FUTEX_WAKE_PRIVATE, nth, NULL, NULL, 0);
#endif
        return;
    }
    for (int spin = 0; atomic_load(&b->generation) == generation; spin++) {
#if defined(__x86_64__)
        _mm_pause();
#endif
        if (spin >= SPINS) sleep_on(b, generation);
    }
}

static void walk(const fc_step *steps, int64_t first, int64_t last, int ith, int nth, barrier *b, double *ms) {
    uint64_t mode = flush_to_zero();
    double start = ms && ith == 0 ? now_ms() : 0;
    for (int64_t i = first; i < last; i++) {
        int share = steps[i].threads < nth ? (int)steps[i].threads : nth;
        if (ith < share) steps[i].fn(steps[i].args, ith, share);
        int alone = share == 1 && (i + 1 == last || steps[i + 1].threads == 1); /* thread 0 just goes on */
        if (nth > 1 && !alone) wait_all(b, nth);
        if (ms && ith == 0) {
            double end = now_ms();
            ms[i] = end - start;
            start = end;
        }
    }
    restore_float_mode(mode);
}

static atomic_int had_threads, forked;

static void after_fork(void) {
    if (atomic_load(&had_threads)) atomic_store(&forked, 1);
}

int fc_forked(void) { return atomic_load(&forked); }

void fc_run(const fc_step *steps, int64_t first, int64_t last, int nth, double *ms) {
    int64_t most = 1;
    for (int64_t i = first; i < last; i++)
        if (steps[i].threads > most) most = steps[i].threads;
    if (most < nth) nth = (int)most;
    barrier b = {0};
#ifdef _OPENMP
    if (nth > 1 && !fc_forked()) { /* an OpenMP pool does not survive a fork: the child stays on one thread */
        if (!atomic_exchange(&had_threads, 1)) pthread_atfork(NULL, NULL, after_fork);
#pragma omp parallel num_threads(nth)
        walk(steps, first, last, omp_get_thread_num(), omp_get_num_threads(), &b, ms);
        return;
    }
#endif
    walk(steps, first, last, 0, 1, &b, ms);
}
