// FP8 weights with AVX-512 VBMI and BF16: E4M3 codes become bfloat16 by two table look-ups.
//
// A panel holds, per 128 inputs, float32 scale[32], then codes [64 pairs][64
// bytes]. Every E4M3 number, subnormal ones too, is a normal bfloat16 number.
// Interleaving the look-ups' low and high bytes works within 16-byte lanes, so
// lane l of a pair holds outputs 4l..4l+3, then 16+4l..16+4l+3, two inputs each.
#include "formats_avx512.h"
#if defined(__x86_64__)
#include <string.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512bf16")
#include <immintrin.h>

#include "coded_rows.h"

namespace kernels {
namespace {

constexpr int64_t GROUP = 128;
constexpr int64_t GROUP_BYTES = PANEL * 4 + GROUP * PANEL;
constexpr int64_t PREFETCH = 8192;  // bytes ahead in the panel: beyond what the hardware looks
constexpr int MAX_ROWS = 8;

// High and low byte of the bfloat16 number of each E4M3 code without its sign.
struct Tables {
    alignas(64) uint8_t high[128], low[128];

    constexpr Tables() : high(), low()
    {
        for (int code = 0; code < 128; code++) {
            int exponent = code >> 3, mantissa = code & 7,
                bits = (exponent + 120) << 7 | mantissa << 4;
            if (exponent == 0) {  // mantissa * 2^-9
                bits = 0;
                for (int top = 0; top < 3; top++)
                    if (mantissa >> top == 1)
                        bits = (118 + top) << 7 | (mantissa << (7 - top) & 0x7F);
            }
            high[code] = (uint8_t)(bits >> 8);
            low[code] = (uint8_t)bits;
        }
    }
};
constexpr Tables tables;

struct Expander {
    __m512i high0, high1, low0, low1, sign;

    Expander()  // spelled out: an implicit one would not get this file's instruction set
    {
        high0 = _mm512_loadu_si512(tables.high);
        high1 = _mm512_loadu_si512(tables.high + 64);
        low0 = _mm512_loadu_si512(tables.low);
        low1 = _mm512_loadu_si512(tables.low + 64);
        sign = _mm512_set1_epi8((char)0x80);
    }

    void operator()(const uint8_t *at, __m512i &first, __m512i &second) const
    {
        __m512i codes = _mm512_loadu_si512(at);
        _mm_prefetch((const char *)at + PREFETCH, _MM_HINT_T0);
        __m512i high = _mm512_permutex2var_epi8(high0, codes, high1);
        __m512i low = _mm512_permutex2var_epi8(low0, codes, low1);
        high = _mm512_ternarylogic_epi32(high, codes, sign, 0xF8);  // high | (codes & sign)
        first = _mm512_unpacklo_epi8(low, high);
        second = _mm512_unpackhi_epi8(low, high);
    }
};

template <int ROWS>
void add_group(const uint8_t *rows, int64_t stride, bool is_first, const uint8_t *panel, float *out)
{
    Expander expand;
    __m512 low[ROWS], high[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
        low[r] = high[r] = _mm512_setzero_ps();
#pragma GCC unroll 2
    for (int pair = 0; pair < GROUP / 2; pair++) {
        __m512i first, second;
        expand(panel + PANEL * 4 + pair * 64, first, second);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            int32_t two;
            memcpy(&two, rows + r * stride + pair * 4, 4);
            __m512bh inputs = (__m512bh)_mm512_set1_epi32(two);
            low[r] = _mm512_dpbf16_ps(low[r], (__m512bh)first, inputs);
            high[r] = _mm512_dpbf16_ps(high[r], (__m512bh)second, inputs);
        }
    }
    __m512 low_scale = _mm512_loadu_ps(panel), high_scale = _mm512_loadu_ps(panel + 64);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++, out += PANEL) {
        __m512 low_before = is_first ? _mm512_setzero_ps() : _mm512_loadu_ps(out);
        __m512 high_before = is_first ? _mm512_setzero_ps() : _mm512_loadu_ps(out + 16);
        _mm512_storeu_ps(out, _mm512_fmadd_ps(low[r], low_scale, low_before));
        _mm512_storeu_ps(out + 16, _mm512_fmadd_ps(high[r], high_scale, high_before));
    }
}

using AddGroup = void (*)(const uint8_t *, int64_t, bool, const uint8_t *, float *);
constexpr AddGroup add_groups[MAX_ROWS + 1] = {nullptr,      add_group<1>, add_group<2>,
                                               add_group<3>, add_group<4>, add_group<5>,
                                               add_group<6>, add_group<7>, add_group<8>};

// Each row block expands the group anew: that hides behind the products, and
// keeping it does not pay.
void multiply(const uint8_t *rows, int64_t stride, int64_t num_rows, const uint8_t *panel,
              int64_t padded, float *out)
{
    for (int64_t at = 0; at < padded; at += GROUP, rows += GROUP * 2, panel += GROUP_BYTES)
        each_row_block<MAX_ROWS>(num_rows, [&](int64_t first, int64_t now) {
            add_groups[now](rows + first * stride, stride, at == 0, panel, out + first * PANEL);
        });
}

int64_t prepared_bytes(int64_t padded) { return (padded * 2 + 63) / 64 * 64 | 64; }

void prepare(const void *row, int64_t num_inputs, int64_t padded, void *prepared)
{
    memcpy(prepared, row, (size_t)num_inputs * 2);
    memset((uint8_t *)prepared + num_inputs * 2, 0, (size_t)(padded - num_inputs) * 2);
}

}  // namespace

const Format fp8_avx512 = {GROUP, GROUP_BYTES, 2, prepared_bytes, prepare, multiply, true};

}  // namespace kernels
#endif
