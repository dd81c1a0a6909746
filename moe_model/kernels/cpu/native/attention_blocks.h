// Pages that hold tiles as `multiply` reads them (BF16_TILES): nothing is laid
// out, and nothing copied.
//
// Include it below the `#pragma GCC target` of an ISA file, as attention_tile.h.
#pragma once
#include "attention_tile.h"

namespace kernels {
namespace {

// Read in place of values beyond a head's last: 8 pairs of positions, the
// widest head's numbers apart.
alignas(64) const uint8_t ZERO_RUN[KEY_RUN / 2 * MAX_DIM * 4] = {};

template <class V> class TiledPages {
public:
    static_assert(V::W == KEY_RUN && V::NV * V::W == KEY_TILE && V::STEP == 2,
                  "a run of keys is a vector");

    TiledPages(const AttentionArgs &args, Panels<V> &panels)
        : args(args), panels(panels), head_bytes(args.block_size * args.head_dim * 2)
    {
        panels.key_step = 2 * args.block_size;
        panels.value_step = 2 * args.head_dim;
        panels.value_run = KEY_RUN;
    }

    // The tile after this one begins at `start`; positions from `stop` on are not there.
    void find_next(const int64_t *table, int64_t start, int64_t stop)
    {
        next.count = 0;
        for (int64_t at = start; at < stop && next.count < RUNS; at += KEY_RUN) {
            const int64_t block = table[at / args.block_size] * args.block_size * args.row_bytes;
            const int64_t inside = at % args.block_size;
            next.keys[next.count] = args.keys + block + inside * 4;
            next.values[next.count++] = args.values + block + inside * args.head_dim * 2;
        }
    }

    void advance() { now = next; }

    // One key head of this tile. Where runs are missing, another is read, and
    // its scores are not seen.
    void load(int64_t group)
    {
        for (int run = 0; run < RUNS; run++) {
            const int there = run < now.count ? run : 0;
            panels.keys[0].at[run] = (const Elem *)(now.keys[there] + group * head_bytes);
            const uint8_t *values = now.values[there] + group * head_bytes;
            for (int64_t dim = 0; dim < padded_dim<V>(args); dim += V::W)
                panels.values[dim / KEY_TILE][run].at[dim % KEY_TILE / V::W] =
                    (const Elem *)(dim < args.head_dim ? values + dim * 4 : ZERO_RUN);
        }
    }

    // A key head of this tile, or of the next, is what will be read after the one at hand.
    void look_ahead(bool of_next, int64_t group)
    {
        const Runs &from = of_next ? next : now;
        for (int i = 0; i < from.count; i++) {
            ahead[i] = from.keys[i] + group * head_bytes;
            ahead[from.count + i] = from.values[i] + group * head_bytes;
        }
        panels.ahead = {ahead, 0, 2 * from.count, 0, KEY_RUN * args.head_dim * 2};
    }

private:
    using Elem = typename V::Elem;
    static constexpr int RUNS = KEY_TILE / KEY_RUN;

    struct Runs {  // the first key head's
        const uint8_t *keys[RUNS], *values[RUNS];
        int count;
    };

    const AttentionArgs &args;
    Panels<V> &panels;
    const int64_t head_bytes;
    Runs now, next;
    const uint8_t *ahead[2 * RUNS];
};

}  // namespace
}  // namespace kernels
