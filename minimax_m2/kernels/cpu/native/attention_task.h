// One task of attention: its rows over its parts, tile by tile, out of the pages.
//
// Include it below the `#pragma GCC target` of an ISA file, as attention_tile.h.
#pragma once
#include "attention_tile.h"

namespace kernels {
namespace {

constexpr int64_t STATE_TAIL = 16;  // floats after the sums: maximum, denominator, padding to a line

template <class V> int64_t state_floats(const AttentionArgs &args)
{
    return padded_dim<V>(args) + STATE_TAIL;
}

// A task's memory, in the order it lies there.
template <class V> struct Workspace {
    Panels<V> *panels;
    float *totals;           // [rows][state]: parts merged so far
    float *sums;             // [rows][padded dim]
    float *lanes;            // [rows][W]
    float *top;              // [rows]
    typename V::Elem *q;     // [rows][dim]

    static int64_t line(int64_t size) { return (size + 63) / 64 * 64; }

    static int64_t bytes(const AttentionArgs &args, int64_t rows)
    {
        return line(sizeof(Panels<V>)) + line(4 * rows * state_floats<V>(args)) +
               line(4 * rows * padded_dim<V>(args)) + line(4 * rows * V::W) + line(4 * rows) +
               line(sizeof(typename V::Elem) * rows * args.head_dim);
    }

    Workspace(const AttentionArgs &args, int64_t rows, uint8_t *at)
    {
        auto take = [&](int64_t size) {
            uint8_t *taken = at;
            at += line(size);
            return taken;
        };
        panels = (Panels<V> *)take(sizeof(Panels<V>));
        totals = (float *)take(4 * rows * state_floats<V>(args));
        sums = (float *)take(4 * rows * padded_dim<V>(args));
        lanes = (float *)take(4 * rows * V::W);
        top = (float *)take(4 * rows);
        q = (typename V::Elem *)take(sizeof(typename V::Elem) * rows * args.head_dim);
    }
};

// Byte offsets of a tile's positions in the storage; -1 beyond `stop`.
inline void find_rows(const AttentionArgs &args, const int64_t *table, int64_t start, int64_t stop,
                      int64_t *offsets)
{
    int64_t block = start / args.block_size, inside = start % args.block_size;
    for (int i = 0; i < KEY_TILE; i++) {
        offsets[i] = start + i < stop
                         ? (table[block] * args.block_size + inside) * args.row_bytes
                         : -1;
        if (++inside == args.block_size) {
            inside = 0;
            block++;
        }
    }
}

inline int64_t stored_bytes(const AttentionArgs &args)
{
    return args.stored == NUMBER_F32 ? 4 : args.stored == NUMBER_BF16 ? 2 : 1;
}

// One key head of a tile: its rows of keys, then of values. Returns how many of each there are.
inline int point(const AttentionArgs &args, const int64_t *offsets, int64_t group, const uint8_t **rows)
{
    const int64_t at = group * args.head_dim * stored_bytes(args);
    int count = 0;
    for (; count < KEY_TILE && offsets[count] >= 0; count++) {
        rows[count] = args.keys + offsets[count] + at;
        rows[KEY_TILE + count] = args.values + offsets[count] + at;
    }
    return count;
}

// One key head of the tile at `panels.offsets`, laid out. Beyond the context: zeros.
template <class V> void load_tile(Panels<V> &panels, const AttentionArgs &args, int64_t group)
{
    const int count = point(args, panels.offsets, group, panels.rows);
    for (int i = count; i < KEY_TILE; i++)
        panels.rows[i] = panels.rows[KEY_TILE + i] = ZEROS;
    if (args.stored == NUMBER_INT8) {
        const int64_t at = args.num_groups * args.head_dim + 4 * group;
        for (int i = 0; i < KEY_TILE; i++) {
            panels.key_scales[i] = panels.value_scales[i] = 0;
            if (i < count) {
                memcpy(&panels.key_scales[i], args.keys + panels.offsets[i] + at, 4);
                memcpy(&panels.value_scales[i], args.values + panels.offsets[i] + at, 4);
            }
        }
    }
    V::pack_keys(args.stored, panels.rows, (int)args.head_dim, panels.keys);
    V::pack_values(args.stored, panels.rows + KEY_TILE, (int)args.head_dim, panels.values);
}

// What is read after this key head of this tile: the next head's rows, or the first one's of the next tile.
template <class V>
void look_ahead(Panels<V> &panels, const AttentionArgs &args, const AttentionTask &task, int64_t group)
{
    const bool same = group + 1 < task.group + task.num_groups;
    const int count = point(args, same ? panels.offsets : panels.next_offsets,
                            same ? group + 1 : task.group, panels.next_rows);
    for (int i = 0; i < count; i++)
        panels.next_rows[count + i] = panels.next_rows[KEY_TILE + i];
    panels.ahead = {panels.next_rows, 0, 2 * count, args.head_dim * stored_bytes(args)};
}

// One part's tiles for all rows and key heads of a task.
template <class V>
void attend_part(const AttentionArgs &args, const AttentionTask &task, Workspace<V> &space, int64_t part)
{
    const Segment &segment = *task.segment;
    const int64_t *table = args.tables + segment.table;
    const int64_t first_position = segment.num_cached - segment.num_rows + task.token;
    const int64_t rows = task.num_tokens * args.heads_per_group(), padded = padded_dim<V>(args);
    const int64_t start = part * PART;
    int64_t stop = first_position + task.num_tokens;
    stop = stop < start + PART ? stop : start + PART;
    Panels<V> &panels = *space.panels;
    memset(space.sums, 0, 4 * task.num_groups * rows * padded);
    memset(space.lanes, 0, 4 * task.num_groups * rows * V::W);
    for (int64_t i = 0; i < task.num_groups * rows; i++)
        space.top[i] = -INFINITY;
    find_rows(args, table, start, stop, panels.offsets);
    for (int64_t at = start; at < stop; at += KEY_TILE) {
        find_rows(args, table, at + KEY_TILE, stop, panels.next_offsets);
        for (int64_t i = 0; i < task.num_groups; i++) {
            const int64_t group = task.group + i;
            look_ahead<V>(panels, args, task, group);
            load_tile<V>(panels, args, group);
            Softmax softmax = {space.sums + i * rows * padded, space.top + i * rows,
                               space.lanes + i * rows * V::W};
            attend_tile<V>(panels, args, space.q + i * rows * args.head_dim, first_position, rows, at,
                           softmax);
        }
        memcpy(panels.offsets, panels.next_offsets, sizeof panels.offsets);
    }
}

// The query rows of a task, key head by key head.
template <class V> void load_query(const AttentionArgs &args, const AttentionTask &task, typename V::Elem *q)
{
    const int64_t per_group = args.heads_per_group(), dim = args.head_dim;
    for (int64_t i = 0; i < task.num_groups; i++)
        for (int64_t token = 0; token < task.num_tokens; token++, q += per_group * dim) {
            const int64_t row = task.segment->first_row + task.token + token;
            const int64_t head = (task.group + i) * per_group;
            V::load_query(args.query, args.q, (row * args.num_heads + head) * dim, per_group * dim, q);
        }
}

template <class V> void attend(const AttentionArgs &args, const AttentionTask &task, uint8_t *memory)
{
    const int64_t per_group = args.heads_per_group(), rows = task.num_tokens * per_group;
    const int64_t all = task.num_groups * rows, padded = padded_dim<V>(args);
    const int64_t state = state_floats<V>(args);
    const Segment &segment = *task.segment;
    const int64_t first_position = segment.num_cached - segment.num_rows + task.token;
    Workspace<V> space(args, all, memory);
    load_query<V>(args, task, space.q);
    for (int64_t part = task.part; part < task.part + task.num_parts; part++) {
        attend_part<V>(args, task, space, part);
        for (int64_t i = 0; i < all; i++) {
            if (first_position + i % rows / per_group < part * PART)
                continue;  // ends before this part
            float *into = (task.partial ? task.partial : space.totals) + i * state;
            alignas(64) float here[MAX_DIM + STATE_TAIL];
            float *made = part == task.part ? into : here;
            memcpy(made, space.sums + i * padded, 4 * padded);
            made[padded] = space.top[i];
            made[padded + 1] = V::sum(V::load(space.lanes + i * V::W));
            if (made == here)
                merge_states<V>(into, here, padded);
        }
    }
    for (int64_t i = 0; i < all && !task.partial; i++)
        write_row<V>(args, space.totals + i * state, segment.first_row + task.token + i % rows / per_group,
                     (task.group + i / rows) * per_group + i % per_group);
}

template <class V>
void merge(const AttentionArgs &args, const AttentionTask &task, const float *partials, int64_t num_parts,
           int64_t stride, uint8_t *memory)
{
    const int64_t per_group = args.heads_per_group(), rows = task.num_tokens * per_group;
    const int64_t state = state_floats<V>(args), padded = padded_dim<V>(args);
    const Segment &segment = *task.segment;
    const int64_t first_position = segment.num_cached - segment.num_rows + task.token;
    float *total = (float *)memory;
    for (int64_t i = 0; i < task.num_groups * rows; i++) {
        const int64_t token = i % rows / per_group;
        memcpy(total, partials + i * state, 4 * state);
        for (int64_t part = 1; part < num_parts && part * PART <= first_position + token; part++)
            merge_states<V>(total, partials + part * stride + i * state, padded);
        write_row<V>(args, total, segment.first_row + task.token + token,
                     (task.group + i / rows) * per_group + i % per_group);
    }
}

template <class V> constexpr AttentionKernel kernel_of()
{
    return {Workspace<V>::bytes, attend<V>, state_floats<V>, merge<V>};
}

}  // namespace
}  // namespace kernels
