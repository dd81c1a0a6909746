#include "linear.h"

#include <string.h>

#include "thread_pool.h"

namespace kernels {
namespace {

// Rows of a task: with them a panel is used often enough, and their numbers fit
// beside it in the L2.
constexpr int64_t TASK_ROWS = 240;
constexpr int64_t TILE_ROWS = 48;

}  // namespace

bool linear(const Isa &isa, const Format &format, const LinearArgs &args)
{
    const int64_t padded = format.padded(args.num_inputs);
    const int64_t panels = num_panels(args.num_outputs);
    const int64_t panel_bytes = format.panel_bytes(args.num_inputs);
    const int64_t stride = format.prepared_bytes(padded);
    const int64_t plain_stride = args.num_inputs * format.input_bytes;

    Session session;
    uint8_t *prepared = session.scratch((size_t)(args.num_rows * stride));
    if (!prepared)
        return false;
    auto prepare = [&](int64_t row) {
        format.prepare(args.rows + row * plain_stride, args.num_inputs, padded,
                       prepared + row * stride);
    };
    if (args.num_rows <= 4)  // sooner done than handed over
        for (int64_t row = 0; row < args.num_rows; row++)
            prepare(row);
    else
        session.run(args.num_rows, prepare);

    auto task = [&](int64_t index) {
        int64_t panel = index % panels, first = index / panels * TASK_ROWS;
        int64_t end = first + TASK_ROWS < args.num_rows ? first + TASK_ROWS : args.num_rows;
        int64_t column = panel * PANEL;
        int64_t width = args.num_outputs - column < PANEL ? args.num_outputs - column : PANEL;
        alignas(64) float tile[TILE_ROWS * PANEL];
        for (; first < end; first += TILE_ROWS) {
            int64_t rows = end - first < TILE_ROWS ? end - first : TILE_ROWS;
            format.multiply(prepared + first * stride, stride, rows,
                            args.weight + panel * panel_bytes, padded, tile);
            for (int64_t row = 0; row < rows; row++) {
                int64_t at = (first + row) * args.num_outputs + column;
                if (args.out_is_f32)
                    memcpy((float *)args.out + at, tile + row * PANEL, (size_t)width * 4);
                else
                    isa.to_bf16(tile + row * PANEL, (uint16_t *)args.out + at, width);
            }
        }
    };
    session.run(panels * ((args.num_rows + TASK_ROWS - 1) / TASK_ROWS), task);
    return true;
}

}  // namespace kernels
