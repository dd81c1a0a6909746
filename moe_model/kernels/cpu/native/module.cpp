// What does Python see? Functions over raw addresses;
// moe_model/kernels/cpu/*.py check every size first.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <atomic>
#include <exception>
#include <new>
#include <vector>
#include <string.h>

#include "attention.h"
#include "attention_store.h"
#include "expert_ffn.h"
#include "linear.h"
#include "module.h"
#include "pack_panel.h"
#include "stream_read.h"
#include "thread_pool.h"

using namespace kernels;

static std::atomic<const Isa *> chosen{nullptr};

bool integers(const char *name, PyObject *const *args, Py_ssize_t given, Py_ssize_t wanted,
              int64_t *values)
{
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, wanted, given);
        return false;
    }
    for (Py_ssize_t i = 0; i < wanted; i++) {
        values[i] = PyLong_AsLongLong(args[i]);
        if (values[i] < 0) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_ValueError, "%s: argument %zd is negative", name, i);
            return false;
        }
    }
    return true;
}

PyObject *error_from_exception() noexcept
{
    try {
        throw;
    } catch (const std::bad_alloc &) {
        return PyErr_NoMemory();
    } catch (const std::exception &error) {
        return PyErr_Format(PyExc_RuntimeError, "%s", error.what());
    } catch (...) {
        return PyErr_Format(PyExc_RuntimeError, "an exception of no known kind");
    }
}

const Isa *isa_or_error()
{
    const Isa *isa = chosen.load();
    if (!isa)
        PyErr_SetString(PyExc_RuntimeError, "no instruction set was chosen: use_isa comes first");
    return isa;
}

