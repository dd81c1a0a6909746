// One task of attention: its rows over its parts, tile by tile, out of the pages.
//
// Include it below the `#pragma GCC target` of an ISA file, as attention_tile.h.
#pragma once
#include "attention_blocks.h"
#include "attention_rows.h"

namespace kernels {
namespace {

constexpr int64_t STATE_TAIL = 16;  // floats after the sums: maximum, denominator, padding

template <class V> int64_t state_floats(const AttentionArgs &args)
{
    return padded_dim<V>(args) + STATE_TAIL;
}

// A task's memory, in the order it lies there.
template <class V> struct Workspace {
    Panels<V> *panels;
    float *totals;        // [rows][state]: parts merged so far
    float *sums;          // [rows][padded dim]
    float *lanes;         // [rows][W]
    float *top;           // [rows]
    typename V::Elem *q;  // [rows][dim]

    static int64_t line(int64_t size) { return (size + 63) / 64 * 64; }

    static int64_t bytes(const AttentionArgs &args, int64_t rows)
    {
        return line(sizeof(Panels<V>)) + line(4 * rows * state_floats<V>(args))
             + line(4 * rows * padded_dim<V>(args)) + line(4 * rows * V::W) + line(4 * rows)
             + line(sizeof(typename V::Elem) * rows * args.head_dim);
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

// One part's tiles for all rows and key heads of a task.
template <class V, class Pages>
void attend_part(const AttentionArgs &args, const AttentionTask &task, Workspace<V> &space,
                 int64_t part)
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
    Pages pages(args, panels);
    pages.find_next(table, start, stop);
    for (int64_t at = start; at < stop; at += KEY_TILE) {
        pages.advance();
        pages.find_next(table, at + KEY_TILE, stop);
        for (int64_t i = 0; i < task.num_groups; i++) {
            const int64_t group = task.group + i;
            const bool is_last = i + 1 == task.num_groups;
            pages.look_ahead(is_last, is_last ? task.group : group + 1);
            pages.load(group);
            Softmax softmax = {space.sums + i * rows * padded, space.top + i * rows,
                               space.lanes + i * rows * V::W};
            attend_tile<V>(panels, args, space.q + i * rows * args.head_dim, first_position, rows,
                           at, softmax);
        }
    }
}

// The query rows of a task, key head by key head.
template <class V> void load_query(const AttentionArgs &args, const AttentionTask &task,
                                   typename V::Elem *q)
{
    const int64_t per_group = args.heads_per_group(), dim = args.head_dim;
    for (int64_t i = 0; i < task.num_groups; i++)
        for (int64_t token = 0; token < task.num_tokens; token++, q += per_group * dim) {
            const int64_t row = task.segment->first_row + task.token + token;
            const int64_t head = (task.group + i) * per_group;
            V::load_query(args.query, args.q, (row * args.num_heads + head) * dim, per_group * dim,
                          q);
        }
}

template <class V> void attend(const AttentionArgs &args, const AttentionTask &task,
                               uint8_t *memory)
{
    const int64_t per_group = args.heads_per_group(), rows = task.num_tokens * per_group;
    const int64_t all = task.num_groups * rows, padded = padded_dim<V>(args);
    const int64_t state = state_floats<V>(args);
    const Segment &segment = *task.segment;
    const int64_t first_position = segment.num_cached - segment.num_rows + task.token;
    Workspace<V> space(args, all, memory);
    load_query<V>(args, task, space.q);
    for (int64_t part = task.part; part < task.part + task.num_parts; part++) {
        if constexpr (V::TILES)
            if (args.stored == NUMBER_BF16_TILES)
                attend_part<V, TiledPages<V>>(args, task, space, part);
        if (args.stored != NUMBER_BF16_TILES)
            attend_part<V, RowPages<V>>(args, task, space, part);
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
        write_row<V>(args, space.totals + i * state,
                     segment.first_row + task.token + i % rows / per_group,
                     (task.group + i / rows) * per_group + i % per_group);
}

template <class V>
void merge(const AttentionArgs &args, const AttentionTask &task, const float *partials,
           int64_t num_parts, int64_t stride, uint8_t *memory)
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
