// int8 and int4 weights with AVX2. Panels as in int8_avx512.cpp and int4_avx512.cpp, rows as there.
//
// Products of bytes are added in pairs of 16 bits, which must not overflow: int8 weights take their
// sign over to the input (127 * 127 * 2 fits), nibbles are small (8 pairs of 15 * 127 * 2 fit).
// The integers and the order of the float32 sums are those of AVX-512, so the bits are too.
#include "formats_avx2.h"
#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#include <immintrin.h>

#include "coded_rows.h"

namespace kernels {
namespace {

constexpr int MAX_ROWS = 2;
constexpr int64_t PREFETCH = 4096;

inline __m256i quad_at(const int8_t *codes)
{
    int32_t quad;
    memcpy(&quad, codes, 4);
    return _mm256_set1_epi32(quad);
}

inline __m256i load(const uint8_t *at) { return _mm256_loadu_si256((const __m256i *)at); }

inline void prefetch(const uint8_t *at) { _mm_prefetch((const char *)at + PREFETCH, _MM_HINT_T0); }

// before + sum * factor: the sum of a group, exact until here.
inline __m256 add_scaled(__m256i sum, __m256 factor, __m256 before)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), factor, before);
}

template <int ROWS>
void add_int8(const uint8_t *rows, int64_t stride, int64_t padded, int64_t group,
              const uint8_t *panel, float *out)
{
    const __m256i ones = _mm256_set1_epi16(1), offset = _mm256_set1_epi8((char)0x80);
    __m256i sums[ROWS][4];
    CodedRow coded[ROWS];
#pragma GCC unroll 2
    for (int r = 0; r < ROWS; r++) {
        coded[r] = CodedRow(rows + r * stride, padded);
        for (int v = 0; v < 4; v++)
            sums[r][v] = _mm256_setzero_si256();
    }
    const uint8_t *at = panel + PANEL * 4;
    for (int64_t input = 0; input < CODE_GROUP; input += 4) {
        prefetch(at);
        prefetch(at + 64);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++, at += 32) {
            __m256i weights = _mm256_xor_si256(load(at), offset);
            __m256i magnitudes = _mm256_abs_epi8(weights);
#pragma GCC unroll 2
            for (int r = 0; r < ROWS; r++) {
                __m256i inputs = quad_at(coded[r].codes + group * CODE_GROUP + input);
                inputs = _mm256_sign_epi8(inputs, weights);
                __m256i pairs = _mm256_maddubs_epi16(magnitudes, inputs);
                sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    for (int r = 0; r < ROWS; r++, out += PANEL)
        for (int v = 0; v < 4; v++) {
            __m256 scale = _mm256_loadu_ps((const float *)panel + 8 * v);
            __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(coded[r].scales[group]));
            __m256 before = group ? _mm256_loadu_ps(out + 8 * v) : _mm256_setzero_ps();
            _mm256_storeu_ps(out + 8 * v, add_scaled(sums[r][v], factor, before));
        }
}

void multiply_int8(const uint8_t *rows, int64_t stride, int64_t num_rows, const uint8_t *panel,
                   int64_t padded, float *out)
{
    constexpr int64_t GROUP_BYTES = PANEL * 4 + CODE_GROUP * PANEL;
    for (int64_t group = 0; group < padded / CODE_GROUP; group++, panel += GROUP_BYTES)
        each_row_block<MAX_ROWS>(num_rows, [&](int64_t first, int64_t now) {
            (now == 2 ? add_int8<2> : add_int8<1>)(rows + first * stride, stride, padded, group,
                                                   panel, out + first * PANEL);
        });
}

// One row; `out` gets 128 inputs' sums of weight groups, times the row's scale.
template <int64_t WEIGHT_GROUP>
void add_int4(const CodedRow &row, int64_t padded, int64_t block, const uint8_t *panel, float *out)
{
    constexpr int64_t GROUPS = CODE_GROUP / WEIGHT_GROUP;
    const int64_t left = padded / WEIGHT_GROUP - block * GROUPS,
                  groups = left < GROUPS ? left : GROUPS;
    const __m256i ones = _mm256_set1_epi16(1), nibble = _mm256_set1_epi8(0x0F);
    const int8_t *codes = row.codes + block * CODE_GROUP;
    __m256 totals[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                        _mm256_setzero_ps()};
    for (int64_t group = 0; group < groups; group++) {
        const uint8_t *scales = panel;
        prefetch(panel);
        panel += PANEL * 2;
        __m256i sums[4];
        for (int v = 0; v < 4; v++)
            sums[v] = _mm256_set1_epi32(row.corrections[block * GROUPS + group]);
        for (int64_t part = 0; part < WEIGHT_GROUP; part += 32) {
            __m256i pairs[4];
            for (int v = 0; v < 4; v++)
                pairs[v] = _mm256_setzero_si256();
#pragma GCC unroll 8
            for (int64_t input = 0; input < 32; input += 4, codes += 4, panel += 64) {
                __m256i inputs = quad_at(codes);
                prefetch(panel);
#pragma GCC unroll 2
                for (int v = 0; v < 2; v++) {  // low nibbles: outputs 8v.., high ones: 16 + 8v..
                    __m256i both = load(panel + 32 * v);
                    __m256i low = _mm256_and_si256(both, nibble);
                    __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
                    pairs[v] = _mm256_add_epi16(pairs[v], _mm256_maddubs_epi16(low, inputs));
                    pairs[v + 2] =
                        _mm256_add_epi16(pairs[v + 2], _mm256_maddubs_epi16(high, inputs));
                }
            }
            for (int v = 0; v < 4; v++)
                sums[v] = _mm256_add_epi32(sums[v], _mm256_madd_epi16(pairs[v], ones));
        }
        for (int v = 0; v < 4; v++) {
            __m128i bf16 = _mm_loadu_si128((const __m128i *)(scales + 16 * v));
            __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16);
            totals[v] = add_scaled(sums[v], _mm256_castsi256_ps(bits), totals[v]);
        }
    }
    __m256 scale = _mm256_set1_ps(row.scales[block]);
    for (int v = 0; v < 4; v++) {
        __m256 before = block ? _mm256_loadu_ps(out + 8 * v) : _mm256_setzero_ps();
        _mm256_storeu_ps(out + 8 * v, _mm256_fmadd_ps(totals[v], scale, before));
    }
}

