// rows @ weight^T for a packed weight.
#pragma once
#include "format.h"

namespace kernels {

struct LinearArgs {
    const uint8_t *rows;  // [num_rows, num_inputs], plain: bfloat16 or float32, by the format
    int64_t num_rows, num_inputs, num_outputs;
    const uint8_t *weight;
    void *out;        // [num_rows, num_outputs]
    bool out_is_f32;  // else bfloat16
};

// False: no memory.
bool linear(const Isa &isa, const Format &format, const LinearArgs &args);

}  // namespace kernels
