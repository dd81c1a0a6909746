// Pages that hold one position after another: a tile's rows are laid out for `multiply` first.
//
// Include it below the `#pragma GCC target` of an ISA file, as attention_tile.h.
#pragma once
#include "attention_tile.h"

namespace kernels {
namespace {

alignas(64) const uint8_t ZERO_ROW[MAX_DIM * 4] = {};

template <class V> class RowPages {
public:
    RowPages(const AttentionArgs &args, Panels<V> &panels) : args(args), panels(panels)
    {
        constexpr int PANEL = PANEL_OF<V>, APART = V::W * V::STEP;
        for (int i = 0; i < KEY_TILE / PANEL; i++)
            for (int v = 0; v < V::NV; v++)
                panels.keys[i].at[v] = panels.packed_keys + i * PANEL * args.head_dim + v * APART;
        for (int i = 0; i < MAX_DIM / PANEL; i++)
            for (int v = 0; v < V::NV; v++)
                panels.values[i][0].at[v] = panels.packed_values + i * PANEL * KEY_TILE + v * APART;
        panels.key_step = panels.value_step = PANEL * V::STEP;
        panels.value_run = KEY_TILE;
    }

    // The tile after this one begins at `start`; positions from `stop` on are not there.
    void find_next(const int64_t *table, int64_t start, int64_t stop)
    {
        int64_t block = start / args.block_size, inside = start % args.block_size;
        for (int i = 0; i < KEY_TILE; i++) {
            next_offsets[i] =
                start + i < stop ? (table[block] * args.block_size + inside) * args.row_bytes : -1;
            if (++inside == args.block_size) {
                inside = 0;
                block++;
            }
        }
    }

    void advance() { memcpy(offsets, next_offsets, sizeof offsets); }

    // One key head of this tile, laid out. Beyond the context: zeros.
    void load(int64_t group)
    {
        const int count = point(offsets, group, rows);
        for (int i = count; i < KEY_TILE; i++)
            rows[i] = rows[KEY_TILE + i] = ZERO_ROW;
        if (args.stored == NUMBER_INT8) {
            const int64_t at = args.num_groups * args.head_dim + 4 * group;
            for (int i = 0; i < KEY_TILE; i++) {
                panels.key_scales[i] = panels.value_scales[i] = 0;
                if (i < count) {
                    memcpy(&panels.key_scales[i], args.keys + offsets[i] + at, 4);
                    memcpy(&panels.value_scales[i], args.values + offsets[i] + at, 4);
                }
            }
        }
        V::pack_keys(args.stored, rows, (int)args.head_dim, panels.packed_keys);
        V::pack_values(args.stored, rows + KEY_TILE, (int)args.head_dim, panels.packed_values);
    }

    // A key head of this tile, or of the next, is what will be read after the one at hand.
    void look_ahead(bool of_next, int64_t group)
    {
        const int count = point(of_next ? next_offsets : offsets, group, next_rows);
        for (int i = 0; i < count; i++)
            next_rows[count + i] = next_rows[KEY_TILE + i];
        panels.ahead = {next_rows, 0, 2 * count, 0, args.head_dim * number_bytes()};
    }

private:
    const AttentionArgs &args;
    Panels<V> &panels;
    int64_t offsets[KEY_TILE], next_offsets[KEY_TILE];            // bytes; -1: not there
    const uint8_t *rows[2 * KEY_TILE], *next_rows[2 * KEY_TILE];  // keys, then values

    int64_t number_bytes() const
    {
        return args.stored == NUMBER_F32 ? 4 : args.stored == NUMBER_BF16 ? 2 : 1;
    }

    // Rows of keys, then of values. Returns how many of each there are.
    int point(const int64_t *from, int64_t group, const uint8_t **to) const
    {
        const int64_t at = group * args.head_dim * number_bytes();
        int count = 0;
        for (; count < KEY_TILE && from[count] >= 0; count++) {
            to[count] = args.keys + from[count] + at;
            to[KEY_TILE + count] = args.values + from[count] + at;
        }
        return count;
    }
};

}  // namespace
}  // namespace kernels
