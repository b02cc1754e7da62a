#include "avx2.h"
#include "../kernels/all.inc.c"
