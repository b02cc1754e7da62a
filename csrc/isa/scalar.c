#include "scalar.h"
#include "../kernels/all.inc.c"
