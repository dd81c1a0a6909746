// What attention in float32 products needs beside an instruction set's vectors.
//
// Include it below the `#pragma GCC target` of an ISA file, as attention_tile.h.
#pragma once
#include "attention_task.h"

namespace kernels {
namespace {

template <class Vectors> struct F32 : Vectors {
    using typename Vectors::F;
    using Elem = float;
    using Lanes = F;
    static constexpr int STEP = 1;
    static constexpr bool TILES = false;
    static constexpr int PANEL = Vectors::NV * Vectors::W;

    static Lanes lanes(const Elem *at) { return Vectors::load(at); }
    static Lanes first_only(Lanes lanes) { return lanes; }  // never: no number is beside another
    static Lanes repeat(const Elem *at) { return Vectors::set(*at); }
    static void store_weights(Elem *at, F weights) { Vectors::store(at, weights); }

    // To float32; an int8 row's scale is applied later.
    static void widen(Number stored, const uint8_t *from, int64_t count, float *out)
    {
        if (stored == NUMBER_F32) {
            memcpy(out, from, 4 * count);
        } else if (stored == NUMBER_BF16) {
            for (int64_t i = 0; i < count; i++) {
                uint16_t half;
                memcpy(&half, from + 2 * i, 2);
                uint32_t bits = (uint32_t)half << 16;
                memcpy(out + i, &bits, 4);
            }
        } else {
            for (int64_t i = 0; i < count; i++)
                out[i] = (float)(int8_t)from[i];
        }
    }
    static void load_query(Number query, const uint8_t *q, int64_t at, int64_t count, Elem *out)
    {
        widen(query, q + (query == NUMBER_F32 ? 4 : 2) * at, count, out);
    }

    // [KEY_TILE / PANEL][dim][PANEL]
    static void pack_keys(Number stored, const uint8_t *const *rows, int dim, Elem *panel)
    {
        float wide[16][MAX_DIM];
        for (int key = 0; key < KEY_TILE; key += 16) {
            for (int i = 0; i < 16; i++)
                widen(stored, rows[key + i], dim, wide[i]);
            Elem *to = panel + key / PANEL * PANEL * dim + key % PANEL;
            for (int d = 0; d < dim; d++)
                for (int i = 0; i < 16; i++)
                    to[d * PANEL + i] = wide[i][d];
        }
    }

    // [dim / PANEL][KEY_TILE][PANEL]
    static void pack_values(Number stored, const uint8_t *const *rows, int dim, Elem *panel)
    {
        for (int key = 0; key < KEY_TILE; key++)
            for (int d = 0; d < dim; d += PANEL) {
                float *to = panel + d * KEY_TILE + key * PANEL;
                const int count = dim - d < PANEL ? dim - d : PANEL;
                const int size = stored == NUMBER_F32 ? 4 : stored == NUMBER_BF16 ? 2 : 1;
                widen(stored, rows[key] + d * size, count, to);
                for (int i = count; i < PANEL; i++)
                    to[i] = 0;
            }
    }
};

}  // namespace
}  // namespace kernels
