// How is a step's attention cut into tasks, and what becomes of their parts?
#include "attention.h"

#include <atomic>
#include <new>
#include <vector>

#include "format.h"
#include "thread_pool.h"

namespace kernels {
namespace {

constexpr int64_t TASK_ROWS = 192;   // query rows of a task: their sums stay in the L2
constexpr int64_t SPLIT_TOKENS = 4;  // with at most so many rows, a sequence's parts are tasks
constexpr int64_t BUSY = 4;  // tasks for each thread, so that all end at about the same time

int64_t num_parts(const AttentionTask &task)
{
    int64_t seen = task.segment->num_cached - task.segment->num_rows + task.token + task.num_tokens;
    return (seen + PART - 1) / PART;
}

AttentionStatus check(const AttentionArgs &args)
{
    for (int64_t i = 0; i < args.num_segments; i++) {
        const Segment &segment = args.segments[i];
        if (segment.first_row < 0 || segment.num_rows < 1 || segment.num_cached < segment.num_rows
            || segment.table < 0 || segment.num_rows > args.num_rows
            || segment.first_row > args.num_rows - segment.num_rows
            || segment.num_cached > args.num_blocks * args.block_size)
            return AttentionStatus::BAD_SEGMENT;
        const int64_t blocks = (segment.num_cached + args.block_size - 1) / args.block_size;
        if (segment.table > args.num_entries - blocks)
            return AttentionStatus::BAD_SEGMENT;
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t id = args.tables[segment.table + block];
            if (id < 0 || id >= args.num_blocks)
                return AttentionStatus::BAD_BLOCK;
        }
    }
    return AttentionStatus::DONE;
}

// `partial`: where its state goes, in floats from the start of the memory; -1:
// it merges and writes itself.
struct Planned {
    AttentionTask task;
    int64_t partial;
};

// One key head of a sequence whose parts are tasks: their states lie `stride`
// floats apart, from `partial` on.
struct Split {
    AttentionTask task;
    int64_t partial, stride;
};

struct Plan {
    std::vector<Planned> tasks;
    std::vector<Split> split;
    int64_t partial_floats = 0, task_rows = 0;
};

Plan plan(const AttentionArgs &args, int num_threads, int64_t state)
{
    Plan made;
    const int64_t per_group = args.heads_per_group();
    int64_t parts = 0;
    for (int64_t i = 0; i < args.num_segments; i++)
        if (args.segments[i].num_rows <= SPLIT_TOKENS)
            parts += (args.segments[i].num_cached + PART - 1) / PART;
    // All key heads of a part lie side by side: best read by one task, where
    // there are enough of them.
    const int64_t groups = parts >= BUSY * num_threads ? args.num_groups : 1;
    const int64_t block = TASK_ROWS / per_group > 1 ? TASK_ROWS / per_group : 1;
    for (int64_t i = 0; i < args.num_segments; i++) {
        const Segment &segment = args.segments[i];
        if (segment.num_rows > SPLIT_TOKENS) {
            for (int64_t group = 0; group < args.num_groups; group++)
                for (int64_t token = 0; token < segment.num_rows; token += block) {
                    const int64_t left = segment.num_rows - token;
                    AttentionTask task = {
                        &segment, token, left < block ? left : block, group, 1, 0, 0, nullptr};
                    task.num_parts = num_parts(task);
                    made.tasks.push_back({task, -1});
                }
            continue;
        }
        AttentionTask whole = {&segment, 0, segment.num_rows, 0, args.num_groups, 0, 0, nullptr};
        const int64_t last = num_parts(whole), rows = segment.num_rows * per_group;
        const int64_t stride = args.num_groups * rows * state;
        for (int64_t part = 0; part < last; part++)
            for (int64_t group = 0; group < args.num_groups; group += groups) {
                const int64_t partial = made.partial_floats + part * stride + group * rows * state;
                AttentionTask task = {&segment, 0, segment.num_rows, group, groups,
                                      part,     1, nullptr};
                made.tasks.push_back({task, last > 1 ? partial : -1});
            }
        if (last > 1) {
            for (int64_t group = 0; group < args.num_groups; group++) {
                AttentionTask task = {&segment, 0, segment.num_rows, group, 1, 0, last, nullptr};
                made.split.push_back({task, made.partial_floats + group * rows * state, stride});
            }
            made.partial_floats += last * stride;
        }
    }
    for (const Planned &planned : made.tasks) {
        const int64_t rows = planned.task.num_tokens * planned.task.num_groups * per_group;
        made.task_rows = rows > made.task_rows ? rows : made.task_rows;
    }
    return made;
}

AttentionStatus run(const AttentionKernel &kernel, const AttentionArgs &args)
{
    Session session;
    const int num_threads = session.num_threads();
    const int64_t state = kernel.state_floats(args);
    Plan made = plan(args, num_threads, state);
    const int64_t partial_bytes = (4 * made.partial_floats + 63) / 64 * 64;
    const int64_t space = (kernel.workspace_bytes(args, made.task_rows) + 4095) / 4096 * 4096;
    uint8_t *memory = session.scratch((size_t)(partial_bytes + num_threads * space));
    if (!memory)
        return AttentionStatus::NO_MEMORY;
    std::vector<std::atomic<bool>> taken(num_threads);
    auto with_workspace = [&](auto work) {  // as many as there are threads: one is always free
        int i = 0;
        while (taken[i].exchange(true))
            i = i + 1 < num_threads ? i + 1 : 0;
        work(memory + partial_bytes + i * space);
        taken[i].store(false);
    };
    session.run((int64_t)made.tasks.size(), [&](int64_t index) {
        AttentionTask task = made.tasks[index].task;
        if (made.tasks[index].partial >= 0)
            task.partial = (float *)memory + made.tasks[index].partial;
        with_workspace([&](uint8_t *here) { kernel.attend(args, task, here); });
    });
    session.run((int64_t)made.split.size(), [&](int64_t index) {
        const Split &split = made.split[index];
        with_workspace([&](uint8_t *here) {
            kernel.merge(args, split.task, (float *)memory + split.partial, split.task.num_parts,
                         split.stride, here);
        });
    });
    return AttentionStatus::DONE;
}

}  // namespace

AttentionStatus attention(const Isa &isa, const AttentionArgs &args)
{
    const bool halves = args.query == NUMBER_BF16 && args.stored != NUMBER_F32;
    const AttentionKernel *kernel =
        halves && isa.attention_bf16 ? isa.attention_bf16 : isa.attention_f32;
    const bool tiles = args.stored == NUMBER_BF16_TILES;
    if (!kernel || (tiles && (kernel != isa.attention_bf16 || args.block_size % KEY_RUN)))
        return AttentionStatus::NO_KERNEL;
    try {
        AttentionStatus status = check(args);
        return status == AttentionStatus::DONE ? run(*kernel, args) : status;
    } catch (const std::bad_alloc &) {
        return AttentionStatus::NO_MEMORY;
    }
}

}  // namespace kernels
