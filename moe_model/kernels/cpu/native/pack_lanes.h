// What do the packers share? A tile: inputs one after another, of each the
// numbers of a panel's outputs.
#pragma once
#include <stdint.h>
#include <string.h>

#include "format.h"

namespace kernels {

constexpr int64_t BATCH = 128;               // inputs of a tile, at most
constexpr float ROUNDER = 0x1.8p23f;         // added and taken off: rounds to nearest, ties to even
constexpr float LEAST_MAGNITUDE = 0x1p-96f;  // a group of smaller numbers only is zeros

using Lanes = float[PANEL];

inline uint32_t bf16_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

// Codes and scales of `group` inputs, finite numbers up to 2^96; returns the end of what it wrote.
uint8_t *pack_int4(const Lanes *tile, int64_t group, uint8_t *out);

}  // namespace kernels
