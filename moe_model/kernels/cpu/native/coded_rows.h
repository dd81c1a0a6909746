// How do rows of activations become signed codes for the int8 and int4 panels?
//
// Dynamic symmetric int8: each 128 numbers of a row share one scale, their largest
// magnitude over 127, so a row's codes depend on nothing but the row. A prepared row is
// int8 codes [K], float32 scales of 128 codes each (the last of what is left), int32
// corrections [K / weight group]. A correction is minus the sum of a group's codes
// times the weights' offset: unsigned weight codes then multiply like signed ones.
#pragma once
#include <string.h>

#include "format.h"

namespace kernels {
namespace {

constexpr int64_t CODE_GROUP = 128;
constexpr float LEAST_MAGNITUDE = 0x1p-96f;  // a group of smaller numbers only is zeros
constexpr float ROUNDER = 0x1.8p23f;         // added and taken off: rounds to nearest, ties to even

inline int64_t num_scales(int64_t padded) { return (padded + CODE_GROUP - 1) / CODE_GROUP; }

struct CodedRow {
    const int8_t *codes;
    const float *scales;
    const int32_t *corrections;

    CodedRow() = default;
    CodedRow(const uint8_t *prepared, int64_t padded)
        : codes((const int8_t *)prepared), scales((const float *)(prepared + padded)),
          corrections((const int32_t *)(prepared + padded + num_scales(padded) * 4))
    {
    }
};

// Odd multiples of a cache line: rows one after another then fall into different sets of the cache.
template <int64_t WEIGHT_GROUP> int64_t coded_bytes(int64_t padded)
{
    int64_t bytes = padded + num_scales(padded) * 4 + padded / WEIGHT_GROUP * 4;
    return (bytes + 63) / 64 * 64 | 64;
}

// Codes of 128 bfloat16 numbers; returns their scale. Numbers that are not finite make it a NaN,
// which the products then carry to every output.
inline float code_group(const uint16_t *numbers, int8_t *codes)
{
    uint16_t largest = 0;
    for (int i = 0; i < CODE_GROUP; i++) {
        uint16_t magnitude = numbers[i] & 0x7FFF;
        largest = largest > magnitude ? largest : magnitude;
    }
    float values[CODE_GROUP], magnitude;
    uint32_t bits = (uint32_t)largest << 16;
    memcpy(&magnitude, &bits, 4);
    if (largest >= 0x7F80 || magnitude < LEAST_MAGNITUDE) {
        memset(codes, 0, CODE_GROUP);
        return largest >= 0x7F80 ? __builtin_nanf("") : 0.0f;
    }
    float inverse = 127.0f / magnitude;
    for (int i = 0; i < CODE_GROUP; i++) {
        uint32_t wide = (uint32_t)numbers[i] << 16;
        memcpy(&values[i], &wide, 4);
    }
    for (int i = 0; i < CODE_GROUP; i++)
        codes[i] = (int8_t)(int32_t)((values[i] * inverse + ROUNDER) - ROUNDER);
    return magnitude / 127.0f;
}

template <int64_t WEIGHT_GROUP, int OFFSET>
void code_row(const void *row, int64_t num_inputs, int64_t padded, void *prepared)
{
    int8_t *codes = (int8_t *)prepared;
    float *scales = (float *)(codes + padded);
    int32_t *corrections = (int32_t *)(scales + num_scales(padded));
    for (int64_t at = 0; at < padded; at += CODE_GROUP) {
        uint16_t numbers[CODE_GROUP] = {};
        int8_t coded[CODE_GROUP];
        int64_t given = num_inputs - at < CODE_GROUP ? num_inputs - at : CODE_GROUP;
        int64_t kept = padded - at < CODE_GROUP ? padded - at : CODE_GROUP;
        memcpy(numbers, (const uint8_t *)row + at * 2, (size_t)given * 2);
        *scales++ = code_group(numbers, coded);
        memcpy(codes + at, coded, (size_t)kept);
        for (int64_t group = 0; group < kept; group += WEIGHT_GROUP) {
            int32_t sum = 0;
            for (int64_t i = 0; i < WEIGHT_GROUP; i++)
                sum += coded[group + i];
            *corrections++ = -OFFSET * sum;
        }
    }
}

// All row blocks of at most MAX_ROWS rows of about equal size, for one group of inputs.
template <int64_t MAX_ROWS, class Add>
inline void each_row_block(int64_t num_rows, const Add &add)
{
    int64_t first = 0;
    for (int64_t left = (num_rows + MAX_ROWS - 1) / MAX_ROWS; left > 0; left--) {
        int64_t now = (num_rows - first + left - 1) / left;
        add(first, now);
        first += now;
    }
}

}  // namespace
}  // namespace kernels
