// What do the kernels do with AVX2 and FMA? The table, and when a CPU has it.
#include "attention_kernels.h"
#include "formats_avx2.h"
#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#include "elementwise.h"
#include "row_functions.h"

namespace kernels {
namespace {

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace

extern const Isa isa_avx2;
const Isa isa_avx2 = {
    "avx2",
    supported,
    {
        &bf16_avx2, &f32_avx2, &int8_avx2, &int4_avx2, &int4_g128_avx2,
        nullptr,  // FP8
    },
    activate,
    weigh,
    to_bf16,
    add,
    add_bf16,
    read,
    nullptr,
    &attention_f32_avx2,
    &row_functions,
};

}  // namespace kernels
#endif
