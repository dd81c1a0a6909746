// bfloat16 weights with AVX-512 BF16: panels [inputs / 2][32 outputs][2].
#include "format.h"
#include "formats_avx512.h"
#if defined(__x86_64__)
#include <string.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16")
#include <immintrin.h>

namespace kernels {
namespace {

constexpr int MAX_ROWS = 12;        // 24 accumulators, 2 weights: what 32 registers hold
constexpr int FEW_ROWS = 8;         // up to here the hardware's own prefetching does better alone
constexpr int64_t PREFETCH = 4096;  // bytes ahead in the panel: beyond what the hardware looks

// Odd multiples of a cache line: rows one after another then fall into different sets of the cache.
int64_t prepared_bytes(int64_t padded) { return (padded * 2 + 63) / 64 * 64 | 64; }

void prepare(const void *row, int64_t num_inputs, int64_t padded, void *prepared)
{
    memcpy(prepared, row, (size_t)num_inputs * 2);
    memset((uint8_t *)prepared + num_inputs * 2, 0, (size_t)(padded - num_inputs) * 2);
}

// With FETCH, from `ahead` on, `ahead_step` bytes for every pair of inputs are
// brought into the L2 meanwhile.
template <int ROWS, bool FETCH>
void block(const uint8_t *rows, int64_t stride, const uint8_t *panel, int64_t padded, float *out,
           const uint8_t *ahead, int64_t ahead_step)
{
    __m512 sums[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
        sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int64_t at = 0; at < padded * 2; at += 4, panel += 128) {
        __m512bh low = (__m512bh)_mm512_loadu_si512(panel);
        __m512bh high = (__m512bh)_mm512_loadu_si512(panel + 64);
        if (FETCH) {
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
            _mm_prefetch((const char *)ahead + 64, _MM_HINT_T1);
            ahead += ahead_step;
        }
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            int32_t pair;
            memcpy(&pair, rows + r * stride + at, 4);
            __m512bh inputs = (__m512bh)_mm512_set1_epi32(pair);
            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], low, inputs);
            sums[r][1] = _mm512_dpbf16_ps(sums[r][1], high, inputs);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
        _mm512_storeu_ps(out + r * PANEL, sums[r][0]);
        _mm512_storeu_ps(out + r * PANEL + 16, sums[r][1]);
    }
}

using Block = void (*)(const uint8_t *, int64_t, const uint8_t *, int64_t, float *, const uint8_t *,
                       int64_t);
template <bool FETCH>
constexpr Block blocks[MAX_ROWS + 1] = {
    nullptr,          block<1, FETCH>,  block<2, FETCH>, block<3, FETCH>, block<4, FETCH>,
    block<5, FETCH>,  block<6, FETCH>,  block<7, FETCH>, block<8, FETCH>, block<9, FETCH>,
    block<10, FETCH>, block<11, FETCH>, block<12, FETCH>};

void multiply(const uint8_t *rows, int64_t stride, int64_t num_rows, const uint8_t *panel,
              int64_t padded, float *out)
{
    // Blocks of about equal size: 13 rows are 7 and 6, not 12 and 1. The first
    // finds the panel in memory and looks a little ahead; the others find it in
    // the L2, and share in fetching the next one.
    const int64_t panel_bytes = padded * 2 * PANEL,
                  num_blocks = (num_rows + MAX_ROWS - 1) / MAX_ROWS;
    const Block *const sized = num_rows > FEW_ROWS ? blocks<true> : blocks<false>;
    for (int64_t i = 0; i < num_blocks; i++) {
        int64_t now = (num_rows + num_blocks - i - 1) / (num_blocks - i);
        if (i == 0)
            sized[now](rows, stride, panel, padded, out, panel + PREFETCH, 128);
        else
            sized[now](rows, stride, panel, padded, out,
                       panel + panel_bytes + (i - 1) * (panel_bytes / (num_blocks - 1)),
                       128 / (num_blocks - 1));
        rows += now * stride;
        out += now * PANEL;
        num_rows -= now;
    }
}

}  // namespace

const Format bf16_avx512 = {2, PANEL * 2 * 2, 2, prepared_bytes, prepare, multiply, true};

}  // namespace kernels
#endif
