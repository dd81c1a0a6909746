// What do the functions that Python sees share?
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "format.h"

// The exception at hand as a Python one; to be called in a catch, with the GIL.
PyObject *error_from_exception() noexcept;

// What Python calls: none of C++'s exceptions may reach the interpreter, which
// would end the process.
template <auto function, class... Args> PyObject *guarded(Args... args) noexcept
{
    try {
        return function(args...);
    } catch (...) {
        return error_from_exception();
    }
}

#define FAST(name)                                                                                 \
    {#name, (PyCFunction)(void (*)(void))guarded<name, PyObject *, PyObject *const *, Py_ssize_t>, \
     METH_FASTCALL, nullptr}
#define ONE_ARGUMENT(name, doc) {#name, guarded<name, PyObject *, PyObject *>, METH_O, doc}
#define NO_ARGUMENT(name, doc) {#name, guarded<name, PyObject *, PyObject *>, METH_NOARGS, doc}

// work() while other Python threads run; also an exception out of it finds the GIL held again.
template <class Work> auto without_gil(const Work &work)
{
    struct Released {
        PyThreadState *const state = PyEval_SaveThread();
        ~Released() { PyEval_RestoreThread(state); }
    } released;
    return work();
}

// The arguments as numbers; false and an exception: another number of them, or a negative one.
bool integers(const char *name, PyObject *const *args, Py_ssize_t given, Py_ssize_t wanted,
              int64_t *values);

// The chosen instruction set; null and an exception: none was.
const kernels::Isa *isa_or_error();

extern PyMethodDef *const row_methods;  // module_rows.cpp
