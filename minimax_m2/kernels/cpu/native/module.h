// What do the functions that Python sees share?
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "format.h"

#define FAST(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, nullptr}

// The arguments as numbers; false and an exception: another number of them, or a negative one.
bool integers(const char *name, PyObject *const *args, Py_ssize_t given, Py_ssize_t wanted,
              int64_t *values);

// The chosen instruction set; null and an exception: none was.
const kernels::Isa *isa_or_error();

extern PyMethodDef *const row_methods;  // module_rows.cpp
