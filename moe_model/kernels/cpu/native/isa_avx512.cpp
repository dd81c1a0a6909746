// What do the kernels do with AVX-512 (F, BW, VL, DQ, BF16, VNNI, VBMI)? The
// table, and when a CPU has it.
#include "attention_kernels.h"
#include "formats_avx512.h"
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#include "elementwise.h"
#include "row_functions.h"

namespace kernels {
namespace {

bool supported()
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")
        && __builtin_cpu_supports("avx512vbmi");
}

}  // namespace

extern const Isa isa_avx512;
const Isa isa_avx512 = {
    "avx512",
    supported,
    {
        &bf16_avx512,
        &f32_avx512,
        &int8_avx512,
        &int4_avx512,
        &int4_g128_avx512,
        &fp8_avx512,
    },
    activate,
    weigh,
    to_bf16,
    add,
    add_bf16,
    read,
    &attention_bf16_avx512,
    &attention_f32_avx512,
    &row_functions,
};

}  // namespace kernels
#endif
