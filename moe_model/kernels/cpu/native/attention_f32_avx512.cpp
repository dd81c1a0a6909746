// Attention in float32 products (AVX-512): float32 queries over any pages.
#include "attention_kernels.h"
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#include "attention_avx512.h"
#include "attention_f32.h"

namespace kernels {
namespace {

struct F32Avx512 : F32<Avx512> {
    static F dot(F sum, F a, F b) { return _mm512_fmadd_ps(a, b, sum); }
};

}  // namespace

const AttentionKernel attention_f32_avx512 = kernel_of<F32Avx512>();

}  // namespace kernels
#endif
