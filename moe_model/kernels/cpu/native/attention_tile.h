// The arithmetic of attention, for any instruction set: rows times a tile of
// keys, softmax, times the values.
//
// Include it below the `#pragma GCC target` of an ISA file, and nowhere else.
// `V` brings the vectors: W floats each, NV of them in a panel, MR rows at
// once; Elem is what products are made of (STEP of them a lane).
//
// A query row meets its tiles and parts in ascending order, and of a tile only
// the keys that it sees; every sum has one place for each term. So its bits
// depend on nothing but the row itself, its keys and values.
#pragma once
#include <math.h>
#include <string.h>

#include "attention.h"

namespace kernels {
namespace {

template <class V> constexpr int PANEL_OF = V::NV * V::W;

template <class V> int64_t padded_dim(const AttentionArgs &args)
{
    return (args.head_dim + PANEL_OF<V> - 1) / PANEL_OF<V> * PANEL_OF<V>;
}

// Runs of memory that will be read next, fetched into the L2 a few lines at a
// time between products: all at once they would wait for each other.
struct Ahead {
    static constexpr int64_t AT_ONCE = 256;
    const uint8_t *const *runs;
    int run, count;
    int64_t at, bytes;

    void fetch()
    {
        if (run == count)
            return;
        const uint8_t *from = runs[run] + at;
        const int64_t left = bytes - at;
        for (int64_t line = 0; line < (left < AT_ONCE ? left : AT_ONCE); line += 64)
            __builtin_prefetch(from + line, 0, 2);
        at += AT_ONCE;
        if (at >= bytes) {
            at = 0;
            run++;
        }
    }
};

// Where the vectors of one panel begin.
template <class V> struct Strip {
    const typename V::Elem *at[V::NV];
};

// A panel as the right side of a product: its vectors' next STEP of depth is
// `step` elements on; after a depth of `run` the next strip follows.
template <class V> struct Factor {
    const Strip<V> *strips;
    int64_t step;
    int run;
};

// A tile's keys and values as `multiply` reads them, and the room for one block of rows.
template <class V> struct Panels {
    Strip<V> keys[KEY_TILE / PANEL_OF<V>];
    Strip<V> values[MAX_DIM / PANEL_OF<V>][KEY_TILE / KEY_RUN];
    int64_t key_step, value_step;
    int value_run;
    alignas(64) float scores[V::MR * KEY_TILE];
    alignas(64) typename V::Elem weights[V::MR * KEY_TILE];
    alignas(64) float key_scales[KEY_TILE];
    alignas(64) float value_scales[KEY_TILE];
    alignas(64) float corrections[V::W];
    // Where pages have to be laid out first:
    // [KEY_TILE / panel][dim / STEP][panel][STEP]
    alignas(64) typename V::Elem packed_keys[KEY_TILE * MAX_DIM];
    // [dim / panel][KEY_TILE / STEP][panel][STEP]
    alignas(64) typename V::Elem packed_values[KEY_TILE * MAX_DIM];
    Ahead ahead;
};

// c[MR][panel] = c * scale[MR] (or 0) + a[MR][depth] * b, in ascending depth.
template <class V, int MR>
void multiply(const typename V::Elem *a, int64_t a_stride, Factor<V> b, int depth, float *c,
              int64_t c_stride, const float *scale, Ahead &ahead)
{
    constexpr int W = V::W, NV = V::NV, STEP = V::STEP;
    typename V::F sums[MR][NV];
#pragma GCC unroll 8
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 8
        for (int i = 0; i < NV; i++)
            sums[r][i] =
                scale ? V::mul(V::load(c + r * c_stride + i * W), V::set(scale[r])) : V::set(0);
    for (int first = 0; first < depth; first += b.run, b.strips++) {
        const Strip<V> strip = *b.strips;
        const int here = depth - first < b.run ? depth - first : b.run;
        int64_t at = 0;
        for (int k = 0; k + STEP <= here; k += STEP, a += STEP, at += b.step) {
            ahead.fetch();
            typename V::Lanes x[NV];
#pragma GCC unroll 8
            for (int i = 0; i < NV; i++)
                x[i] = V::lanes(strip.at[i] + at);
#pragma GCC unroll 8
            for (int r = 0; r < MR; r++) {
                typename V::Lanes y = V::repeat(a + r * a_stride);
#pragma GCC unroll 8
                for (int i = 0; i < NV; i++)
                    sums[r][i] = V::dot(sums[r][i], y, x[i]);
            }
        }
        if (here % STEP)  // what lies beside the last one is not seen, and may be anything
            for (int r = 0; r < MR; r++)
                for (int i = 0; i < NV; i++)
                    sums[r][i] = V::dot(sums[r][i], V::repeat(a + r * a_stride),
                                        V::first_only(V::lanes(strip.at[i] + at)));
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 8
        for (int i = 0; i < NV; i++)
            V::store(c + r * c_stride + i * W, sums[r][i]);
}

// The running softmax of some rows of one key head.
struct Softmax {
    float *sums;   // [rows][padded dim]
    float *top;    // [rows]: largest score so far, in units of log2
    float *lanes;  // [rows][W]: the denominator, lane by lane
};

// Scores to weights; `corrections` brings what was summed before to the new maximum.
template <class V, int MR>
void weigh(Panels<V> &panels, const float *key_scales, const float *value_scales, float scale,
           int seen, float *top, float *lanes)
{
    constexpr int W = V::W;
    const int columns = (seen + W - 1) / W * W;
    for (int r = 0; r < MR; r++) {
        float *scores = panels.scores + r * KEY_TILE;
        typename V::F largest = V::set(-INFINITY);
        for (int i = 0; i < columns; i += W) {
            typename V::F score = V::mul(V::load(scores + i), V::set(scale));
            if (key_scales)
                score = V::mul(score, V::load(key_scales + i));
            if (i + W > seen)
                score = V::keep(score, seen - i, -INFINITY);
            V::store(scores + i, score);
            largest = V::max(score, largest);  // a NaN is passed over here, and shows below
        }
        float now = fmaxf(top[r], V::largest(largest));
        panels.corrections[r] = top[r] - now;
        top[r] = now;
    }
    V::store(panels.corrections, V::exp2(V::load(panels.corrections)));
    for (int r = 0; r < MR; r++) {
        const float *scores = panels.scores + r * KEY_TILE;
        typename V::F sum = V::mul(V::load(lanes + r * W), V::set(panels.corrections[r]));
        typename V::F now = V::set(top[r]);
        for (int i = 0; i < columns; i += W) {
            typename V::F weight = V::exp2(V::sub(V::load(scores + i), now));
            sum = V::add(sum, weight);
            if (value_scales)
                weight = V::mul(weight, V::load(value_scales + i));
            V::store_weights(panels.weights + r * KEY_TILE + i, weight);
        }
        V::store(lanes + r * W, sum);
    }
}

template <class V, int MR>
void attend_rows(Panels<V> &panels, const AttentionArgs &args, const typename V::Elem *q, int seen,
                 Softmax softmax)
{
    constexpr int PANEL = PANEL_OF<V>;
    const int dim = (int)args.head_dim;
    const int64_t padded = padded_dim<V>(args);
    const bool scaled = args.stored == NUMBER_INT8;
    const float scale = 1.44269504f / sqrtf((float)dim);
    for (int i = 0; i < seen; i += PANEL)
        multiply<V, MR>(q, dim, {panels.keys + i / PANEL, panels.key_step, dim}, dim,
                        panels.scores + i, KEY_TILE, nullptr, panels.ahead);
    weigh<V, MR>(panels, scaled ? panels.key_scales : nullptr,
                 scaled ? panels.value_scales : nullptr, scale, seen, softmax.top, softmax.lanes);
    for (int64_t i = 0; i < padded; i += PANEL)
        multiply<V, MR>(panels.weights, KEY_TILE,
                        {panels.values[i / PANEL], panels.value_step, panels.value_run}, seen,
                        softmax.sums + i, padded, panels.corrections, panels.ahead);
}

template <class V>
void attend_block(int num_rows, Panels<V> &panels, const AttentionArgs &args,
                  const typename V::Elem *q, int seen, Softmax softmax)
{
    static_assert(V::MR == 6, "one case for each number of rows");
    switch (num_rows) {
    case 1: return attend_rows<V, 1>(panels, args, q, seen, softmax);
    case 2: return attend_rows<V, 2>(panels, args, q, seen, softmax);
    case 3: return attend_rows<V, 3>(panels, args, q, seen, softmax);
    case 4: return attend_rows<V, 4>(panels, args, q, seen, softmax);
    case 5: return attend_rows<V, 5>(panels, args, q, seen, softmax);
    default: return attend_rows<V, 6>(panels, args, q, seen, softmax);
    }
}

// How many positions of a tile are seen from a position.
inline int seen_of(int64_t position, int64_t tile_start)
{
    int64_t seen = position + 1 - tile_start;
    return seen < 0 ? 0 : seen > KEY_TILE ? KEY_TILE : (int)seen;
}

// All rows of one key head over the tile in `panels`. Rows that see equally much go together.
template <class V>
void attend_tile(Panels<V> &panels, const AttentionArgs &args, const typename V::Elem *q,
                 int64_t first_position, int64_t num_rows, int64_t tile_start, Softmax softmax)
{
    const int64_t per_token = args.heads_per_group(), padded = padded_dim<V>(args);
    for (int64_t row = 0; row < num_rows;) {
        const int seen = seen_of(first_position + row / per_token, tile_start);
        int64_t stop = (row / per_token + 1) * per_token;
        while (stop < num_rows && seen_of(first_position + stop / per_token, tile_start) == seen)
            stop += per_token;
        if (!seen) {
            row = stop;
            continue;
        }
        for (int64_t blocks = (stop - row + V::MR - 1) / V::MR; blocks; blocks--) {
            int64_t size = (stop - row + blocks - 1) / blocks;
            Softmax here = {softmax.sums + row * padded, softmax.top + row,
                            softmax.lanes + row * V::W};
            attend_block<V>((int)size, panels, args, q + row * args.head_dim, seen, here);
            row += size;
        }
    }
}

// total = total merged with the next part: [sums][top][denominator], as `state_floats` says.
template <class V> void merge_states(float *total, const float *next, int64_t padded)
{
    alignas(64) float change[V::W] = {};
    float top = fmaxf(total[padded], next[padded]);
    change[0] = total[padded] - top;
    change[1] = next[padded] - top;
    V::store(change, V::exp2(V::load(change)));
    typename V::F before = V::set(change[0]), after = V::set(change[1]);
    for (int64_t i = 0; i < padded; i += V::W)
        V::store(total + i,
                 V::add(V::mul(V::load(total + i), before), V::mul(V::load(next + i), after)));
    total[padded] = top;
    total[padded + 1] = total[padded + 1] * change[0] + next[padded + 1] * change[1];
}

template <class V> void write_row(const AttentionArgs &args, const float *state, int64_t row,
                                  int64_t head)
{
    const int64_t padded = padded_dim<V>(args), at = (row * args.num_heads + head) * args.head_dim;
    alignas(64) float values[MAX_DIM];
    typename V::F denominator = V::set(state[padded + 1]);
    for (int64_t i = 0; i < args.head_dim; i += V::W)
        V::store(values + i, V::div(V::load(state + i), denominator));
    if (args.query == NUMBER_F32)
        memcpy(args.out + 4 * at, values, 4 * args.head_dim);
    else
        V::round(values, (uint16_t *)args.out + at, args.head_dim);
}

}  // namespace
}  // namespace kernels
