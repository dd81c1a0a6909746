// Rounding points (moe_model/maths/experts.py): w1, w3 and w2 accumulate in float32;
// SiLU(gate) * up is rounded once to bfloat16; w2's sum times the float32 routing weight
// is rounded once to bfloat16; partial sums add in float32 in ascending expert id.
#include "expert_ffn.h"

#include <string.h>

#include <vector>

#include "thread_pool.h"

namespace kernels {
namespace {

constexpr int64_t TILE_ROWS = 48;
// Up to so many pairs for each expert, reading w2 front to back is worth a pass
// over the pairs' rows.
constexpr int64_t ROWS_FIRST = 64;
// Pairs computed together: bounds the scratch memory, and lets an expert's weights serve many rows.
constexpr int64_t CHUNK_PAIRS = 4096;

struct Group {  // an expert's pairs within the chunk
    int64_t expert, first, end;
};

class Ffn {
public:
    Ffn(const Isa &isa, const Format &w13, const Format &w2, const ExpertFfnArgs &args)
        : isa(isa), w13(w13), w2(w2), args(args), feature_panels(num_panels(args.expert_size)),
          output_panels(num_panels(args.hidden_size)),
          hidden_stride(w13.prepared_bytes(w13.padded(args.hidden_size))),
          feature_stride(w2.prepared_bytes(w2.padded(args.expert_size))),
          plain_stride(plain_feature_stride())
    {
    }

    FfnStatus run()
    {
        FfnStatus status = sort_pairs();
        if (status != FfnStatus::DONE)
            return status;
        Session session;
        int64_t most = args.num_pairs < CHUNK_PAIRS ? args.num_pairs : CHUNK_PAIRS;
        size_t rows_size = (size_t)(most * hidden_stride),
               plain_size = (size_t)(most * plain_stride);
        size_t features_size = w2.plain_rows ? 0 : (size_t)(most * feature_stride);
        // The weighted rows need the hidden rows' memory, which has been used by then.
        if (hidden_stride < args.hidden_size * 2)
            rows_size = ((size_t)(most * args.hidden_size * 2) + 63) / 64 * 64;
        rows = session.scratch(rows_size + plain_size + features_size);
        if (!rows)
            return FfnStatus::NO_MEMORY;
        plain = rows + rows_size;
        features = w2.plain_rows ? plain : plain + plain_size;
        for (int64_t first = 0; first < args.num_pairs; first += CHUNK_PAIRS) {
            int64_t left = args.num_pairs - first;
            run_chunk(session, first, left < CHUNK_PAIRS ? left : CHUNK_PAIRS);
        }
        if (args.num_pairs == 0 && args.sum)
            memset(args.out, 0, (size_t)(args.num_rows * args.hidden_size) * 4);
        return FfnStatus::DONE;
    }

private:
    const Isa &isa;
    const Format &w13, &w2;
    const ExpertFfnArgs &args;
    const int64_t feature_panels, output_panels, hidden_stride, feature_stride, plain_stride;
    std::vector<int64_t> order;  // pairs by expert
    std::vector<int64_t> ends;   // of each expert in `order`
    std::vector<Group> groups;
    std::vector<int64_t> places, row_ends;
    int64_t chunk_first = 0;
    // Of the chunk's pairs: prepared hidden rows (later weighted output rows);
    // bfloat16 SiLU(gate) * up; the same, prepared for w2.
    uint8_t *rows = nullptr, *plain = nullptr, *features = nullptr;

    // Whole panels are written, so the padding is computed: zeros times zeros.
    int64_t plain_feature_stride() const
    {
        int64_t whole = feature_panels * PANEL * 2;
        return w2.plain_rows && feature_stride > whole ? feature_stride : (whole | 64);
    }

