/* The vector and the register blocks of scalar: see kernels/vec.h. */
#define ISA_NAME scalar
#define VW 4        /* float lanes of a vector */
#define VREGS 16     /* vector registers */
#define TILE_M 4     /* lanes_c: pixels of a register tile */
#define TILE_NV 2    /* lanes_c: output vectors of a register tile */
