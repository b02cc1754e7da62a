/* The vector and the register blocks of avx512: see kernels/vec.h. */
#define ISA_NAME avx512
#define VW 16        /* float lanes of a vector */
#define VREGS 32     /* vector registers */
#define TILE_M 14     /* lanes_c: pixels of a register tile */
#define TILE_NV 2    /* lanes_c: output vectors of a register tile */

#ifdef __AVX512F__ /* not when emulated for a machine without it */
#include <immintrin.h>
#define VGREATER(a, b) (vec)_mm512_max_ps(a, b)
#endif
