// The formats that the AVX2 table lists.
#pragma once
#include "format.h"

namespace kernels {
extern const Format bf16_avx2, f32_avx2;
}
