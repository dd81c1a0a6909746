// Who computes? A pool of threads that the kernels own; the caller takes part.
//
// Calls from several threads follow one another. Which thread does which task is open; kernels must
// not let a result depend on it.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace kernels {

// Holds the pool for one call of a kernel, whatever number of phases that has.
class Session {
public:
    Session();
    ~Session();
    Session(const Session &) = delete;
    Session &operator=(const Session &) = delete;

    int num_threads() const;

    // work(task) for every task in 0..num_tasks-1, on all threads; returns when all are done.
    template <class Work> void run(int64_t num_tasks, const Work &work)
    {
        run(num_tasks, &work, [](const void *it, int64_t task) { (*(const Work *)it)(task); });
    }

    // 64-byte aligned memory until the next call of `scratch`; null, of no size
    // either, when there is none left.
    uint8_t *scratch(size_t size);

private:
    void run(int64_t num_tasks, const void *work, void (*call)(const void *, int64_t));
};

// The caller included; waits for a running call. Throws std::runtime_error when
// they cannot be started: then the caller is alone.
void set_threads(int num_threads);
int get_threads();

}  // namespace kernels