    FfnStatus sort_pairs()
    {
        ends.assign((size_t)args.num_experts, 0);
        for (int64_t pair = 0; pair < args.num_pairs; pair++) {
            int64_t row = args.row_of_pair[pair], expert = args.expert_of_pair[pair];
            if (row < 0 || row >= args.num_rows)
                return FfnStatus::BAD_ROW;
            if (expert < 0 || expert >= args.num_experts || !args.gate_up[expert]
                || !args.down[expert])
                return FfnStatus::BAD_EXPERT;
            ends[(size_t)expert]++;
        }
        int64_t sum = 0;
        for (int64_t &end : ends) {
            int64_t count = end;
            end = sum;
            sum += count;
        }
        order.resize((size_t)args.num_pairs);
        for (int64_t pair = 0; pair < args.num_pairs; pair++)
            order[(size_t)ends[(size_t)args.expert_of_pair[pair]]++] = pair;
        return FfnStatus::DONE;
    }

    void find_groups(int64_t first, int64_t count)
    {
        groups.clear();
        for (int64_t at = first; at < first + count;) {
            int64_t expert = args.expert_of_pair[order[(size_t)at]];
            int64_t end = ends[(size_t)expert];
            end = end < first + count ? end : first + count;
            groups.push_back({expert, at - first, end - first});
            at = end;
        }
    }

    int64_t pair_at(int64_t in_chunk) const { return order[(size_t)(chunk_first + in_chunk)]; }

    void run_chunk(Session &session, int64_t first, int64_t count)
    {
        chunk_first = first;
        find_groups(first, count);
        auto prepare = [&](int64_t at) {
            w13.prepare(args.hidden + args.row_of_pair[pair_at(at)] * args.hidden_size * 2,
                        args.hidden_size, w13.padded(args.hidden_size), rows + at * hidden_stride);
        };
        if (count <= 8)  // sooner done than handed over
            for (int64_t at = 0; at < count; at++)
                prepare(at);
        else
            session.run(count, prepare);
        int64_t num_groups = (int64_t)groups.size();
        session.run(num_groups * feature_panels, [&](int64_t task) {
            gate_up_task(groups[(size_t)(task / feature_panels)], task % feature_panels);
        });
        if (!w2.plain_rows)
            session.run(count, [&](int64_t at) {
                w2.prepare(plain + at * plain_stride, args.expert_size, w2.padded(args.expert_size),
                           features + at * feature_stride);
            });
        if (args.sum && count > ROWS_FIRST * num_groups) {
            session.run(output_panels, [&](int64_t panel) { sum_task(panel); });
            return;
        }
        session.run(num_groups * output_panels, [&](int64_t task) {
            rows_task(groups[(size_t)(task / output_panels)], task % output_panels);
        });
        if (args.sum) {
            sort_by_row(count);
            session.run(args.num_rows, [&](int64_t row) { combine_task(row); });
        }
    }

    void gate_up_task(const Group &group, int64_t panel)
    {
        const int64_t panel_bytes = w13.panel_bytes(args.hidden_size);
        const uint8_t *gate_panel =
            (const uint8_t *)args.gate_up[group.expert] + 2 * panel * panel_bytes;
        alignas(64) float gate[TILE_ROWS * PANEL], up[TILE_ROWS * PANEL];
        for (int64_t first = group.first; first < group.end; first += TILE_ROWS) {
            int64_t count = group.end - first < TILE_ROWS ? group.end - first : TILE_ROWS;
            const uint8_t *inputs = rows + first * hidden_stride;
            int64_t padded = w13.padded(args.hidden_size);
            w13.multiply(inputs, hidden_stride, count, gate_panel, padded, gate);
            w13.multiply(inputs, hidden_stride, count, gate_panel + panel_bytes, padded, up);
            for (int64_t row = 0; row < count; row++)
                isa.activate(gate + row * PANEL, up + row * PANEL,
                             (uint16_t *)(plain + (first + row) * plain_stride) + panel * PANEL,
                             PANEL);
        }
        // A format may pad its inputs beyond whole panels: what is there now,
        // times zero, may be NaN.
        const int64_t whole = feature_panels * PANEL, padded = w2.padded(args.expert_size);
        if (w2.plain_rows && panel == feature_panels - 1 && padded > whole)
            for (int64_t at = group.first; at < group.end; at++)
                memset(plain + at * plain_stride + whole * 2, 0, (size_t)(padded - whole) * 2);
    }

