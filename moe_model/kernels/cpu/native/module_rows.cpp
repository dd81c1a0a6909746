// What does Python see of row_maths.h and layer_block.h? Raw addresses;
// kernels/cpu/rows.py and layer.py check.
#include "module.h"

#include <string.h>

#include "layer_block.h"
#include "row_maths.h"

namespace {

using namespace kernels;

// Python gives a float32 as its bits.
float float_of(int64_t bits)
{
    uint32_t low = (uint32_t)bits;
    float value;
    memcpy(&value, &low, 4);
    return value;
}

PyObject *done_or_error(bool done)
{
    if (done)
        Py_RETURN_NONE;
    return PyErr_NoMemory();
}

PyObject *norm_rows(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[9];
    const Isa *isa = isa_or_error();
    if (!isa || !integers("norm_rows", args, given, 9, n))
        return nullptr;
    NormArgs norm_args = {
        (const uint16_t *)n[0],
        (const void *)n[1],
        n[2] != 0,
        (const uint16_t *)n[3],
        float_of(n[4]),
        n[5],
        n[6],
        (uint16_t *)n[7],
        (uint16_t *)n[8],
        nullptr,
    };
    without_gil([&] { kernels::norm_rows(*isa, norm_args); });
    Py_RETURN_NONE;
}

PyObject *split_heads(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[14];
    const Isa *isa = isa_or_error();
    if (!isa || !integers("split_heads", args, given, 14, n))
        return nullptr;
    HeadsArgs heads_args = {
        (const uint16_t *)n[0],
        n[1],
        n[2],
        (const uint16_t *)n[3],
        (const uint16_t *)n[4],
        float_of(n[5]),
        (const float *)n[6],
        (const float *)n[7],
        n[8],
        n[9],
        n[10],
        n[11],
        (uint16_t *)n[12],
        (uint16_t *)n[13],
    };
    without_gil([&] { kernels::split_heads(*isa, heads_args); });
    Py_RETURN_NONE;
}

PyObject *choose_experts(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[7];
    const Isa *isa = isa_or_error();
    if (!isa || !integers("choose_experts", args, given, 7, n))
        return nullptr;
    ChoiceArgs choice_args = {(const float *)n[0], (const float *)n[1], n[2], n[3], n[4],
                              (int32_t *)n[5],     (float *)n[6]};
    const bool done = without_gil([&] { return kernels::choose_experts(*isa, choice_args); });
    return done_or_error(done);
}

PyObject *project(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[10];
    const Isa *isa = isa_or_error();
    if (!isa || !integers("project", args, given, 10, n))
        return nullptr;
    ProjectArgs project_args = {
        (const uint16_t *)n[1],
        n[2],
        (const float *)n[3],
        (const float *)n[4],
        n[5],
        (uint16_t *)n[6],
        (uint16_t *)n[7],
        (uint16_t *)n[8],
        (uint16_t *)n[9],
    };
    const bool done = without_gil(
        [&] { return kernels::project(*isa, *(const LayerTable *)n[0], project_args); });
    return done_or_error(done);
}

PyObject *dispatch(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[11];
    const Isa *isa = isa_or_error();
    if (!isa || !integers("dispatch", args, given, 11, n))
        return nullptr;
    DispatchArgs dispatch_args = {
        (const uint16_t *)n[1], (const uint16_t *)n[2], n[3],
        (uint16_t *)n[4],       (float *)n[5],          (float *)n[6],
        (uint16_t *)n[7],       (uint16_t *)n[8],       (int32_t *)n[9],
        (float *)n[10],
    };
    const bool done = without_gil(
        [&] { return kernels::dispatch(*isa, *(const LayerTable *)n[0], dispatch_args); });
    return done_or_error(done);
}

PyMethodDef methods[] = {
    FAST(norm_rows), FAST(split_heads), FAST(choose_experts),
    FAST(project),   FAST(dispatch),    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PyMethodDef *const row_methods = methods;