namespace {

const Format *format_or_error(const Isa &isa, int64_t id)
{
    if (id < NUM_FORMATS && isa.formats[id])
        return isa.formats[id];
    PyErr_Format(PyExc_ValueError, "%s has no kernel for weight format %lld", isa.name,
                 (long long)id);
    return nullptr;
}

PyObject *isas(PyObject *, PyObject *)
{
    PyObject *names = PyList_New(0);
    for (const Isa *const *isa = all_isas; names && *isa; isa++)
        if ((*isa)->supported()) {
            PyObject *name = PyUnicode_FromString((*isa)->name);
            if (!name || PyList_Append(names, name) < 0)
                Py_CLEAR(names);
            Py_XDECREF(name);
        }
    return names;
}

PyObject *use_isa(PyObject *, PyObject *name)
{
    const char *wanted = PyUnicode_AsUTF8(name);
    if (!wanted)
        return nullptr;
    for (const Isa *const *isa = all_isas; *isa; isa++)
        if (!strcmp((*isa)->name, wanted) && (*isa)->supported()) {
            chosen = *isa;
            Py_RETURN_NONE;
        }
    return PyErr_Format(PyExc_ValueError, "this CPU or this build has no %s", wanted);
}

PyObject *formats(PyObject *, PyObject *)
{
    const Isa *isa = isa_or_error();
    PyObject *ids = isa ? PyList_New(0) : nullptr;
    for (long id = 0; ids && id < NUM_FORMATS; id++)
        if (isa->formats[id]) {
            PyObject *number = PyLong_FromLong(id);
            if (!number || PyList_Append(ids, number) < 0)
                Py_CLEAR(ids);
            Py_XDECREF(number);
        }
    return ids;
}

PyObject *set_threads(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t number;
    if (!integers("set_threads", args, given, 1, &number))
        return nullptr;
    if (number < 1 || number > 1024)
        return PyErr_Format(PyExc_ValueError, "threads must be 1 to 1024, not %lld",
                            (long long)number);
    without_gil([&] { kernels::set_threads((int)number); });
    Py_RETURN_NONE;
}

PyObject *get_threads(PyObject *, PyObject *) { return PyLong_FromLong(kernels::get_threads()); }

PyObject *linear(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[8];
    const Isa *isa = isa_or_error();
    if (!isa || !integers("linear", args, given, 8, n))
        return nullptr;
    const Format *format = format_or_error(*isa, n[0]);
    if (!format)
        return nullptr;
    LinearArgs linear_args = {(const uint8_t *)n[1], n[2],         n[3],     n[4],
                              (const uint8_t *)n[5], (void *)n[6], n[7] != 0};
    const bool done = without_gil([&] { return kernels::linear(*isa, *format, linear_args); });
    if (!done)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyObject *run_ffn(const Isa &isa, const Format &gate_up, const Format &down,
                  const ExpertFfnArgs &ffn_args)
{
    if (gate_up.input_bytes != 2 || down.input_bytes != 2) {
        PyErr_SetString(PyExc_ValueError, "experts take formats with bfloat16 rows");
        return nullptr;
    }
    const FfnStatus status =
        without_gil([&] { return kernels::expert_ffn(isa, gate_up, down, ffn_args); });
    switch (status) {
    case FfnStatus::DONE: Py_RETURN_NONE;
    case FfnStatus::BAD_ROW:
        PyErr_SetString(PyExc_ValueError, "row_of_pair_M names a row that hidden_ND does not have");
        return nullptr;
    case FfnStatus::BAD_EXPERT:
        PyErr_SetString(PyExc_ValueError, "slots_M names an expert that is not held");
        return nullptr;
    default: return PyErr_NoMemory();
    }
}

PyObject *expert_ffn(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[15];
    const Isa *isa = isa_or_error();
    if (!isa || !integers("expert_ffn", args, given, 15, n))
        return nullptr;
    const Format *gate_up = format_or_error(*isa, n[0]);
    const Format *down = gate_up ? format_or_error(*isa, n[1]) : nullptr;
    if (!down)
        return nullptr;
    return run_ffn(*isa, *gate_up, *down,
                   {(const uint8_t *)n[2], n[3], n[4], n[5], n[6], n[7], (const int64_t *)n[8],
                    (const int64_t *)n[9], (const float *)n[10], (const uint64_t *)n[11],
                    (const uint64_t *)n[12], n[13] != 0, (void *)n[14]});
}

// The same for rows with as many experts each, named by int32 as routing gives them; always summed.
PyObject *routed_ffn(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[12];
    const Isa *isa = isa_or_error();
    if (!isa || !integers("routed_ffn", args, given, 12, n))
        return nullptr;
    const Format *format = format_or_error(*isa, n[0]);
    if (!format)
        return nullptr;
    const int64_t num_rows = n[2], top_k = n[5];
    const int32_t *ids = (const int32_t *)n[7];
    std::vector<int64_t> rows(num_rows * top_k), slots(ids, ids + num_rows * top_k);
    for (int64_t pair = 0; pair < num_rows * top_k; pair++)
        rows[pair] = pair / top_k;
    return run_ffn(*isa, *format, *format,
                   {(const uint8_t *)n[1], num_rows, n[3], n[4], num_rows * top_k, n[6],
                    rows.data(), slots.data(), (const float *)n[8], (const uint64_t *)n[9],
                    (const uint64_t *)n[10], true, (void *)n[11]});
}

PyObject *attention(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[17];
    const Isa *isa = isa_or_error();
    if (!isa || !integers("attention", args, given, 17, n))
        return nullptr;
    if (n[0] >= NUM_NUMBERS || n[1] >= NUM_NUMBERS || n[12] > MAX_DIM)
        return PyErr_Format(PyExc_ValueError,
                            "no attention kernel for these numbers or this head size");
    AttentionArgs attention_args = {
        (Number)n[0],
        (Number)n[1],
        (const uint8_t *)n[2],
        (uint8_t *)n[3],
        n[4],
        (const uint8_t *)n[5],
        (const uint8_t *)n[6],
        n[7],
        n[8],
        n[9],
        n[10],
        n[11],
        n[12],
        (const int64_t *)n[13],
        n[14],
        (const Segment *)n[15],
        n[16],
    };
    const AttentionStatus status =
        without_gil([&] { return kernels::attention(*isa, attention_args); });
    switch (status) {
    case AttentionStatus::DONE: Py_RETURN_NONE;
    case AttentionStatus::BAD_SEGMENT:
        PyErr_SetString(PyExc_ValueError,
                        "segments name rows, positions or blocks that are not there");
        return nullptr;
    case AttentionStatus::BAD_BLOCK:
        PyErr_SetString(PyExc_ValueError, "tables name a block that the cache does not have");
        return nullptr;
    case AttentionStatus::NO_KERNEL:
        return PyErr_Format(PyExc_ValueError, "%s has no attention kernel", isa->name);
    default: return PyErr_NoMemory();
    }
}

PyObject *store_tiles(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[10];
    if (!integers("store_tiles", args, given, 10, n))
        return nullptr;
    StoreArgs store_args = {
        (const uint16_t *)n[0],
        (const uint16_t *)n[1],
        (uint16_t *)n[2],
        (uint16_t *)n[3],
        (const int64_t *)n[4],
        n[5],
        n[6],
        n[7],
        n[8],
        n[9],
    };
    const bool done = without_gil([&] { return kernels::store_tiles(store_args); });
    if (!done)
        return PyErr_Format(PyExc_ValueError, "slots name a position that the cache does not have");
    Py_RETURN_NONE;
}

PyObject *stream_read(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[3];
    const Isa *isa = isa_or_error();
    if (!isa || !integers("stream_read", args, given, 3, n))
        return nullptr;
    if (n[2] < 1)
        return PyErr_Format(PyExc_ValueError, "stream_read: pieces have at least one byte");
    const uint64_t sum =
        without_gil([&] { return kernels::stream_read(*isa, (const uint8_t *)n[0], n[1], n[2]); });
    return PyLong_FromUnsignedLongLong(sum);
}

PyObject *pack(PyObject *, PyObject *const *args, Py_ssize_t given)
{
    int64_t n[11];
    if (!integers("pack", args, given, 11, n))
        return nullptr;
    PackSource source = {
        (SourceKind)n[1], (const uint8_t *)n[2], (const float *)n[3], n[4], n[5], n[6], n[7]};
    if (n[0] >= NUM_FORMATS || n[1] > SOURCE_E4M3 || (n[0] == FP8 && n[1] != SOURCE_E4M3) || !n[4]
        || !n[5]) {
        PyErr_SetString(PyExc_ValueError, "pack: no such format, source or block");
        return nullptr;
    }
    const bool sound = without_gil(
        [&] { return pack_panels((FormatId)n[0], source, (uint8_t *)n[8], n[9], n[10]); });
    return PyBool_FromLong(sound);
}

PyMethodDef methods[] = {
    NO_ARGUMENT(isas, "Names of the instruction sets that this CPU has, best first."),
    ONE_ARGUMENT(use_isa, "Choose one of them."),
    NO_ARGUMENT(formats, "Ids of the weight formats that it has kernels for."),
    FAST(set_threads),
    NO_ARGUMENT(get_threads, "Size of the pool, the caller included."),
    FAST(linear),
    FAST(expert_ffn),
    FAST(routed_ffn),
    FAST(attention),
    FAST(store_tiles),
    FAST(stream_read),
    FAST(pack),
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT,
                      "_kernels",
                      "CPU kernels; see moe_model/kernels/cpu/library.py.",
                      0,
                      methods,
                      nullptr,
                      nullptr,
                      nullptr,
                      nullptr};

// library.py refuses a module of another version: raised with every change of a
// signature or a layout.
constexpr int VERSION = 7;

}  // namespace

PyMODINIT_FUNC PyInit__kernels(void)
{
    PyObject *created = PyModule_Create(&module);
    if (created
        && (PyModule_AddIntConstant(created, "VERSION", VERSION) < 0
            || PyModule_AddFunctions(created, row_methods) < 0))
        Py_CLEAR(created);
    return created;
}
