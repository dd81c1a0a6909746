// The attention kernels that exist, each in a file of its own.
#pragma once
#include "attention.h"

namespace kernels {

extern const AttentionKernel attention_bf16_avx512, attention_f32_avx512, attention_f32_avx2;

}  // namespace kernels
