// What a layer does to its rows between the matrix products: bfloat16 in and out, float32 between.
//
// Rounding points as in moe_model/maths/row_maths.py. A row's bits depend on itself only, and are
// the same on every instruction set: sums run in LANES fixed lanes, and nothing is contracted.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace kernels {

struct Isa;

struct NormArgs {
    const uint16_t *rows;  // [num_rows, size]
    const void *added;     // null, or what is added first: bfloat16, or float32, rounded before
    bool added_is_f32;
    const uint16_t *weight;  // [size]; null: only add
    float eps;
    int64_t num_rows, size;
    uint16_t *sums;  // [num_rows, size], with `added`
    uint16_t *out;   // [num_rows, size], with `weight`
    float *wide;     // null, or the same as float32
};

struct HeadsArgs {
    const uint16_t *rows;  // [num_rows, stride]: query heads, key heads, and more
    int64_t num_rows, stride;
    const uint16_t *q_norm, *k_norm;  // [heads * head_dim]; null: no norm
    float eps;
    const float *cos, *sin;  // [num_rows, half]
    int64_t half;            // numbers i and i + half of a head rotate together
    int64_t num_heads, num_groups, head_dim;
    uint16_t *q, *k;  // [num_rows, num_heads | num_groups, head_dim]
};

struct ChoiceArgs {
    const float *logits;  // [num_rows, num_experts]
    const float *bias;    // [num_experts]; null: none
    int64_t num_rows, num_experts, top_k;
    int32_t *ids;    // [num_rows, top_k], ascending
    float *weights;  // [num_rows, top_k]
};

// Of one row each; every instruction set has its own copy (row_functions.h).
struct RowFunctions {
    void (*add_bf16)(const uint16_t *row, const uint16_t *added, uint16_t *sum, int64_t size);
    void (*add_f32)(const uint16_t *row, const float *added, uint16_t *sum, int64_t size);
    void (*norm)(const uint16_t *row, const uint16_t *weight, float eps, uint16_t *out,
                 int64_t size);
    void (*widen)(const uint16_t *row, float *out, int64_t size);
    // In place.
    void (*rotate)(uint16_t *heads, int64_t num_heads, int64_t head_dim, const float *cos,
                   const float *sin, int64_t half);
    // scores = sigmoid(logits)
    void (*sigmoid)(const float *logits, float *scores, int64_t size);
};

void norm_rows(const Isa &isa, const NormArgs &args);
void split_heads(const Isa &isa, const HeadsArgs &args);
// False: no memory.
bool choose_experts(const Isa &isa, const ChoiceArgs &args);

}  // namespace kernels