    // One output panel of one group: `use(place in the chunk, values)`, weighted and rounded.
    template <class Use> void down_tiles(const Group &group, int64_t panel, const Use &use)
    {
        const uint8_t *weights =
            (const uint8_t *)args.down[group.expert] + panel * w2.panel_bytes(args.expert_size);
        const int64_t stride = w2.plain_rows ? plain_stride : feature_stride;
        alignas(64) float tile[TILE_ROWS * PANEL];
        for (int64_t first = group.first; first < group.end; first += TILE_ROWS) {
            int64_t count = group.end - first < TILE_ROWS ? group.end - first : TILE_ROWS;
            w2.multiply(features + first * stride, stride, count, weights,
                        w2.padded(args.expert_size), tile);
            for (int64_t row = 0; row < count; row++) {
                isa.weigh(tile + row * PANEL, args.weight_of_pair[pair_at(first + row)], PANEL);
                use(first + row, tile + row * PANEL);
            }
        }
    }

    int64_t width(int64_t panel) const
    {
        int64_t left = args.hidden_size - panel * PANEL;
        return left < PANEL ? left : PANEL;
    }

    // The sums' panel by one thread, experts ascending.
    void sum_task(int64_t panel)
    {
        float *out = (float *)args.out + panel * PANEL;
        if (chunk_first == 0)
            for (int64_t row = 0; row < args.num_rows; row++)
                memset(out + row * args.hidden_size, 0, (size_t)width(panel) * 4);
        for (const Group &group : groups)
            down_tiles(group, panel, [&](int64_t at, const float *values) {
                int64_t row = args.row_of_pair[pair_at(at)];
                isa.add(out + row * args.hidden_size, values, width(panel));
            });
    }

    // The panel of one expert's rows: to their pairs' places, or, to be summed, to the chunk's.
    void rows_task(const Group &group, int64_t panel)
    {
        uint16_t *out = (uint16_t *)(args.sum ? rows : args.out) + panel * PANEL;
        down_tiles(group, panel, [&](int64_t at, const float *values) {
            int64_t place = args.sum ? at : pair_at(at);
            isa.to_bf16(values, out + place * args.hidden_size, width(panel));
        });
    }

    // The chunk's places by row; within a row they stay by expert.
    void sort_by_row(int64_t count)
    {
        row_ends.assign((size_t)args.num_rows + 1, 0);
        for (int64_t at = 0; at < count; at++)
            row_ends[(size_t)args.row_of_pair[pair_at(at)] + 1]++;
        for (size_t row = 1; row < row_ends.size(); row++)
            row_ends[row] += row_ends[row - 1];
        places.resize((size_t)count);
        for (int64_t at = 0; at < count; at++)
            places[(size_t)row_ends[(size_t)args.row_of_pair[pair_at(at)]]++] = at;
    }

    void combine_task(int64_t row)
    {
        float *out = (float *)args.out + row * args.hidden_size;
        if (chunk_first == 0)
            memset(out, 0, (size_t)args.hidden_size * 4);
        // Each row's end has moved by its pairs: it now is where the next row's begin.
        int64_t first = row ? row_ends[(size_t)row - 1] : 0, end = row_ends[(size_t)row];
        for (int64_t i = first; i < end; i++)
            isa.add_bf16(out, (uint16_t *)rows + places[(size_t)i] * args.hidden_size,
                         args.hidden_size);
    }
};

}  // namespace

FfnStatus expert_ffn(const Isa &isa, const Format &gate_up, const Format &down,
                     const ExpertFfnArgs &args)
{
    return Ffn(isa, gate_up, down, args).run();
}

}  // namespace kernels
