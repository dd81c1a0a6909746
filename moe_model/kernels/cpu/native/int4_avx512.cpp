// int4 weights with AVX-512 VNNI: nibbles spread to bytes, times signed activation codes.
//
// A panel holds, per weight group of 32 or 128 inputs, bf16 scale[32], then value + 8 as nibbles
// [quads][16 outputs][4]: low ones for outputs 0..15, high ones for outputs 16..31. Groups add up
// in float32, first those that share an activation scale (128 inputs), in ascending order.
#include "formats_avx512.h"
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni")
#include <immintrin.h>

#include "coded_rows.h"

namespace kernels {
namespace {

constexpr int MAX_ROWS = 6;
constexpr int64_t PREFETCH = 6144;  // bytes ahead in the panel: beyond what the hardware looks

template <int64_t WEIGHT_GROUP>
constexpr int64_t group_bytes = PANEL * 2 + WEIGHT_GROUP * PANEL / 2;

inline __m512 widen(const uint8_t *bf16)
{
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)bf16));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

template <int64_t WEIGHT_GROUP, int ROWS>
void add_block(const uint8_t *rows, int64_t stride, int64_t padded, int64_t block,
               const uint8_t *panel, float *out)
{
    constexpr int64_t GROUPS = CODE_GROUP / WEIGHT_GROUP;
    const int64_t left = padded / WEIGHT_GROUP - block * GROUPS,
                  groups = left < GROUPS ? left : GROUPS;
    const __m512i nibble = _mm512_set1_epi8(0x0F);
    __m512 low_sums[ROWS], high_sums[ROWS];
    CodedRow coded[ROWS];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
        coded[r] = CodedRow(rows + r * stride, padded);
        coded[r].codes += block * CODE_GROUP;
        coded[r].corrections += block * GROUPS;
        low_sums[r] = high_sums[r] = _mm512_setzero_ps();
    }
    for (int64_t group = 0; group < groups; group++) {
        const uint8_t *scales = panel;
        _mm_prefetch((const char *)panel + PREFETCH, _MM_HINT_T0);
        panel += PANEL * 2;
        __m512i low[ROWS], high[ROWS];
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++)
            low[r] = high[r] = _mm512_set1_epi32(coded[r].corrections[group]);
#pragma GCC unroll 4
        for (int64_t input = 0; input < WEIGHT_GROUP; input += 4, panel += 64) {
            __m512i both = _mm512_loadu_si512(panel);
            _mm_prefetch((const char *)panel + PREFETCH, _MM_HINT_T0);
            __m512i low_codes = _mm512_and_si512(both, nibble);
            __m512i high_codes = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
#pragma GCC unroll 6
            for (int r = 0; r < ROWS; r++) {
                int32_t quad;
                memcpy(&quad, coded[r].codes + group * WEIGHT_GROUP + input, 4);
                __m512i inputs = _mm512_set1_epi32(quad);
                low[r] = _mm512_dpbusd_epi32(low[r], low_codes, inputs);
                high[r] = _mm512_dpbusd_epi32(high[r], high_codes, inputs);
            }
        }
        __m512 low_scale = widen(scales), high_scale = widen(scales + 32);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            low_sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(low[r]), low_scale, low_sums[r]);
            high_sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high[r]), high_scale, high_sums[r]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++, out += PANEL) {
        __m512 scale = _mm512_set1_ps(coded[r].scales[block]);
        __m512 low_before = block ? _mm512_loadu_ps(out) : _mm512_setzero_ps();
        __m512 high_before = block ? _mm512_loadu_ps(out + 16) : _mm512_setzero_ps();
        _mm512_storeu_ps(out, _mm512_fmadd_ps(low_sums[r], scale, low_before));
        _mm512_storeu_ps(out + 16, _mm512_fmadd_ps(high_sums[r], scale, high_before));
    }
}

using AddBlock = void (*)(const uint8_t *, int64_t, int64_t, int64_t, const uint8_t *, float *);

template <int64_t WEIGHT_GROUP>
void multiply(const uint8_t *rows, int64_t stride, int64_t num_rows, const uint8_t *panel,
              int64_t padded, float *out)
{
    constexpr AddBlock add_blocks[MAX_ROWS + 1] = {nullptr,
                                                   add_block<WEIGHT_GROUP, 1>,
                                                   add_block<WEIGHT_GROUP, 2>,
                                                   add_block<WEIGHT_GROUP, 3>,
                                                   add_block<WEIGHT_GROUP, 4>,
                                                   add_block<WEIGHT_GROUP, 5>,
                                                   add_block<WEIGHT_GROUP, 6>};
    constexpr int64_t BLOCK_BYTES = CODE_GROUP / WEIGHT_GROUP * group_bytes<WEIGHT_GROUP>;
    for (int64_t block = 0; block < num_scales(padded); block++, panel += BLOCK_BYTES)
        each_row_block<MAX_ROWS>(num_rows, [&](int64_t first, int64_t now) {
            add_blocks[now](rows + first * stride, stride, padded, block, panel,
                            out + first * PANEL);
        });
}

}  // namespace

const Format int4_avx512 = {
    32, group_bytes<32>, 2, coded_bytes<32>, code_row<32, 8>, multiply<32>, false};
const Format int4_g128_avx512 = {
    128, group_bytes<128>, 2, coded_bytes<128>, code_row<128, 8>, multiply<128>, false};

}  // namespace kernels
#endif
