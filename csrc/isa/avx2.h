/* The vector and the register blocks of avx2: see kernels/vec.h. */
#define ISA_NAME avx2
#define VW 8        /* float lanes of a vector */
#define VREGS 16     /* vector registers */
#define TILE_M 6     /* lanes_c: pixels of a register tile */
#define TILE_NV 2    /* lanes_c: output vectors of a register tile */

#include <immintrin.h>
#define VSELECT(mask, a, b) (vec)_mm256_blendv_ps(b, a, (__m256)(mask))
#define VGREATER(a, b) (vec)_mm256_max_ps(a, b)
