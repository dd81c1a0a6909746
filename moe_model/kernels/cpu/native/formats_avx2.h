// The formats that the AVX2 table lists.
#pragma once
#include "format.h"

namespace kernels {
extern const Format bf16_avx2, f32_avx2, int8_avx2, int4_avx2, int4_g128_avx2;
}
