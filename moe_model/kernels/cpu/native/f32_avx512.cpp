// float32 weights with AVX-512: panels [inputs][32 outputs]. For the routing matrix.
#include "format.h"
#include "formats_avx512.h"
#if defined(__x86_64__)
#include <string.h>
#pragma GCC target("avx512f,avx512bw,avx512vl")
#include <immintrin.h>

namespace kernels {
namespace {

constexpr int MAX_ROWS = 12;
constexpr int64_t PREFETCH = 4096;

int64_t prepared_bytes(int64_t padded) { return (padded * 4 + 63) / 64 * 64 | 64; }

void prepare(const void *row, int64_t num_inputs, int64_t, void *prepared)
{
    memcpy(prepared, row, (size_t)num_inputs * 4);
}

template <int ROWS>
void block(const uint8_t *rows, int64_t stride, const uint8_t *panel, int64_t padded, float *out)
{
    __m512 sums[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
        sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int64_t at = 0; at < padded * 4; at += 4, panel += 128) {
        __m512 low = _mm512_loadu_ps(panel), high = _mm512_loadu_ps(panel + 64);
        _mm_prefetch((const char *)panel + PREFETCH, _MM_HINT_T0);
        _mm_prefetch((const char *)panel + PREFETCH + 64, _MM_HINT_T0);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            float value;
            memcpy(&value, rows + r * stride + at, 4);
            __m512 input = _mm512_set1_ps(value);
            sums[r][0] = _mm512_fmadd_ps(low, input, sums[r][0]);
            sums[r][1] = _mm512_fmadd_ps(high, input, sums[r][1]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
        _mm512_storeu_ps(out + r * PANEL, sums[r][0]);
        _mm512_storeu_ps(out + r * PANEL + 16, sums[r][1]);
    }
}

using Block = void (*)(const uint8_t *, int64_t, const uint8_t *, int64_t, float *);
constexpr Block blocks[MAX_ROWS + 1] = {nullptr,   block<1>,  block<2>, block<3>, block<4>,
                                        block<5>,  block<6>,  block<7>, block<8>, block<9>,
                                        block<10>, block<11>, block<12>};

void multiply(const uint8_t *rows, int64_t stride, int64_t num_rows, const uint8_t *panel,
              int64_t padded, float *out)
{
    for (int64_t left = (num_rows + MAX_ROWS - 1) / MAX_ROWS; left > 0; left--) {
        int64_t now = (num_rows + left - 1) / left;
        blocks[now](rows, stride, panel, padded, out);
        rows += now * stride;
        out += now * PANEL;
        num_rows -= now;
    }
}

}  // namespace

const Format f32_avx512 = {1, PANEL * 4, 4, prepared_bytes, prepare, multiply, true};

}  // namespace kernels
#endif
