// Attention of query rows over paged keys and values: what is given, and what
// each instruction set brings.
//
// A context is cut at fixed places, counted from position 0: tiles of KEY_TILE positions, attended
// with an online softmax, and parts of PART positions, merged in ascending order. Which rows share
// a task, which parts are computed apart and who computes them changes no bit of a row.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace kernels {

constexpr int KEY_TILE = 64;      // positions attended at once
constexpr int KEY_RUN = 16;       // positions side by side in BF16_TILES; a block has a multiple
constexpr int64_t PART = 1024;    // positions that one running softmax goes over
constexpr int64_t MAX_DIM = 256;  // of a head

// How numbers lie in memory. The ids are also those of kernels/cpu/attention.py.
// INT8 rows are the codes of all heads, then one float32 scale for each: value =
// scale * code, -127..127. BF16_TILES is as products read it: of a block, keys are
// [groups][dim / 2][block_size][2] and values [groups][block_size / 2][dim][2].
enum Number {
    NUMBER_BF16 = 0,
    NUMBER_F32 = 1,
    NUMBER_INT8 = 2,
    NUMBER_BF16_TILES = 3,
    NUM_NUMBERS = 4
};

// Rows of one sequence that are next to each other: the newest `num_rows` of
// `num_cached` positions.
struct Segment {
    int64_t first_row, num_rows, num_cached;
    int64_t table;  // index of its first block in `tables`
};

struct AttentionArgs {
    Number query, stored;
    const uint8_t *q;  // [num_rows][num_heads][head_dim]
    uint8_t *out;      // the same
    int64_t num_rows;
    const uint8_t *keys, *values;  // [num_blocks][block_size][row_bytes], or tiles of as many bytes
    int64_t num_blocks, block_size, row_bytes;
    int64_t num_heads, num_groups, head_dim;
    const int64_t *tables;
    int64_t num_entries;
    const Segment *segments;
    int64_t num_segments;

    int64_t heads_per_group() const { return num_heads / num_groups; }
};

// Token rows of a segment, some key heads of them, some parts of what they see.
struct AttentionTask {
    const Segment *segment;
    int64_t token, num_tokens;  // of the segment
    int64_t group, num_groups;
    int64_t part, num_parts;
    float *partial;  // where the part's state goes, to be merged; null: the task merges and writes
};

struct AttentionKernel {
    // Of one task of at most so many query rows (tokens x heads of its groups).
    int64_t (*workspace_bytes)(const AttentionArgs &args, int64_t num_rows);
    void (*attend)(const AttentionArgs &args, const AttentionTask &task, uint8_t *workspace);
    // Floats of one query row's state: sums, maximum, denominator.
    int64_t (*state_floats)(const AttentionArgs &args);
    // The parts of one task's rows, `stride` floats from one to the next, merged and written.
    void (*merge)(const AttentionArgs &args, const AttentionTask &task, const float *partials,
                  int64_t num_parts, int64_t stride, uint8_t *workspace);
};

enum class AttentionStatus { DONE, NO_MEMORY, NO_KERNEL, BAD_SEGMENT, BAD_BLOCK };

struct Isa;
AttentionStatus attention(const Isa &isa, const AttentionArgs &args);

}  // namespace kernels
