// New positions' keys and values, written into tiles (BF16_TILES).
#pragma once
#include <stdint.h>

namespace kernels {

struct StoreArgs {
    const uint16_t *k, *v;    // [num_rows][num_groups][head_dim]
    uint16_t *keys, *values;  // tiles of num_blocks
    const int64_t *slots;     // [num_rows]: block * block_size + place in it
    int64_t num_rows, num_blocks, block_size, num_groups, head_dim;
};

// False: a slot is not there; nothing was written.
bool store_tiles(const StoreArgs &args);

}  // namespace kernels
