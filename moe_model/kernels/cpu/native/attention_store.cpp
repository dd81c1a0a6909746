#include "attention_store.h"

#include <string.h>

#include "thread_pool.h"

namespace kernels {
namespace {

constexpr int64_t ALONE = 16;  // so many rows are sooner written than handed over

// One key head of all rows: a block's lines then stay in the cache while its positions are written.
void store_group(const StoreArgs &args, int64_t group)
{
    const int64_t dim = args.head_dim, size = args.block_size;
    for (int64_t row = 0; row < args.num_rows; row++) {
        const int64_t block = args.slots[row] / size, inside = args.slots[row] % size;
        const int64_t tile = (block * args.num_groups + group) * size * dim;
        const int64_t from = (row * args.num_groups + group) * dim;
        uint16_t *key = args.keys + tile + inside * 2;
        for (int64_t i = 0; i < dim; i += 2)
            memcpy(key + i * size, args.k + from + i, 4);
        uint16_t *value = args.values + tile + inside / 2 * dim * 2 + inside % 2;
        for (int64_t i = 0; i < dim; i++)
            value[2 * i] = args.v[from + i];
    }
}

}  // namespace

bool store_tiles(const StoreArgs &args)
{
    for (int64_t row = 0; row < args.num_rows; row++)
        if (args.slots[row] < 0 || args.slots[row] >= args.num_blocks * args.block_size)
            return false;
    if (args.num_rows <= ALONE) {
        for (int64_t group = 0; group < args.num_groups; group++)
            store_group(args, group);
        return true;
    }
    Session session;
    session.run(args.num_groups, [&](int64_t group) { store_group(args, group); });
    return true;
}

}  // namespace kernels
