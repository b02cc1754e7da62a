#include "fastcnn.h"

#include "kernels/gemm.h"

#include <string.h>

#define FC_PTR(type, name) {#name, 'p'},
#define FC_OPT(type, name) {#name, 'o'},
#define FC_INT(name) {#name, 'i'},
#define FC_NUM(name) {#name, 'd'},
#define FC_KERNEL(name, ...) static const fc_field fields_##name[] = {__VA_ARGS__};
#include "kernels.def"
#undef FC_KERNEL

/* Every field is 8 bytes, so a struct is as long as its list of fields. */
#define FC_KERNEL(name, ...)                                                                    \
    _Static_assert(sizeof(fc_##name##_args) == 8 * sizeof(fields_##name) / sizeof(fc_field), #name);
#include "kernels.def"
#undef FC_KERNEL

const fc_kernel_info fc_kernels[FC_KERNEL_COUNT] = {
#define FC_KERNEL(name, ...) {#name, sizeof(fields_##name) / sizeof(fc_field), fields_##name},
#include "kernels.def"
#undef FC_KERNEL
};

#if defined(__x86_64__) || defined(_M_X64)
/* The builtins test XCR0 as well as CPUID: an instruction set that the system does not save is not there. */
static int fc_cpu_has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static int fc_cpu_has_avx512(void) {
#ifdef FC_EMULATE_AVX512 /* a test build: the 16-lane kernels compiled for AVX2 */
    return fc_cpu_has_avx2();
#else
    return fc_cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
}
#endif

#define FC_ISA(name, test) extern const fc_isa fc_isa_##name;
#include "isa.def"
#undef FC_ISA

static const fc_isa *const isas[] = {
#define FC_ISA(name, test) &fc_isa_##name,
#include "isa.def"
#undef FC_ISA
};

int fc_isa_count(void) { return (int)(sizeof(isas) / sizeof(isas[0])); }

const fc_isa *fc_isa_at(int i) { return isas[i]; }

int fc_isa_supported(int i) {
    const int supported[] = {
#define FC_ISA(name, test) test,
#include "isa.def"
#undef FC_ISA
    };
    return supported[i];
}

int64_t fc_gemm_scratch(const fc_isa *isa, int64_t m) { return gemm_scratch(m, isa->gemm_kc); }
int64_t fc_gemm_update_scratch(const fc_isa *isa, int64_t k) { return gemm_update_scratch(k, isa->gemm_kc); }

const char *fc_compiler(void) {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}
