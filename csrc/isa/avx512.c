#include "avx512.h"
#include "../kernels/all.inc.c"
