// A layer's attention block but for attention itself, in two calls: the products and what lies
// between them. Going back to Python in between is slow (docs/cold-caches.md).
#pragma once
#include "format.h"

namespace kernels {

// As moe_model/kernels/cpu/layer.py fills it in, once for each layer: sizes and addresses.
struct LayerTable {
    int64_t hidden_size, num_heads, num_groups, head_dim, num_experts, top_k;
    int64_t eps_bits;                                     // of the float32
    int64_t input_norm, q_norm, k_norm, post_norm, bias;  // bfloat16, bias float32; 0: none
    int64_t qkv_format, qkv, o_format, o, routing_format, routing;  // packed weights
};

struct ProjectArgs {
    const uint16_t *hidden;  // [num_rows, hidden_size]
    int64_t num_rows;
    const float *cos, *sin;  // [num_rows, half]
    int64_t half;
    uint16_t *normed;  // [num_rows, hidden_size]
    uint16_t *qkv;     // [num_rows, (num_heads + 2 num_groups) * head_dim]; values are read later
    uint16_t *q, *k;   // [num_rows, num_heads | num_groups, head_dim]
};

struct DispatchArgs {
    const uint16_t *hidden, *attended;  // [num_rows, hidden_size | num_heads * head_dim]
    int64_t num_rows;
    uint16_t *projected;          // [num_rows, hidden_size]
    float *wide, *logits;         // [num_rows, hidden_size | num_experts]
    uint16_t *residual, *normed;  // [num_rows, hidden_size]
    int32_t *ids;                 // [num_rows, top_k]
    float *weights;               // [num_rows, top_k]
};

// False: no memory, or no kernel for a format.
bool project(const Isa &isa, const LayerTable &layer, const ProjectArgs &args);
bool dispatch(const Isa &isa, const LayerTable &layer, const DispatchArgs &args);

}  // namespace kernels
