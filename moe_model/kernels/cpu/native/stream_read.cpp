#include "stream_read.h"

#include <atomic>

#include "thread_pool.h"

namespace kernels {
uint64_t stream_read(const Isa &isa, const uint8_t *data, int64_t size, int64_t piece)
{
    std::atomic<uint64_t> sum{0};
    Session session;
    session.run((size + piece - 1) / piece, [&](int64_t task) {
        int64_t first = task * piece;
        sum ^= isa.read(data + first, size - first < piece ? size - first : piece);
    });
    return sum;
}

}  // namespace kernels
