#include "stream_read.h"

#include <atomic>

#include "thread_pool.h"

namespace kernels {
namespace {

constexpr int64_t PIECE = 384 * 1024;  // as much as a task of the expert FFN reads

}  // namespace

uint64_t stream_read(const Isa &isa, const uint8_t *data, int64_t size)
{
    std::atomic<uint64_t> sum{0};
    Session session;
    session.run((size + PIECE - 1) / PIECE, [&](int64_t piece) {
        int64_t first = piece * PIECE;
        sum ^= isa.read(data + first, size - first < PIECE ? size - first : PIECE);
    });
    return sum;
}

}  // namespace kernels
