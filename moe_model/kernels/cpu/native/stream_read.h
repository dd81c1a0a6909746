// How fast can this machine read memory in order? What the kernels are measured against.
#pragma once
#include "format.h"

namespace kernels {

// Reads everything once (but the end of a last odd block), on all threads, each taking
// pieces of this many bytes; returns the xor of all words, so that nothing can be left out.
uint64_t stream_read(const Isa &isa, const uint8_t *data, int64_t size, int64_t piece);

}  // namespace kernels
