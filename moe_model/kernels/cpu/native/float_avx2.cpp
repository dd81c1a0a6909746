// bfloat16 and float32 weights with AVX2 and FMA. Panels as in bf16_avx512.cpp
// and f32_avx512.cpp; rows are prepared as float32, bfloat16 weights widened by
// a shift (even inputs) and a mask (odd ones).
#include "format.h"
#include "formats_avx2.h"
#if defined(__x86_64__)
#include <string.h>
#pragma GCC target("avx2,fma")
#include <immintrin.h>

namespace kernels {
namespace {

constexpr int MAX_ROWS = 3;  // 12 accumulators of the 16 registers
constexpr int64_t PREFETCH = 2048;

int64_t prepared_bytes(int64_t padded) { return (padded * 4 + 63) / 64 * 64 | 64; }

void prepare_bf16(const void *row, int64_t num_inputs, int64_t padded, void *prepared)
{
    const uint8_t *from = (const uint8_t *)row;
    uint32_t *to = (uint32_t *)prepared;
    for (int64_t i = 0; i < num_inputs; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, 2);
        to[i] = (uint32_t)bits << 16;
    }
    for (int64_t i = num_inputs; i < padded; i++)
        to[i] = 0;
}

void prepare_f32(const void *row, int64_t num_inputs, int64_t, void *prepared)
{
    memcpy(prepared, row, (size_t)num_inputs * 4);
}

__m256 input_at(const uint8_t *row, int64_t at)
{
    return _mm256_broadcast_ss((const float *)(row + at));
}

struct Bf16Weights {
    static constexpr int64_t inputs = 2;
    template <int ROWS>
    static void step(const uint8_t *rows, int64_t stride, const uint8_t *panel, __m256 (*sums)[4])
    {
        const __m256i odd = _mm256_set1_epi32((int)0xffff0000);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            __m256i both = _mm256_loadu_si256((const __m256i *)(panel + 32 * v));
            __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            __m256 second = _mm256_castsi256_ps(_mm256_and_si256(both, odd));
#pragma GCC unroll 3
            for (int r = 0; r < ROWS; r++) {
                sums[r][v] = _mm256_fmadd_ps(first, input_at(rows + r * stride, 0), sums[r][v]);
                sums[r][v] = _mm256_fmadd_ps(second, input_at(rows + r * stride, 4), sums[r][v]);
            }
        }
    }
};

struct F32Weights {
    static constexpr int64_t inputs = 1;
    template <int ROWS>
    static void step(const uint8_t *rows, int64_t stride, const uint8_t *panel, __m256 (*sums)[4])
    {
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            __m256 weights = _mm256_loadu_ps((const float *)(panel + 32 * v));
#pragma GCC unroll 3
            for (int r = 0; r < ROWS; r++)
                sums[r][v] = _mm256_fmadd_ps(weights, input_at(rows + r * stride, 0), sums[r][v]);
        }
    }
};

template <class Weights, int ROWS>
void block(const uint8_t *rows, int64_t stride, const uint8_t *panel, int64_t padded, float *out)
{
    __m256 sums[ROWS][4];
#pragma GCC unroll 3
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
            sums[r][v] = _mm256_setzero_ps();
    for (int64_t at = 0; at < padded; at += Weights::inputs, panel += 128) {
        _mm_prefetch((const char *)panel + PREFETCH, _MM_HINT_T0);
        _mm_prefetch((const char *)panel + PREFETCH + 64, _MM_HINT_T0);
        Weights::template step<ROWS>(rows + 4 * at, stride, panel, sums);
    }
#pragma GCC unroll 3
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
            _mm256_storeu_ps(out + r * PANEL + 8 * v, sums[r][v]);
}

template <class Weights>
void multiply(const uint8_t *rows, int64_t stride, int64_t num_rows, const uint8_t *panel,
              int64_t padded, float *out)
{
    for (; num_rows >= 3; num_rows -= 3, rows += 3 * stride, out += 3 * PANEL)
        block<Weights, 3>(rows, stride, panel, padded, out);
    if (num_rows == 2)
        block<Weights, 2>(rows, stride, panel, padded, out);
    if (num_rows == 1)
        block<Weights, 1>(rows, stride, panel, padded, out);
}

}  // namespace

const Format bf16_avx2 = {
    2, PANEL * 2 * 2, 2, prepared_bytes, prepare_bf16, multiply<Bf16Weights>, false};
const Format f32_avx2 = {1, PANEL * 4, 4, prepared_bytes, prepare_f32, multiply<F32Weights>, true};

}  // namespace kernels
#endif
