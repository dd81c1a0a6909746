// int8 weights with AVX-512 VNNI: unsigned weight codes times signed activation codes.
//
// A panel holds, per 128 inputs, float32 scale[32], then code + 128 [32 quads][32 outputs][4].
// Sums within a group are exact integers and groups add up in float32 in ascending order: a row's
// bits depend neither on the other rows nor on the instruction set.
#include "formats_avx512.h"
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni")
#include <immintrin.h>

#include "coded_rows.h"

namespace kernels {
namespace {

constexpr int MAX_ROWS = 8;
constexpr int64_t GROUP_BYTES = PANEL * 4 + CODE_GROUP * PANEL;
constexpr int64_t PREFETCH = 8192;  // bytes ahead in the panel: beyond what the hardware looks

template <int ROWS>
void add_group(const uint8_t *rows, int64_t stride, int64_t padded, int64_t group,
               const uint8_t *panel, float *out)
{
    __m512i low[ROWS], high[ROWS];
    const int8_t *codes[ROWS];
    float scales[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
        CodedRow row(rows + r * stride, padded);
        codes[r] = row.codes + group * CODE_GROUP;
        scales[r] = row.scales[group];
        low[r] = high[r] = _mm512_set1_epi32(row.corrections[group]);
    }
    const uint8_t *at = panel + PANEL * 4;
    for (int64_t input = 0; input < CODE_GROUP; input += 4, at += 128) {
        __m512i low_codes = _mm512_loadu_si512(at), high_codes = _mm512_loadu_si512(at + 64);
        _mm_prefetch((const char *)at + PREFETCH, _MM_HINT_T0);
        _mm_prefetch((const char *)at + PREFETCH + 64, _MM_HINT_T0);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            int32_t quad;
            memcpy(&quad, codes[r] + input, 4);
            __m512i inputs = _mm512_set1_epi32(quad);
            low[r] = _mm512_dpbusd_epi32(low[r], low_codes, inputs);
            high[r] = _mm512_dpbusd_epi32(high[r], high_codes, inputs);
        }
    }
    __m512 low_scale = _mm512_loadu_ps(panel), high_scale = _mm512_loadu_ps(panel + 64);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++, out += PANEL) {
        __m512 scale = _mm512_set1_ps(scales[r]);
        __m512 low_factor = _mm512_mul_ps(low_scale, scale);
        __m512 high_factor = _mm512_mul_ps(high_scale, scale);
        __m512 low_sum = group ? _mm512_loadu_ps(out) : _mm512_setzero_ps();
        __m512 high_sum = group ? _mm512_loadu_ps(out + 16) : _mm512_setzero_ps();
        _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(low[r]), low_factor, low_sum));
        _mm512_storeu_ps(out + 16,
                         _mm512_fmadd_ps(_mm512_cvtepi32_ps(high[r]), high_factor, high_sum));
    }
}

using AddGroup = void (*)(const uint8_t *, int64_t, int64_t, int64_t, const uint8_t *, float *);
constexpr AddGroup add_groups[MAX_ROWS + 1] = {nullptr,      add_group<1>, add_group<2>,
                                               add_group<3>, add_group<4>, add_group<5>,
                                               add_group<6>, add_group<7>, add_group<8>};

void multiply(const uint8_t *rows, int64_t stride, int64_t num_rows, const uint8_t *panel,
              int64_t padded, float *out)
{
    for (int64_t group = 0; group < padded / CODE_GROUP; group++, panel += GROUP_BYTES)
        each_row_block<MAX_ROWS>(num_rows, [&](int64_t first, int64_t now) {
            add_groups[now](rows + first * stride, stride, padded, group, panel,
                            out + first * PANEL);
        });
}

}  // namespace

const Format int8_avx512 = {
    CODE_GROUP, GROUP_BYTES, 2, coded_bytes<CODE_GROUP>, code_row<CODE_GROUP, 128>,
    multiply,   false};

}  // namespace kernels
#endif
