// All rows of a message through all their experts: gate, up, SiLU, multiply, down, weighting, sum.
#pragma once
#include "format.h"

namespace kernels {

struct ExpertFfnArgs {
    const uint8_t *hidden;  // bfloat16 [num_rows, hidden_size]
    int64_t num_rows, hidden_size, expert_size, num_pairs, num_experts;
    const int64_t *row_of_pair, *expert_of_pair;  // [num_pairs]
    const float *weight_of_pair;
    // [num_experts] addresses of packed matrices, 0: not held. gate_up has alternating panels.
    const uint64_t *gate_up, *down;
    bool sum;   // else one row per pair
    void *out;  // sum: float32 [num_rows, hidden_size]; else bfloat16 [num_pairs, hidden_size]
};

enum class FfnStatus { DONE, NO_MEMORY, BAD_ROW, BAD_EXPERT };

FfnStatus expert_ffn(const Isa &isa, const Format &gate_up, const Format &down,
                     const ExpertFfnArgs &args);

}  // namespace kernels
