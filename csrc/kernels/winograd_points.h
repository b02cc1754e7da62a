/* The points of Winograd's algorithm on tiles of `side` inputs a side, for winograd.h and winograd_n.h. */
#ifndef FASTCNN_KERNELS_WINOGRAD_POINTS_H
#define FASTCNN_KERNELS_WINOGRAD_POINTS_H

#define SIDE_MOST 9
#define PAIRS_MOST 4

/* The points are 0, pairs of +-at, and of even sides infinity, where a polynomial's value is its last coefficient: side 7 is
 * side 8 without that. Those of side 9 have the smallest error of 3876 sets of quotients of small numbers, for 3 taps and 5, in
 * an order in which the first few alone, which tiles at an edge have (winograd.h), have a small error too. */
static const float point_at[2][PAIRS_MOST] = {{1.0f, 2.0f, 0.5f}, {0.875f, 4.0f, 0.5f, 1.5f}};
/* The factors of the weights' map for 0 and each pair; of the outputs' it is 1. */
static const float point_factors[3][1 + PAIRS_MOST] = {
    {0.25f, -1.0f / 6, 1.0f / 24},
    {-1.0f, -2.0f / 9, 1.0f / 90, 32.0f / 45},
    {64.0f / 441, 8388608.0f / 149774625, 32.0f / 3378375, -256.0f / 2079, -256.0f / 47025}};
/* Rows of the inputs' map: 0, the first of each pair (in the second, the odd columns change their sign), infinity. */
static const float point_rows[3][1 + PAIRS_MOST][SIDE_MOST] = {
    {{4, 0, -5, 0, 1, 0}, {0, -4, -4, 1, 1, 0}, {0, -2, -1, 2, 1, 0}, {0, 4, 0, -5, 0, 1}},
    {{-1, 0, 5.25f, 0, -5.25f, 0, 1, 0},
     {0, 1, 1, -4.25f, -4.25f, 1, 1, 0},
     {0, 0.5f, 0.25f, -2.5f, -1.25f, 2, 1, 0},
     {0, 2, 4, -2.5f, -5, 0.5f, 1, 0},
     {0, -1, 0, 5.25f, 0, -5.25f, 0, 1}},
    {{6.890625f, 0, -40.0556640625f, 0, 54.7265625f, 0, -19.265625f, 0, 1},
     {0, -7.875f, -9, 35.4921875f, 40.5625f, -16.1875f, -18.5f, 0.875f, 1},
     {0, -1.72265625f, -0.4306640625f, 9.90625f, 2.4765625f, -13.0625f, -3.265625f, 4, 1},
     {0, -13.78125f, -27.5625f, 24.986328125f, 49.97265625f, -9.5078125f, -19.015625f, 0.5f, 1},
     {0, -4.59375f, -3.0625f, 24.662109375f, 16.44140625f, -25.5234375f, -17.015625f, 1.5f, 1}}};
#define POINTS_OF(side) (((side) > 6) + ((side) > 8))

#endif
