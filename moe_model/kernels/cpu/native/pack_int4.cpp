// Which scale and codes does a group of int4 weights get? The search of
// integer_formats.py, to the bit.
//
// All candidates of eight outputs are weighed in one pass over the inputs, with their sums
// in registers. Sums run over the inputs in ascending order, one product rounded at a time.
#include "pack_lanes.h"

#if defined(__x86_64__)
#pragma GCC target("avx2")
#endif

namespace kernels {
namespace {

constexpr int WIDE = 8, AT_ONCE = 4;
constexpr float REACHES[] = {6.8f, 7.1f, 7.4f, 7.7f, 8.0f, 8.3f, 8.6f, 8.9f};
constexpr int NUM_REACHES = sizeof REACHES / sizeof *REACHES;

using Floats = float __attribute__((vector_size(WIDE * 4)));
using Words = uint32_t __attribute__((vector_size(WIDE * 4)));
using Ints = int32_t __attribute__((vector_size(WIDE * 4)));

inline Floats load(const float *from)
{
    Floats values;
    memcpy(&values, from, sizeof values);
    return values;
}

inline Floats code_of(Floats unit, Floats factor)
{
    Floats code = (unit * factor + ROUNDER) - ROUNDER;
    code = code < -8.0f ? Floats{} - 8.0f : code;
    return code > 7.0f ? Floats{} + 7.0f : code;
}

struct Choice {
    Floats factor, scale;
};

// The best of all reaches for eight outputs. `units`: weights over their group's largest magnitude.
Choice choose(const Floats *units, int64_t group, Floats sign, Ints kept)
{
    Choice best = {};
    Floats best_gain = Floats{} - 1.0f;
    for (int first = 0; first < NUM_REACHES; first += AT_ONCE) {
        Floats factor[AT_ONCE], cross[AT_ONCE] = {}, square[AT_ONCE] = {};
        for (int r = 0; r < AT_ONCE; r++)
            factor[r] = sign * REACHES[first + r];
        for (int64_t i = 0; i < group; i++)
#pragma GCC unroll 4
            for (int r = 0; r < AT_ONCE; r++) {
                const Floats code = code_of(units[i], factor[r]);
                cross[r] += units[i] * code;
                square[r] += code * code;
            }
        for (int r = 0; r < AT_ONCE; r++) {
            const Floats scale = kept ? cross[r] / square[r] : Floats{};
            const Floats gain = scale * cross[r];
            const Ints better = gain > best_gain;
            best_gain = better ? gain : best_gain;
            best.factor = better ? factor[r] : best.factor;
            best.scale = better ? scale : best.scale;
        }
    }
    return best;
}

}  // namespace

uint8_t *pack_int4(const Lanes *tile, int64_t group, uint8_t *out)
{
    uint16_t scales[PANEL];
    uint32_t words[BATCH / 4][PANEL];  // four inputs' codes of each output
    for (int at = 0; at < PANEL; at += WIDE) {
        Floats units[BATCH], top = {}, bottom = {};
        for (int64_t i = 0; i < group; i++) {
            units[i] = load(tile[i] + at);
            top = units[i] > top ? units[i] : top;
            bottom = units[i] < bottom ? units[i] : bottom;
        }
        const Ints upward = top >= -bottom;
        const Floats largest = upward ? top : -bottom;
        const Ints kept = largest >= LEAST_MAGNITUDE;
        const Floats inverse = kept ? 1.0f / largest : Floats{};
        for (int64_t i = 0; i < group; i++)
            units[i] *= inverse;
        const Floats sign = upward ? Floats{} - 1.0f : Floats{} + 1.0f;
        const Choice best = choose(units, group, sign, kept);
        for (int64_t i = 0; i < group; i += 4) {
            Words word = {};
            for (int j = 0; j < 4; j++) {
                const Floats code = code_of(units[i + j], best.factor) + 8.0f;
                word |= (Words) __builtin_convertvector(code, Ints) << 8 * j;
            }
            memcpy(words[i / 4] + at, &word, sizeof word);
        }
        const Floats scale = best.scale * largest;
        for (int o = 0; o < WIDE; o++)
            scales[at + o] = (uint16_t)bf16_bits(scale[o]);
    }
    memcpy(out, scales, sizeof scales);
    out += sizeof scales;
    for (int64_t quad = 0; quad < group / 4; quad++, out += PANEL * 2) {
        for (int o = 0; o < PANEL / 2; o++)
            words[quad][o] |= words[quad][o + PANEL / 2] << 4;
        memcpy(out, words[quad], PANEL * 2);
    }
    return out;
}

}  // namespace kernels
