/* Every kernel body, compiled once per ISA, and that ISA's table. */
#include "vec.h"

#include "layout.inc.c"
#include "weights.inc.c"
#include "conv_lanes_c.inc.c"
#include "depthwise.inc.c"
#include "conv_few.inc.c"
#include "conv_pixels.inc.c"
#include "conv_lanes_n.inc.c"
#include "wgrad_lanes_c.inc.c"
#include "winograd.inc.c"
#include "winograd_weights.inc.c"
#include "wgrad_lanes_n.inc.c"
#include "winograd_n.inc.c"
#include "winograd_n_weights.inc.c"
#include "gemm.inc.c"
#include "pool.inc.c"
#include "elementwise.inc.c"
#include "gather.inc.c"
#include "dropout.inc.c"
#include "norm.inc.c"
#include "softmax.inc.c"
#include "optim.inc.c"
#include "data.inc.c"
#include "machine.inc.c"

static const fc_kernel table[FC_KERNEL_COUNT] = {
#define FC_KERNEL(name, ...) entry_##name,
#include "../kernels.def"
#undef FC_KERNEL
};

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define STR_(a) #a
#define STR(a) STR_(a)
const fc_isa CAT(fc_isa_, ISA_NAME) = {STR(ISA_NAME), VW, TILE_M, TILE_NV, GEMM_N, GEMM_KC, table};
