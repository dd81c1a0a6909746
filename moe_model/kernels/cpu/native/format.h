// Which weight formats and operations does each instruction set have? One table of functions.
//
// Everything else (threads, linear, expert FFN) is generic over it. A new format is: an id here,
// a prepare and a multiply function in files of its own, one line in isa_avx512.cpp / isa_avx2.cpp,
// its packing in Python.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace kernels {

constexpr int PANEL = 32;  // outputs that lie together and are computed together

// The ids are also those of packed.py.
enum FormatId { BF16 = 0, F32 = 1, INT8 = 2, INT4 = 3, INT4_G128 = 4, FP8 = 5, NUM_FORMATS = 6 };

struct Format {
    int64_t group;        // inputs are padded with zeros to a multiple of this
    int64_t group_bytes;  // of a panel, for one group of inputs
    int64_t input_bytes;  // of one number of a plain row: 2 (bfloat16) or 4 (float32)

    // Bytes of a prepared row. `padded` is the number of inputs, padded to the group.
    int64_t (*prepared_bytes)(int64_t padded);
    // What `multiply` reads, from a plain row: once per row, so that all panels profit.
    void (*prepare)(const void *row, int64_t num_inputs, int64_t padded, void *prepared);
    // out[num_rows][PANEL] = rows times the panel. One float32 accumulator per
    // number, inputs in ascending order in the same groups for any number of
    // rows: a row's bits depend on itself only.
    void (*multiply)(const uint8_t *prepared_rows, int64_t row_stride, int64_t num_rows,
                     const uint8_t *panel, int64_t padded, float *out);
    // A prepared row is the plain row, padded with zeros: a plain one may be used in its place.
    bool plain_rows;

    int64_t padded(int64_t num_inputs) const { return (num_inputs + group - 1) / group * group; }
    int64_t panel_bytes(int64_t num_inputs) const
    {
        return padded(num_inputs) / group * group_bytes;
    }
};

struct AttentionKernel;  // attention.h
struct RowFunctions;     // row_maths.h

struct Isa {
    const char *name;
    bool (*supported)();
    const Format *formats[NUM_FORMATS];  // null: this instruction set has no kernel for it
    // out = bfloat16(silu(gate) * up)
    void (*activate)(const float *gate, const float *up, uint16_t *out, int64_t count);
    // values = bfloat16(values * weight), kept as float32
    void (*weigh)(float *values, float weight, int64_t count);
    void (*to_bf16)(const float *values, uint16_t *out, int64_t count);
    void (*add)(float *sums, const float *values, int64_t count);
    void (*add_bf16)(float *sums, const uint16_t *values, int64_t count);
    // Nothing but reading: the rate that the kernels are measured against.
    uint64_t (*read)(const uint8_t *data, int64_t size);
    const AttentionKernel *attention_bf16;  // null: attention_f32 takes bfloat16 queries too
    const AttentionKernel *attention_f32;
    const RowFunctions *rows;
};

// Best first; null-terminated.
extern const Isa *const all_isas[];

inline int64_t num_panels(int64_t num_outputs) { return (num_outputs + PANEL - 1) / PANEL; }

}  // namespace kernels
