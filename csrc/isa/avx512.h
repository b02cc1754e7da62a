/* The vector and the register blocks of avx512: see kernels/vec.h. */
#define ISA_NAME avx512
#define VW 16        /* float lanes of a vector */
#define VREGS 32     /* vector registers */
#define TILE_M 14     /* lanes_c: pixels of a register tile */
#define TILE_NV 2    /* lanes_c: output vectors of a register tile */

#ifdef __AVX512F__ /* not when emulated for a machine without it */
#include <immintrin.h>
#define VSTREAM(p, v) _mm512_stream_ps(p, v)
#define VGREATER(a, b) (vec)_mm512_max_ps(a, b)
#define VMAX_INT(a, b) (ivec)_mm512_max_epi32((__m512i)(a), (__m512i)(b))
#define VBYTES_LOAD(p) (ivec) _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p)))
#define VBYTES_STORE(p, v) _mm_storeu_si128((__m128i *)(p), _mm512_cvtepi32_epi8((__m512i)(v)))
#endif
