/* The whole C interface of fastcnn. Kernels and their arguments: kernels.def. */
#ifndef FASTCNN_H
#define FASTCNN_H

#include <stddef.h>
#include <stdint.h>

/* What a plan's step runs: work item shares of thread ith of nth. No OpenMP inside; results do not depend on nth. */
typedef void (*fc_kernel)(const void *args, int ith, int nth);

typedef enum { FC_OK = 0, FC_NO_MEMORY = 1 } fc_status;
enum {
    FC_RELU, FC_LEAKY_RELU, FC_ELU, FC_SIGMOID, FC_TANH, FC_EXP, FC_SCALE, FC_SHIFT, FC_SQRT, /* gradient from y */
    FC_CLAMP, FC_HARDTANH, FC_HARDSIGMOID, FC_HARDSWISH, FC_SILU, FC_GELU, FC_GELU_TANH, FC_SOFTPLUS, FC_MISH, FC_LOG,
    FC_ABS, FC_SQUARE, FC_ERF /* gradient from x */
};
enum { FC_ADD, FC_SUB, FC_MUL, FC_DIV };

/* One argument struct per kernel: struct fc_<name>_args. */
#define FC_PTR(type, name) type *name;
#define FC_OPT(type, name) type *name;
#define FC_INT(name) int64_t name;
#define FC_NUM(name) double name;
#define FC_KERNEL(name, ...) \
    typedef struct {         \
        __VA_ARGS__          \
    } fc_##name##_args;
#include "kernels.def"
#undef FC_KERNEL
#undef FC_PTR
#undef FC_OPT
#undef FC_INT
#undef FC_NUM

enum {
#define FC_KERNEL(name, ...) FC_K_##name,
#include "kernels.def"
#undef FC_KERNEL
    FC_KERNEL_COUNT
};

/* ---- dispatch.c: which ISA runs ---------------------------------------------------------------------------------- */
typedef struct {
    const char *name;        /* "scalar", "avx2", "avx512": isa.def */
    int vw;                  /* float lanes of a vector */
    int tile_m, tile_nv;     /* lanes_c register tile: pixels x output vectors (the nv of a packed panel) */
    int gemm_n, gemm_kc;     /* gemm: columns of a packed panel of B, terms of a block of A */
    const fc_kernel *table;  /* by FC_K_<name> */
} fc_isa;

typedef struct {
    const char *name;
    char kind; /* 'p' pointer, 'o' pointer or NULL, 'i' int64, 'd' double */
} fc_field;

typedef struct {
    const char *name;
    int nfields;
    const fc_field *fields;
} fc_kernel_info;

extern const fc_kernel_info fc_kernels[FC_KERNEL_COUNT];
int fc_isa_count(void);
const fc_isa *fc_isa_at(int i);         /* lowest first; compiled in */
int fc_isa_supported(int i);            /* by this CPU and operating system */

const char *fc_compiler(void);

/* Floats of scratch a thread needs for gemm of m rows, and for gemm_update of depth k. */
int64_t fc_gemm_scratch(const fc_isa *isa, int64_t m);
int64_t fc_gemm_update_scratch(const fc_isa *isa, int64_t k);

/* ---- memory.c: the only allocator -------------------------------------------------------------------------------- */
void *fc_alloc(size_t bytes); /* 64-byte aligned (2 MiB pages asked for when large), or NULL */
void fc_free(void *p);
void fc_release_memory(void); /* give what malloc holds unused back to the system, where the C library can */
void fc_fail_alloc(int64_t nth); /* for tests: the nth allocation from now fails; 0 turns it off */

/* ---- run.c: walks steps; the only OpenMP region ------------------------------------------------------------------ */
typedef struct {
    fc_kernel fn;
    const void *args;
    int64_t threads; /* at most this many threads share the step */
} fc_step;

/* Runs steps [first, last) on nth threads. ms (or NULL) receives each step's milliseconds. */
void fc_run(const fc_step *steps, int64_t first, int64_t last, int nth, double *ms);
int fc_forked(void); /* 1 in a child of a process that had threads: runs stay on one thread */

#endif
