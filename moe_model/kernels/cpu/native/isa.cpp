// Which instruction sets is this build for? Best first.
#include "format.h"

namespace kernels {

#if defined(__x86_64__)
extern const Isa isa_avx512, isa_avx2;
const Isa *const all_isas[] = {&isa_avx512, &isa_avx2, nullptr};
#else
const Isa *const all_isas[] = {nullptr};
#endif

}  // namespace kernels
