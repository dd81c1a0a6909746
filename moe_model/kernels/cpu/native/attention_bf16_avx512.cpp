// Attention in bfloat16 products with float32 sums (AVX-512 BF16): bfloat16
// queries over bfloat16 or int8 pages, or tiles.
//
// Softmax weights are rounded once to bfloat16, as torch's fused operator does.
// int8 codes are exact in bfloat16.
#include "attention_kernels.h"
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")
#include "attention_avx512.h"
#include "attention_task.h"

namespace kernels {
namespace {

// bfloat16 of 0..127, low and high bytes apart.
struct CodeTable {
    alignas(64) uint8_t low[128], high[128];
    constexpr CodeTable() : low(), high()
    {
        for (int code = 1; code < 128; code++) {
            int exponent = 0;
            while (code >> (exponent + 1))
                exponent++;
            int bits = (127 + exponent) << 7 | ((code << (7 - exponent)) & 127);
            low[code] = (uint8_t)bits;
            high[code] = (uint8_t)(bits >> 8);
        }
    }
};
constexpr CodeTable CODES;

// Where the bytes of two vectors (low bytes, then high ones from 64 on) go.
// `PLAIN`: numbers stay in order, 32 to a vector. `PAIRS`: of every four
// numbers of a lane, two go to the first vector and two to the second.
struct Order {
    alignas(64) uint8_t first[64], second[64];
    constexpr Order(bool pairs) : first(), second()
    {
        for (int i = 0; i < 32; i++) {
            int from = pairs ? i / 2 * 4 + i % 2 : i, to = pairs ? from + 2 : i + 32;
            first[2 * i] = (uint8_t)from;
            first[2 * i + 1] = (uint8_t)(from + 64);
            second[2 * i] = (uint8_t)to;
            second[2 * i + 1] = (uint8_t)(to + 64);
        }
    }
};
constexpr Order PLAIN(false), PAIRS(true);

struct Expanded {
    __m512i first, second;
};

inline Expanded expand(__m512i codes, const Order &order)
{
    __m512i size = _mm512_abs_epi8(codes);
    __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(CODES.low), size,
                                           _mm512_load_si512(CODES.low + 64));
    __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(CODES.high), size,
                                            _mm512_load_si512(CODES.high + 64));
    high = _mm512_or_si512(high, _mm512_and_si512(codes, _mm512_set1_epi8((char)0x80)));
    return {_mm512_permutex2var_epi8(low, _mm512_load_si512(order.first), high),
            _mm512_permutex2var_epi8(low, _mm512_load_si512(order.second), high)};
}

struct Bf16 : Avx512 {
    using Elem = uint16_t;
    using Lanes = __m512i;
    static constexpr int STEP = 2;
    static constexpr bool TILES = true;

    static Lanes lanes(const Elem *at) { return _mm512_loadu_si512(at); }
    static Lanes first_only(Lanes pairs)
    {
        return _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff));
    }
    static Lanes repeat(const Elem *at)
    {
        int32_t pair;
        memcpy(&pair, at, 4);
        return _mm512_set1_epi32(pair);
    }
    static F dot(F sum, Lanes a, Lanes b)
    {
        return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
    }
    static void store_weights(Elem *at, F weights)
    {
        _mm256_store_si256((__m256i *)at, (__m256i)_mm512_cvtneps_pbh(weights));
    }
    static void load_query(Number, const uint8_t *q, int64_t at, int64_t count, Elem *out)
    {
        memcpy(out, q + 2 * at, 2 * count);
    }

    // [dim / 2][KEY_TILE][2]
    static void pack_keys(Number stored, const uint8_t *const *rows, int dim, Elem *panel)
    {
        for (int key = 0; key < KEY_TILE; key += 16, panel += 32)
            if (stored == NUMBER_INT8)
                for (int i = 0; i < dim / 16; i++) {
                    Quads quads = transpose(rows + key, 16 * i);
                    for (int d = 0; d < 4; d++) {
                        Expanded pairs = expand(quads.column[d], PAIRS);
                        Elem *to = panel + (8 * i + 2 * d) * 2 * KEY_TILE;
                        _mm512_store_si512(to, pairs.first);
                        _mm512_store_si512(to + 2 * KEY_TILE, pairs.second);
                    }
                }
            else
                for (int i = 0; i < dim / 8; i++) {
                    Quads quads = transpose(rows + key, 16 * i);
                    for (int d = 0; d < 4; d++)
                        _mm512_store_si512(panel + (4 * i + d) * 2 * KEY_TILE, quads.column[d]);
                }
    }

    // [dim / 64][KEY_TILE / 2][64][2]
    static void pack_values(Number stored, const uint8_t *const *rows, int dim, Elem *panel)
    {
        for (int d = 0; d < (dim + 63) / 64 * 64; d += 32) {
            Elem *to = panel + d / 64 * 64 * KEY_TILE + d % 64 * 2;
            const int count = dim - d < 0 ? 0 : dim - d < 32 ? dim - d : 32;
            for (int key = 0; key < KEY_TILE; key += 2, to += 128) {
                Expanded both = stored == NUMBER_INT8
                                  ? beside_int8(rows[key] + d, rows[key + 1] + d, count)
                                  : beside(rows[key] + 2 * d, rows[key + 1] + 2 * d, count);
                _mm512_store_si512(to, both.first);
                _mm512_store_si512(to + 32, both.second);
            }
        }
    }

    // Two rows of 32 numbers as pairs.
    static Expanded beside(const uint8_t *first, const uint8_t *second, int count)
    {
        const __mmask32 there = count < 32 ? (1u << count) - 1 : ~0u;
        __m512i a = _mm512_maskz_loadu_epi16(there, first),
                b = _mm512_maskz_loadu_epi16(there, second);
        const __m512i low = _mm512_load_si512(INTERLEAVE.first),
                      high = _mm512_load_si512(INTERLEAVE.second);
        return {_mm512_permutex2var_epi16(a, low, b), _mm512_permutex2var_epi16(a, high, b)};
    }
    static Expanded beside_int8(const uint8_t *first, const uint8_t *second, int count)
    {
        const __mmask32 there = count < 32 ? (1u << count) - 1 : ~0u;
        __m256i a = _mm256_maskz_loadu_epi8(there, first),
                b = _mm256_maskz_loadu_epi8(there, second);
        __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
        return expand(_mm512_permutexvar_epi8(_mm512_load_si512(BYTES.at), both), PLAIN);
    }

    struct Interleave {
        alignas(64) uint16_t first[32], second[32];
        constexpr Interleave() : first(), second()
        {
            for (int i = 0; i < 32; i++) {
                first[i] = (uint16_t)(i / 2 + i % 2 * 32);
                second[i] = (uint16_t)(first[i] + 16);
            }
        }
    };
    struct Bytes {
        alignas(64) uint8_t at[64];
        constexpr Bytes() : at()
        {
            for (int i = 0; i < 64; i++)
                at[i] = (uint8_t)(i / 2 + i % 2 * 32);
        }
    };
    static const Interleave INTERLEAVE;
    static const Bytes BYTES;
};
constexpr Bf16::Interleave Bf16::INTERLEAVE;
constexpr Bf16::Bytes Bf16::BYTES;

}  // namespace

const AttentionKernel attention_bf16_avx512 = kernel_of<Bf16>();

}  // namespace kernels
#endif
