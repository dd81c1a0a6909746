// Vectors of 16 float32 for attention_tile.h. Include it below the `#pragma GCC
// target` of an ISA file.
#pragma once
#include <immintrin.h>

#include "attention.h"

namespace kernels {
namespace {

struct Avx512 {
    using F = __m512;
    static constexpr int W = 16, NV = 4, MR = 6;

    static F set(float value) { return _mm512_set1_ps(value); }
    static F load(const float *at) { return _mm512_loadu_ps(at); }
    static void store(float *at, F value) { _mm512_storeu_ps(at, value); }
    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F div(F a, F b) { return _mm512_div_ps(a, b); }
    static F max(F a, F b) { return _mm512_max_ps(a, b); }  // b where one is NaN
    static float largest(F a) { return _mm512_reduce_max_ps(a); }
    static float sum(F a) { return _mm512_reduce_add_ps(a); }
    static F keep(F value, int count, float other)
    {
        __mmask16 kept = count >= 16 ? 0xffff : (__mmask16)((1u << (count < 0 ? 0 : count)) - 1);
        return _mm512_mask_blend_ps(kept, set(other), value);
    }

    // 2^x for x <= 0: 0 below -150, NaN stays NaN. Error below 2e-7 of the result.
    static F exp2(F x)
    {
        x = _mm512_max_ps(set(-200.0f), x);
        F whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        F rest = sub(x, whole);
        F p = set(1.533757750e-04f);
        p = _mm512_fmadd_ps(p, rest, set(1.339985989e-03f));
        p = _mm512_fmadd_ps(p, rest, set(9.618519805e-03f));
        p = _mm512_fmadd_ps(p, rest, set(5.550329015e-02f));
        p = _mm512_fmadd_ps(p, rest, set(2.402264625e-01f));
        p = _mm512_fmadd_ps(p, rest, set(6.931471825e-01f));
        p = _mm512_fmadd_ps(p, rest, set(1.0f));
        return _mm512_scalef_ps(p, whole);
    }

    // Nearest, ties to even; NaN stays NaN. Reads whole vectors.
    static void round(const float *values, uint16_t *out, int64_t count)
    {
        for (int64_t i = 0; i < count; i += 16) {
            __m512i bits = _mm512_castps_si512(load(values + i));
            __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
            __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            __m512i result = _mm512_srli_epi32(up, 16);
            __mmask16 nan = _mm512_cmp_ps_mask(load(values + i), load(values + i), _CMP_UNORD_Q);
            result = _mm512_mask_blend_epi32(nan, result, _mm512_set1_epi32(0x7fc0));
            __mmask16 there = count - i >= 16 ? 0xffff : (__mmask16)((1u << (count - i)) - 1);
            _mm512_mask_cvtepi32_storeu_epi16(out + i, there, result);
        }
    }

    // 16 bytes at `at` of each of 16 rows: column c is their c-th four bytes, row after row.
    struct Quads {
        __m512i column[4];
    };
    static Quads transpose(const uint8_t *const *rows, int at)
    {
        __m512i t[4];  // t[r]: rows r, r + 4, r + 8, r + 12, a lane of 16 bytes each
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            auto row = [&](int i) { return _mm_loadu_si128((const __m128i *)(rows[i] + at)); };
            t[r] = _mm512_castsi128_si512(row(r));
            t[r] = _mm512_mask_broadcast_i32x4(t[r], 0x00f0, row(r + 4));
            t[r] = _mm512_mask_broadcast_i32x4(t[r], 0x0f00, row(r + 8));
            t[r] = _mm512_mask_broadcast_i32x4(t[r], 0xf000, row(r + 12));
        }
        __m512i low01 = _mm512_unpacklo_epi32(t[0], t[1]),
                low23 = _mm512_unpacklo_epi32(t[2], t[3]);
        __m512i high01 = _mm512_unpackhi_epi32(t[0], t[1]),
                high23 = _mm512_unpackhi_epi32(t[2], t[3]);
        return {{_mm512_unpacklo_epi64(low01, low23), _mm512_unpackhi_epi64(low01, low23),
                 _mm512_unpacklo_epi64(high01, high23), _mm512_unpackhi_epi64(high01, high23)}};
    }
};

}  // namespace
}  // namespace kernels
