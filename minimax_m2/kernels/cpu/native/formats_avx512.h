// The formats that the AVX-512 table lists.
#pragma once
#include "format.h"

namespace kernels {
extern const Format bf16_avx512, f32_avx512;
}
