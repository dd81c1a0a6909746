// Norms, heads and the choice of experts, row after row; many rows on all threads.
#include "row_maths.h"

#include <string.h>

#include "format.h"
#include "thread_pool.h"

namespace kernels {
namespace {

constexpr int64_t FEW_ROWS = 8;  // sooner done than handed over
constexpr int64_t TASK_ROWS = 4;

template <class Work> void each_row(int64_t num_rows, const Work &work)
{
    if (num_rows <= FEW_ROWS) {
        for (int64_t row = 0; row < num_rows; row++)
            work(row);
        return;
    }
    Session session;
    session.run((num_rows + TASK_ROWS - 1) / TASK_ROWS, [&](int64_t task) {
        const int64_t first = task * TASK_ROWS;
        const int64_t end = first + TASK_ROWS < num_rows ? first + TASK_ROWS : num_rows;
        for (int64_t row = first; row < end; row++)
            work(row);
    });
}

// NaN counts as the largest, as in torch's sort.
bool above(float one, float other) { return one > other || (one != one && other == other); }

// The K best of `keys`, equal ones by lower id; ids ascending.
void best(const float *keys, int64_t count, int64_t top_k, int32_t *ids)
{
    int64_t held = 0;
    for (int64_t id = 0; id < count; id++) {
        if (held == top_k && !above(keys[id], keys[ids[held - 1]]))
            continue;
        int64_t at = held < top_k ? held++ : held - 1;
        for (; at > 0 && above(keys[id], keys[ids[at - 1]]); at--)
            ids[at] = ids[at - 1];
        ids[at] = (int32_t)id;
    }
    for (int64_t i = 1; i < top_k; i++) {
        const int32_t id = ids[i];
        int64_t at = i;
        for (; at > 0 && ids[at - 1] > id; at--)
            ids[at] = ids[at - 1];
        ids[at] = id;
    }
}

}  // namespace

void norm_rows(const Isa &isa, const NormArgs &args)
{
    each_row(args.num_rows, [&](int64_t row) {
        const int64_t at = row * args.size;
        const uint16_t *numbers = args.rows + at;
        if (args.added) {
            if (args.added_is_f32)
                isa.rows->add_f32(numbers, (const float *)args.added + at, args.sums + at,
                                  args.size);
            else
                isa.rows->add_bf16(numbers, (const uint16_t *)args.added + at, args.sums + at,
                                   args.size);
            numbers = args.sums + at;
        }
        if (args.weight)
            isa.rows->norm(numbers, args.weight, args.eps, args.out + at, args.size);
        if (args.wide)
            isa.rows->widen(args.out + at, args.wide + at, args.size);
    });
}

void split_heads(const Isa &isa, const HeadsArgs &args)
{
    each_row(args.num_rows, [&](int64_t row) {
        const uint16_t *from = args.rows + row * args.stride;
        auto split = [&](const uint16_t *norm, int64_t heads, uint16_t *all) {
            const int64_t size = heads * args.head_dim;
            uint16_t *out = all + row * size;
            if (norm)
                isa.rows->norm(from, norm, args.eps, out, size);
            else
                memcpy(out, from, (size_t)size * 2);
            isa.rows->rotate(out, heads, args.head_dim, args.cos + row * args.half,
                             args.sin + row * args.half, args.half);
            from += size;
        };
        split(args.q_norm, args.num_heads, args.q);
        split(args.k_norm, args.num_groups, args.k);
    });
}

bool choose_experts(const Isa &isa, const ChoiceArgs &args)
{
    Session session;
    const int64_t size = args.num_experts;
    float *scratch = (float *)session.scratch((size_t)(args.num_rows * size) * 8);
    if (!scratch)
        return false;
    auto choose = [&](int64_t row) {
        float *scores = scratch + row * 2 * size, *keys = args.bias ? scores + size : scores;
        isa.rows->sigmoid(args.logits + row * size, scores, size);
        for (int64_t id = 0; args.bias && id < size; id++)
            keys[id] = scores[id] + args.bias[id];
        int32_t *ids = args.ids + row * args.top_k;
        float *weights = args.weights + row * args.top_k, sum = 0;
        best(keys, size, args.top_k, ids);
        for (int64_t i = 0; i < args.top_k; i++)
            sum += weights[i] = scores[ids[i]];
        for (int64_t i = 0; i < args.top_k; i++)
            weights[i] /= sum;
    };
    if (args.num_rows <= FEW_ROWS)
        for (int64_t row = 0; row < args.num_rows; row++)
            choose(row);
    else
        session.run(args.num_rows, choose);
    return true;
}

}  // namespace kernels
