// The operations between the matrix products, in plain loops that the compiler vectorises.
//
// Include it below the `#pragma GCC target` of an ISA file, and nowhere else:
// everything is static, so each instruction set gets its own copy. No fused
// multiply-add (-ffp-contract=off): the same bits on all.
#pragma once
#include <stdint.h>
#include <string.h>

namespace kernels {

static inline float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

// Nearest, ties to even; NaN stays NaN.
static inline uint32_t bf16_bits(float value)
{
    uint32_t bits = to_bits(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}

// exp for |x| up to 104, beyond which the result is 0 or infinity anyway: 2^n * e^r, |r| <= ln(2) /
// 2, e^r by its series to r^7. 2^n in two factors, so that both ends of the range come out right.
static inline float exponential(float x)
{
    x = x < -104.0f ? -104.0f : x;
    x = x > 104.0f ? 104.0f : x;
    const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    float shifted = x * 1.44269504f + shifter;
    float n = shifted - shifter;
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    // n is the low bits of `shifted`; offset so that halving works on unsigned numbers.
    uint32_t biased = to_bits(shifted) - to_bits(shifter) + 256;
    uint32_t half = biased >> 1;
    return p * from_bits((half - 1) << 23) * from_bits((biased - half - 1) << 23);
}

static void activate(const float *gate, const float *up, uint16_t *out, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (uint16_t)bf16_bits(gate[i] / (1.0f + exponential(-gate[i])) * up[i]);
}

static void weigh(float *values, float weight, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = from_bits(bf16_bits(values[i] * weight) << 16);
}

static void to_bf16(const float *values, uint16_t *out, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (uint16_t)bf16_bits(values[i]);
}

static void add(float *sums, const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        sums[i] += values[i];
}

static void add_bf16(float *sums, const uint16_t *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        sums[i] += from_bits((uint32_t)values[i] << 16);
}

// The xor of all words in whole blocks of 128 bytes: the most that a core can read.
static uint64_t read(const uint8_t *data, int64_t size)
{
    typedef uint64_t Words __attribute__((vector_size(32), aligned(8), may_alias));
    Words sums[4] = {};
    for (int64_t at = 0; at + 128 <= size; at += 128)
        for (int i = 0; i < 4; i++)
            sums[i] ^= *(const Words *)(data + at + 32 * i);
    Words all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
    return all[0] ^ all[1] ^ all[2] ^ all[3];
}

}  // namespace kernels
