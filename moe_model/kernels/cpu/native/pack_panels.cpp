// Who packs? Threads that live for one matrix, apart from the kernels' pool:
// loading does not hold it.
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "pack_panel.h"

namespace kernels {

bool pack_panels(FormatId format, const PackSource &source, uint8_t *out, int64_t panel_stride,
                 int64_t num_threads)
{
    const int64_t panels = num_panels(source.num_outputs);
    std::atomic<int64_t> next{0};
    std::atomic<bool> sound{true};
    auto work = [&] {
        for (int64_t panel; sound && (panel = next++) < panels;)
            if (!pack_panel(format, source, panel, out + panel * panel_stride))
                sound = false;
    };
    std::vector<std::thread> threads;
    try {
        while ((int64_t)threads.size() + 1 < (num_threads < panels ? num_threads : panels))
            threads.emplace_back(work);
    } catch (const std::exception &) {
        // Fewer threads do the same.
    }
    work();
    for (std::thread &thread : threads)
        thread.join();
    return sound;
}

}  // namespace kernels
