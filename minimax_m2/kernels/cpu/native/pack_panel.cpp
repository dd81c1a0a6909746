// One panel at a time, 128 inputs at a time, transposed so that neighbouring lanes are neighbouring
// outputs: sums then run over the inputs in ascending order, as in formats.py, on any vector length.
#include "pack_panel.h"

#include <string.h>

#if defined(__x86_64__)
#pragma GCC target("avx2")
#endif

namespace kernels {
namespace {

constexpr int64_t BATCH = 128;
constexpr float ROUNDER = 0x1.8p23f;  // added and taken off: rounds to nearest, ties to even
constexpr float LEAST_MAGNITUDE = 0x1p-96f, MOST_MAGNITUDE = 0x1p96f;
constexpr float REACHES[] = {6.8f, 7.1f, 7.4f, 7.7f, 8.0f, 8.3f, 8.6f, 8.9f};

using Lanes = float[PANEL];

inline float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline uint32_t bf16_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

inline float rounded(float value) { return (value + ROUNDER) - ROUNDER; }

// E4M3 without NaN: exponent 0 is subnormal, a multiple of 2^-9.
inline float e4m3(uint8_t code)
{
    uint32_t magnitude = (uint32_t)(code & 0x7F) << 20;
    float normal = as_float(magnitude + (120u << 23));
    float subnormal = as_float(magnitude + (121u << 23)) - 0x1p-6f;
    float value = (code & 0x78) ? normal : subnormal;
    return (code & 0x80) ? -value : value;
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
            for (; i < end; i++)
                row[i] = e4m3(codes[i]) * scales[block];
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

inline float int4_code(float unit, float factor)
{
    float code = rounded(unit * factor);
    code = code < -8.0f ? -8.0f : code;
    return code > 7.0f ? 7.0f : code;
}

uint8_t *put_int4(const Lanes *tile, int64_t group, uint8_t *out)
{
    Lanes top, bottom, inverse, largest, sign, best_gain, best_factor, best_scale;
    extremes(tile, group, top, bottom);
    for (int o = 0; o < PANEL; o++) {
        largest[o] = top[o] >= -bottom[o] ? top[o] : -bottom[o];
        sign[o] = top[o] >= -bottom[o] ? -1.0f : 1.0f;
        inverse[o] = largest[o] >= LEAST_MAGNITUDE ? 1.0f / largest[o] : 0.0f;
        best_gain[o] = -1.0f;
        best_factor[o] = best_scale[o] = 0.0f;
    }
    Lanes units[BATCH];
    for (int64_t i = 0; i < group; i++)
        for (int o = 0; o < PANEL; o++)
            units[i][o] = tile[i][o] * inverse[o];
    for (float reach : REACHES) {
        Lanes factor, cross = {}, square = {};
        for (int o = 0; o < PANEL; o++)
            factor[o] = sign[o] * reach;
        for (int64_t i = 0; i < group; i++)
            for (int o = 0; o < PANEL; o++) {
                float code = int4_code(units[i][o], factor[o]);
                cross[o] += units[i][o] * code;
                square[o] += code * code;
            }
        for (int o = 0; o < PANEL; o++) {
            float scale = inverse[o] > 0.0f ? cross[o] / square[o] : 0.0f, gain = scale * cross[o];
            bool better = gain > best_gain[o];
            best_gain[o] = better ? gain : best_gain[o];
            best_factor[o] = better ? factor[o] : best_factor[o];
            best_scale[o] = better ? scale : best_scale[o];
        }
    }
    uint16_t scales[PANEL];
    for (int o = 0; o < PANEL; o++)
        scales[o] = (uint16_t)bf16_bits(best_scale[o] * largest[o]);
    memcpy(out, scales, sizeof scales);
    out += sizeof scales;
    for (int64_t i = 0; i < group; i += 4, out += PANEL * 2) {
        uint32_t words[PANEL];
        for (int o = 0; o < PANEL; o++) {
            uint32_t word = 0;
            for (int j = 0; j < 4; j++)
                word |= (uint32_t)((int32_t)int4_code(units[i + j][o], best_factor[o]) + 8) << 8 * j;
            words[o] = word;
        }
        for (int o = 0; o < PANEL / 2; o++)
            words[o] |= words[o + PANEL / 2] << 4;
        memcpy(out, words, PANEL * 2);
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
        scales[lane] = source.scales[output / source.block_outputs * blocks + at / source.block_inputs];
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
    const float most = is_integer ? MOST_MAGNITUDE : __FLT_MAX__;
    for (int64_t at = 0; at < source.num_inputs; at += BATCH) {
        if (format == FP8) {
            out = put_fp8(source, panel, at, out);
            continue;
        }
        Lanes tile[BATCH];
        load_tile(source, panel, at, tile);
        int too_large = 0;
        for (int64_t i = 0; i < BATCH; i++)
            for (int o = 0; o < PANEL; o++)
                too_large |= !(tile[i][o] <= most && tile[i][o] >= -most);
        if (too_large)
            return false;
        const int64_t left = source.num_inputs - at, count = left < BATCH ? left : BATCH;
        if (format == INT8)
            out = put_int8(tile, out);
        else if (format == INT4_G128)
            out = put_int4(tile, BATCH, out);
        else if (format == INT4)
            for (int64_t i = 0; i < count; i += 32)
                out = put_int4(tile + i, 32, out);
        else if (format == BF16)
            out = put_bf16(tile, count, out);
        else
            memcpy(out, tile, (size_t)count * sizeof(Lanes)), out += count * (int64_t)sizeof(Lanes);
    }
    return true;
}

}  // namespace kernels
