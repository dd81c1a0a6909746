// How do stored weights become panels? Bit for bit what formats.py packs, and
// fast enough for loading.
#pragma once
#include "format.h"

namespace kernels {

enum SourceKind { SOURCE_F32 = 0, SOURCE_BF16 = 1, SOURCE_E4M3 = 2 };

struct PackSource {
    SourceKind kind;
    const uint8_t *values;  // [num_outputs, num_inputs]
    const float *scales;    // of blocks of E4M3 codes, row by row; else null
    int64_t block_outputs, block_inputs, num_outputs, num_inputs;
};

// Writes one panel. False: weights that the format does not take (not finite, or too large).
// INT8, INT4, INT4_G128, BF16 and F32 take any source; FP8 takes E4M3 whose blocks end with groups.
bool pack_panel(FormatId format, const PackSource &source, int64_t panel, uint8_t *out);

// All panels, `panel_stride` bytes apart, on some threads of its own: running kernels go on.
bool pack_panels(FormatId format, const PackSource &source, uint8_t *out, int64_t panel_stride,
                 int64_t num_threads);

}  // namespace kernels
