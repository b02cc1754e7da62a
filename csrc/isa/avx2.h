/* The vector and the register blocks of avx2: see kernels/vec.h. */
#define ISA_NAME avx2
#define VW 8        /* float lanes of a vector */
#define VREGS 16     /* vector registers */
#define TILE_M 6     /* lanes_c: pixels of a register tile */
#define TILE_NV 2    /* lanes_c: output vectors of a register tile */

#include <immintrin.h>
#define VSTREAM(p, v) _mm256_stream_ps(p, v)
#define VSELECT(mask, a, b) (vec)_mm256_blendv_ps(b, a, (__m256)(mask))
#define VGREATER(a, b) (vec)_mm256_max_ps(a, b)
#define VMAX_INT(a, b) (ivec)_mm256_max_epi32((__m256i)(a), (__m256i)(b))
#define VBYTES_LOAD(p) (ivec) _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p)))
#define VBYTES_STORE(p, v)                                                                                            \
    do {                                                                                                              \
        const __m256i low = _mm256_shuffle_epi8((__m256i)(v), _mm256_set1_epi32(0x0c080400)); /* of each half */      \
        _mm_storel_epi64((__m128i *)(p),                                                                              \
                         _mm_unpacklo_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));          \
    } while (0)
