#include "thread_pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace kernels {
namespace {

// How long a thread without work looks for more before it sleeps: longer than the pause between two
// phases of a call, shorter than what anybody else on the core would notice.
constexpr int64_t SPIN_NS = 20000;
constexpr size_t KEEP_SCRATCH = 256u << 20;
constexpr size_t HUGE_PAGE = 2u << 20;

int64_t now_ns()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

void pause_cpu()
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

void futex_wait(std::atomic<uint32_t> &word, uint32_t seen)
{
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}

void futex_wake(std::atomic<uint32_t> &word)
{
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// Looks at `word` until it differs from `seen`, then sleeps. `sleepers` tells
// the other side to wake.
void wait_for_change(std::atomic<uint32_t> &word, uint32_t seen, std::atomic<int> &sleepers)
{
    int64_t until = now_ns() + SPIN_NS;
    do
        for (int i = 0; i < 32; i++) {
            if (word.load(std::memory_order_acquire) != seen)
                return;
            pause_cpu();
        }
    while (now_ns() < until);
    sleepers.fetch_add(1);
    while (word.load() == seen)
        futex_wait(word, seen);
    sleepers.fetch_sub(1);
}

// Consecutive tasks, mostly one thread's: its reads then run on through the memory. Who has done
// his own takes from the others'. End << 32 | next: one word, so that a claim knows which phase
// it belongs to: a claim below the end keeps the phase open, and with it `work` and `call`.
struct alignas(64) Range {
    std::atomic<uint64_t> claims{0};
};

struct Pool {
    std::mutex calls;  // held by the Session
    std::vector<std::thread> workers;
    bool stopping = false;

    std::vector<Range> ranges{1};  // of each thread, the caller's first
    alignas(64) std::atomic<uint32_t> phase{0};
    std::atomic<int> sleeping_workers{0};
    alignas(64) std::atomic<uint32_t> left{0};  // tasks not done yet
    std::atomic<uint32_t> finished{0};          // phases whose last task is done
    std::atomic<int> sleeping_caller{0};
    const void *work = nullptr;
    void (*call)(const void *, int64_t) = nullptr;

    uint8_t *scratch = nullptr;
    size_t scratch_size = 0;

    void share(uint64_t num_tasks)
    {
        uint64_t first = 0;
        for (size_t thread = 0; thread < ranges.size(); thread++) {
            uint64_t end = num_tasks * (thread + 1) / ranges.size();
            ranges[thread].claims.store(end << 32 | first, std::memory_order_release);
            first = end;
        }
    }

    void do_tasks(size_t thread)
    {
        for (size_t i = 0; i < ranges.size(); i++)
            do_range(ranges[(thread + i) % ranges.size()]);
    }

    void do_range(Range &range)
    {
        for (;;) {
            // A look first: a finished range is only read.
            uint64_t claim = range.claims.load(std::memory_order_acquire);
            if ((uint32_t)claim >= claim >> 32)
                return;
            claim = range.claims.fetch_add(1, std::memory_order_acq_rel);
            if ((uint32_t)claim >= claim >> 32)
                return;
            call(work, (int64_t)(uint32_t)claim);
            if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) {
                finished.fetch_add(1);
                if (sleeping_caller.load())
                    futex_wake(finished);
            }
        }
    }

    void serve(size_t thread, uint32_t seen)
    {
        for (;;) {
            wait_for_change(phase, seen, sleeping_workers);
            seen = phase.load();
            if (stopping)
                return;
            do_tasks(thread);
        }
    }

    void announce()
    {
        phase.fetch_add(1);
        if (sleeping_workers.load())
            futex_wake(phase);
    }

    void stop_workers()
    {
        stopping = true;
        announce();
        for (std::thread &worker : workers)
            worker.join();
        workers.clear();
        stopping = false;
    }

    // Throws when there is no room for so many threads; then there are none but the caller.
    void resize(size_t num_workers)
    {
        stop_workers();
        ranges = std::vector<Range>(1);
        std::vector<Range> wanted(num_workers + 1);
        uint32_t seen = phase.load();
        try {
            while (workers.size() < num_workers)
                workers.emplace_back(
                    [this, thread = workers.size() + 1, seen] { serve(thread, seen); });
        } catch (const std::exception &error) {
            std::string made = std::to_string(workers.size());
            stop_workers();
            throw std::runtime_error("only " + made + " of " + std::to_string(num_workers)
                                     + " threads could be started: " + error.what());
        }
        ranges = std::move(wanted);
    }
};

// Never destroyed: at exit its threads are asleep, and end with the process. A
// forked child has none of them and gets a fresh, empty pool.
Pool *pool = new Pool;
const int fork_handler = pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });

}  // namespace

Session::Session() { pool->calls.lock(); }

Session::~Session()
{
    if (pool->scratch_size > KEEP_SCRATCH) {
        free(pool->scratch);
        pool->scratch = nullptr;
        pool->scratch_size = 0;
    }
    pool->calls.unlock();
}

int Session::num_threads() const { return (int)pool->workers.size() + 1; }

uint8_t *Session::scratch(size_t size)
{
    size = size ? size : 1;  // null says that there is no memory
    if (size > pool->scratch_size) {
        free(pool->scratch);
        size = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        pool->scratch = (uint8_t *)aligned_alloc(HUGE_PAGE, size);
        pool->scratch_size = pool->scratch ? size : 0;
        if (pool->scratch)
            madvise(pool->scratch, size, MADV_HUGEPAGE);
    }
    return pool->scratch;
}

void Session::run(int64_t num_tasks, const void *work, void (*call)(const void *, int64_t))
{
    if (num_tasks <= 0)
        return;
    if (num_tasks == 1 || pool->workers.empty()) {
        for (int64_t task = 0; task < num_tasks; task++)
            call(work, task);
        return;
    }
    uint32_t finished = pool->finished.load();
    pool->work = work;
    pool->call = call;
    pool->left.store((uint32_t)num_tasks);
    pool->share((uint64_t)num_tasks);
    pool->announce();
    pool->do_tasks(0);
    wait_for_change(pool->finished, finished, pool->sleeping_caller);
}

void set_threads(int num_threads)
{
    std::lock_guard<std::mutex> lock(pool->calls);
    pool->resize((size_t)(num_threads > 1 ? num_threads - 1 : 0));
}

int get_threads()
{
    std::lock_guard<std::mutex> lock(pool->calls);
    return (int)pool->workers.size() + 1;
}

}  // namespace kernels