template <int64_t WEIGHT_GROUP>
constexpr int64_t int4_bytes = PANEL * 2 + WEIGHT_GROUP * PANEL / 2;

template <int64_t WEIGHT_GROUP>
void multiply_int4(const uint8_t *rows, int64_t stride, int64_t num_rows, const uint8_t *panel,
                   int64_t padded, float *out)
{
    constexpr int64_t BLOCK_BYTES = CODE_GROUP / WEIGHT_GROUP * int4_bytes<WEIGHT_GROUP>;
    for (int64_t block = 0; block < num_scales(padded); block++, panel += BLOCK_BYTES)
        for (int64_t r = 0; r < num_rows; r++)
            add_int4<WEIGHT_GROUP>(CodedRow(rows + r * stride, padded), padded, block, panel,
                                   out + r * PANEL);
}

}  // namespace

const Format int8_avx2 = {CODE_GROUP,
                          PANEL * (4 + CODE_GROUP),
                          2,
                          coded_bytes<CODE_GROUP>,
                          code_row<CODE_GROUP, 0>,
                          multiply_int8,
                          false};
const Format int4_avx2 = {
    32, int4_bytes<32>, 2, coded_bytes<32>, code_row<32, 8>, multiply_int4<32>, false};
const Format int4_g128_avx2 = {
    128, int4_bytes<128>, 2, coded_bytes<128>, code_row<128, 8>, multiply_int4<128>, false};

}  // namespace kernels
#endif
