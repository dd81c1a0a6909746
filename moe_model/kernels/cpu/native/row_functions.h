// The functions of row_maths.h for one row, in plain loops that the compiler vectorises.
//
// Include it below the `#pragma GCC target` of an ISA file, after elementwise.h, and nowhere else.
#pragma once
#include "elementwise.h"
#include "row_maths.h"

namespace kernels {

constexpr int LANES = 32;  // running sums of a row: fixed, so that no instruction set changes a bit

static inline float widen(uint16_t value) { return from_bits((uint32_t)value << 16); }

static void row_add_bf16(const uint16_t *__restrict row, const uint16_t *__restrict added,
                         uint16_t *__restrict sum, int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        sum[i] = (uint16_t)bf16_bits(widen(row[i]) + widen(added[i]));
}

static void row_add_f32(const uint16_t *__restrict row, const float *__restrict added,
                        uint16_t *__restrict sum, int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        sum[i] = (uint16_t)bf16_bits(widen(row[i]) + from_bits(bf16_bits(added[i]) << 16));
}

static float mean_square(const uint16_t *row, int64_t size)
{
    float lanes[LANES] = {};
    int64_t at = 0;
    for (; at + LANES <= size; at += LANES)
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += widen(row[at + lane]) * widen(row[at + lane]);
    for (int lane = 0; at + lane < size; lane++)
        lanes[lane] += widen(row[at + lane]) * widen(row[at + lane]);
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    return lanes[0] / (float)size;
}

static void row_norm(const uint16_t *__restrict row, const uint16_t *__restrict weight, float eps,
                     uint16_t *__restrict out, int64_t size)
{
    const float scale = 1.0f / __builtin_sqrtf(mean_square(row, size) + eps);
    for (int64_t i = 0; i < size; i++)
        out[i] = (uint16_t)bf16_bits(widen(row[i]) * scale * widen(weight[i]));
}

static void row_widen(const uint16_t *__restrict row, float *__restrict out, int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        out[i] = widen(row[i]);
}

static void row_rotate(uint16_t *heads, int64_t num_heads, int64_t head_dim,
                       const float *__restrict cos, const float *__restrict sin, int64_t half)
{
    for (int64_t head = 0; head < num_heads; head++) {
        uint16_t *__restrict first = heads + head * head_dim, *__restrict second = first + half;
        for (int64_t i = 0; i < half; i++) {
            const float x = widen(first[i]), y = widen(second[i]);
            first[i] = (uint16_t)bf16_bits(x * cos[i] - y * sin[i]);
            second[i] = (uint16_t)bf16_bits(y * cos[i] + x * sin[i]);
        }
    }
}

static void row_sigmoid(const float *__restrict logits, float *__restrict scores, int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        scores[i] = 1.0f / (1.0f + exponential(-logits[i]));
}

constexpr RowFunctions row_functions = {row_add_bf16, row_add_f32, row_norm,
                                        row_widen,    row_rotate,  row_sigmoid};

}  // namespace kernels
