// The formats that the AVX-512 table lists.
#pragma once
#include "format.h"

namespace kernels {
extern const Format bf16_avx512, f32_avx512, int8_avx512, int4_avx512, int4_g128_avx512, fp8_avx512;
}
