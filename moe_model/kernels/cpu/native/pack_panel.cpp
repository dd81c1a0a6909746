// One panel at a time, 128 inputs at a time, transposed so that neighbouring
// lanes are neighbouring outputs: sums then run over the inputs in ascending
// order, as in formats.py, on any vector length.
#include "pack_panel.h"

#include <string.h>

#include "pack_lanes.h"

#if defined(__x86_64__)
#pragma GCC target("avx2")
#endif

namespace kernels {
namespace {

constexpr float MOST_MAGNITUDE = 0x1p96f;

inline float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline uint32_t as_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

inline float rounded(float value) { return (value + ROUNDER) - ROUNDER; }

// E4M3 without NaN: exponent 0 is subnormal, a multiple of 2^-9. Without a branch, so that
// loops of it become vectors: with one, a third of the time of packing was mispredicted.
inline float e4m3(uint8_t code)
{
    const uint32_t magnitude = (uint32_t)(code & 0x7F) << 20;
    const float subnormal = as_float(magnitude + (121u << 23)) - 0x1p-6f;
    const uint32_t is_normal = 0u - (uint32_t)((code & 0x78) != 0);
    const uint32_t bits =
        ((magnitude + (120u << 23)) & is_normal) | (as_bits(subnormal) & ~is_normal);
    return as_float(bits | (uint32_t)(code & 0x80) << 24);
}

void load_row(const PackSource &source, int64_t output, int64_t at, int64_t count, float *row)
{
    const int64_t first = output * source.num_inputs + at;
    if (source.kind == SOURCE_F32) {
        memcpy(row, source.values + first * 4, (size_t)count * 4);
    } else if (source.kind == SOURCE_BF16) {
        uint16_t bits[BATCH];
        memcpy(bits, source.values + first * 2, (size_t)count * 2);
        for (int64_t i = 0; i < count; i++)
            row[i] = as_float((uint32_t)bits[i] << 16);
    } else {
        const int64_t blocks = (source.num_inputs + source.block_inputs - 1) / source.block_inputs;
        const float *scales = source.scales + output / source.block_outputs * blocks;
        const uint8_t *codes = source.values + first;
        for (int64_t i = 0; i < count;) {
            int64_t block = (at + i) / source.block_inputs;
            int64_t end = (block + 1) * source.block_inputs - at;
            end = end < count ? end : count;
            const float scale = scales[block];
            for (; i < end; i++)
                row[i] = e4m3(codes[i]) * scale;
        }
    }
}

void load_tile(const PackSource &source, int64_t panel, int64_t at, Lanes *tile)
{
    int64_t left = source.num_inputs - at, count = left < BATCH ? left : BATCH;
    for (int64_t lane = 0; lane < PANEL; lane++) {
        float row[BATCH] = {};
        if (panel * PANEL + lane < source.num_outputs)
            load_row(source, panel * PANEL + lane, at, count, row);
        for (int64_t i = 0; i < BATCH; i++)
            tile[i][lane] = row[i];
    }
}

// Each output's largest and least number of a group.
void extremes(const Lanes *tile, int64_t count, float *top, float *bottom)
{
    for (int o = 0; o < PANEL; o++)
        top[o] = bottom[o] = 0.0f;
    for (int64_t i = 0; i < count; i++)
        for (int o = 0; o < PANEL; o++) {
            top[o] = tile[i][o] > top[o] ? tile[i][o] : top[o];
            bottom[o] = tile[i][o] < bottom[o] ? tile[i][o] : bottom[o];
        }
}

uint8_t *put_int8(const Lanes *tile, uint8_t *out)
{
    Lanes top, bottom, inverse, scales;
    extremes(tile, BATCH, top, bottom);
    for (int o = 0; o < PANEL; o++) {
        float largest = top[o] > -bottom[o] ? top[o] : -bottom[o];
        bool kept = largest >= LEAST_MAGNITUDE;
        inverse[o] = kept ? 127.0f / largest : 0.0f;
        scales[o] = kept ? largest / 127.0f : 0.0f;
    }
    memcpy(out, scales, sizeof scales);
    out += sizeof scales;
    for (int64_t i = 0; i < BATCH; i += 4, out += PANEL * 4) {
        uint32_t words[PANEL];
        for (int o = 0; o < PANEL; o++) {
            uint32_t word = 0;
            for (int j = 0; j < 4; j++)
                word |= (uint32_t)((int32_t)rounded(tile[i + j][o] * inverse[o]) + 128) << 8 * j;
            words[o] = word;
        }
        memcpy(out, words, sizeof words);
    }
    return out;
}

uint8_t *put_bf16(const Lanes *tile, int64_t count, uint8_t *out)
{
    for (int64_t i = 0; i < count; i += 2, out += PANEL * 4) {
        uint32_t words[PANEL];
        for (int o = 0; o < PANEL; o++)
            words[o] = bf16_bits(tile[i][o]) | bf16_bits(tile[i + 1][o]) << 16;
        memcpy(out, words, sizeof words);
    }
    return out;
}

// Codes and scales as they are.
uint8_t *put_fp8(const PackSource &source, int64_t panel, int64_t at, uint8_t *out)
{
    const int64_t blocks = (source.num_inputs + source.block_inputs - 1) / source.block_inputs;
    int64_t left = source.num_inputs - at, count = left < BATCH ? left : BATCH;
    float scales[PANEL] = {};
    uint8_t codes[PANEL][BATCH] = {};
    for (int64_t lane = 0; lane < PANEL; lane++) {
        int64_t output = panel * PANEL + lane;
        if (output >= source.num_outputs)
            continue;
        scales[lane] =
            source.scales[output / source.block_outputs * blocks + at / source.block_inputs];
        memcpy(codes[lane], source.values + output * source.num_inputs + at, (size_t)count);
    }
    memcpy(out, scales, sizeof scales);
    out += sizeof scales;
    for (int64_t i = 0; i < BATCH; i += 2)
        for (int64_t lane = 0; lane < 4; lane++)
            for (int64_t half = 0; half < 2; half++)
                for (int64_t o = 0; o < 4; o++, out += 2)
                    memcpy(out, &codes[16 * half + 4 * lane + o][i], 2);
    return out;
}

}  // namespace

bool pack_panel(FormatId format, const PackSource &source, int64_t panel, uint8_t *out)
{
    const bool is_integer = format == INT8 || format == INT4 || format == INT4_G128;
    const uint32_t most = as_bits(is_integer ? MOST_MAGNITUDE : __FLT_MAX__);
    for (int64_t at = 0; at < source.num_inputs; at += BATCH) {
        if (format == FP8) {
            out = put_fp8(source, panel, at, out);
            continue;
        }
        Lanes tile[BATCH];
        load_tile(source, panel, at, tile);
        uint32_t too_large = 0;  // as integers: a NaN's magnitude is larger than any number's
        for (int64_t i = 0; i < BATCH; i++)
            for (int o = 0; o < PANEL; o++)
                too_large |= (as_bits(tile[i][o]) & 0x7FFFFFFF) > most;
        if (too_large)
            return false;
        const int64_t left = source.num_inputs - at, count = left < BATCH ? left : BATCH;
        if (format == INT8)
            out = put_int8(tile, out);
        else if (format == INT4_G128)
            out = pack_int4(tile, BATCH, out);
        else if (format == INT4)
            for (int64_t i = 0; i < count; i += 32)
                out = pack_int4(tile + i, 32, out);
        else if (format == BF16)
            out = put_bf16(tile, count, out);
        else
            memcpy(out, tile, (size_t)count * sizeof(Lanes)), out += count * (int64_t)sizeof(Lanes);
    }
    return true;
}

}  // namespace kernels
