// Attention in float32 products (AVX2, FMA): bfloat16 and float32 queries over any pages.
#include "attention_kernels.h"
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>
#pragma GCC target("avx2,fma")
#include "attention_f32.h"

namespace kernels {
namespace {

struct Avx2 {
    using F = __m256;
    static constexpr int W = 8, NV = 2, MR = 6;

    static F set(float value) { return _mm256_set1_ps(value); }
    static F load(const float *at) { return _mm256_loadu_ps(at); }
    static void store(float *at, F value) { _mm256_storeu_ps(at, value); }
    static F add(F a, F b) { return _mm256_add_ps(a, b); }
    static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static F div(F a, F b) { return _mm256_div_ps(a, b); }
    static F max(F a, F b) { return _mm256_max_ps(a, b); }  // b where one is NaN
    static float largest(F a)
    {
        __m128 half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        half = _mm_max_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
    }
    static float sum(F a)
    {
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }
    static F keep(F value, int count, float other)
    {
        __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        __m256i kept = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), index);
        return _mm256_blendv_ps(set(other), value, _mm256_castsi256_ps(kept));
    }

    // 2^x for x <= 0: 0 below -126, NaN stays NaN. Error below 2e-7 of the result.
    static F exp2(F x)
    {
        x = _mm256_max_ps(set(-127.0f), x);
        F whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        F rest = sub(x, whole);
        F p = set(1.533757750e-04f);
        p = _mm256_fmadd_ps(p, rest, set(1.339985989e-03f));
        p = _mm256_fmadd_ps(p, rest, set(9.618519805e-03f));
        p = _mm256_fmadd_ps(p, rest, set(5.550329015e-02f));
        p = _mm256_fmadd_ps(p, rest, set(2.402264625e-01f));
        p = _mm256_fmadd_ps(p, rest, set(6.931471825e-01f));
        p = _mm256_fmadd_ps(p, rest, set(1.0f));
        __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
        return mul(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
    }

    // Nearest, ties to even; NaN stays NaN.
    static void round(const float *values, uint16_t *out, int64_t count)
    {
        for (int64_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, values + i, 4);
            uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
            out[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
        }
    }
};

struct F32Avx2 : F32<Avx2> {
    static F dot(F sum, F a, F b) { return _mm256_fmadd_ps(a, b, sum); }
};

}  // namespace

const AttentionKernel attention_f32_avx2 = kernel_of<F32Avx2>();

}  // namespace kernels
#endif
