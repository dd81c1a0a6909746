/* The hop's frames in one call each: build, check and unpack an Execute, and its Result.
 *
 * This is a fast path only. Whatever is unusual (an unknown field, an order or a size that is not
 * the plain one, a value that must be refused) is answered with None, and the protobuf path in
 * Python, which defines what is right, decides and words the error. Frames are protobuf's wire
 * format (protos/expert.proto, protos/tensor.proto); tests hold both paths against each other.
 *
 * Why native: docs/cold-caches.md.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2 };
enum { FLOAT32 = 1, BFLOAT16 = 2 };
enum { PHASE_DECODE = 1, PHASE_PREFILL = 2, COMBINE_SUM = 1, COMBINE_ROWS = 2 };

/* ---- reading ---- */

typedef struct {
    const uint8_t *at, *end;
} Reader;

typedef struct {
    const uint8_t *at;
    uint64_t size;
} Span;

static int read_varint(Reader *reader, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
        uint8_t byte = *reader->at++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return shift < 63 || byte < 2;
    }
    return 0;
}

static int read_span(Reader *reader, Span *span)
{
    if (!read_varint(reader, &span->size) || span->size > (uint64_t)(reader->end - reader->at))
        return 0;
    span->at = reader->at;
    reader->at += span->size;
    return 1;
}

enum { FIELDS = 12 };

/* Fields 1..11 of a message, each at most once: numbers for `varints` and `fixed` (bit sets), spans
 * for `spans`. Anything else fails. Sets bit 0 of numbers[0] when a fixed64 was there. */
static int read_message(Span message, unsigned varints, unsigned fixed, unsigned spans,
                        uint64_t *numbers, Span *found)
{
    Reader reader = {message.at, message.at + message.size};
    unsigned seen = 0;
    while (reader.at < reader.end) {
        uint64_t tag;
        if (!read_varint(&reader, &tag) || tag >> 3 < 1 || tag >> 3 >= FIELDS)
            return 0;
        unsigned field = (unsigned)(tag >> 3), bit = 1u << field;
        if (seen & bit)
            return 0;
        seen |= bit;
        if ((tag & 7) == VARINT && (varints & bit)) {
            if (!read_varint(&reader, &numbers[field]))
                return 0;
        } else if ((tag & 7) == FIXED64 && (fixed & bit)) {
            if (reader.end - reader.at < 8)
                return 0;
            memcpy(&numbers[field], reader.at, 8);
            reader.at += 8;
            numbers[0] = 1;
        } else if ((tag & 7) == BYTES && (spans & bit)) {
            if (!read_span(&reader, &found[field]))
                return 0;
        } else {
            return 0;
        }
    }
    return 1;
}

/* A frame that holds just one message, in oneof field `field`. */
static int read_frame(const uint8_t *data, Py_ssize_t size, unsigned field, Span *message)
{
    Reader reader = {data, data + size};
    uint64_t tag;
    return read_varint(&reader, &tag) && tag == (field << 3 | BYTES) && read_span(&reader, message)
        && reader.at == reader.end;
}

/* A two-dimensional tensor whose byte count is what dtype and shape say. */
static int read_tensor(Span message, uint64_t *dtype, uint64_t shape[2], Span *data)
{
    uint64_t numbers[FIELDS] = {0};
    Span found[FIELDS] = {{0}};
    if (!read_message(message, 1u << 1, 0, 1u << 2 | 1u << 3, numbers, found))
        return 0;
    Reader dims = {found[2].at, found[2].at + found[2].size};
    if (!read_varint(&dims, &shape[0]) || !read_varint(&dims, &shape[1]) || dims.at != dims.end)
        return 0;
    *dtype = numbers[1];
    *data = found[3];
    if ((*dtype != FLOAT32 && *dtype != BFLOAT16) || shape[0] < 1 || shape[1] < 1
        || shape[0] > 1u << 30 || shape[1] > 1u << 30)
        return 0;
    return data->size == shape[0] * shape[1] * (*dtype == FLOAT32 ? 4 : 2);
}

static int32_t int32_at(const uint8_t *base, uint64_t index)
{
    int32_t value;
    memcpy(&value, base + 4 * index, 4);
    return value;
}

/* Whether every element is finite: exponents of all ones are NaN or infinity. */
static int all_finite(const uint8_t *data, uint64_t size, int is_float32)
{
    uint32_t wrong = 0;
    if (is_float32) {
        for (uint64_t i = 0; i < size / 4; i++) {
            uint32_t bits;
            memcpy(&bits, data + 4 * i, 4);
            wrong |= (bits & 0x7f800000u) == 0x7f800000u;
        }
    } else {
        for (uint64_t i = 0; i < size / 2; i++) {
            uint16_t bits;
            memcpy(&bits, data + 2 * i, 2);
            wrong |= (bits & 0x7f80u) == 0x7f80u;
        }
    }
    return !wrong;
}

/* protos/expert.proto, Execute.checksum. */
typedef struct {
    uint32_t a, b;
} Sum;

static void sum_word(Sum *sum, uint32_t word)
{
    sum->a += word;
    sum->b += sum->a;
}

static void sum_bytes(Sum *sum, const uint8_t *data, uint64_t size)
{
    uint32_t word, a = sum->a, b = sum->b;
    for (; size >= 4; data += 4, size -= 4) {
        memcpy(&word, data, 4);
        a += word;
        b += a;
    }
    sum->a = a, sum->b = b;
    if (size) {
        word = 0;
        memcpy(&word, data, size);
        sum_word(sum, word);
    }
}

static void sum_numbers(Sum *sum, uint64_t call_id, const uint64_t *others, int count)
{
    sum_word(sum, (uint32_t)call_id);
    sum_word(sum, (uint32_t)(call_id >> 32));
    for (int i = 0; i < count; i++)
        sum_word(sum, (uint32_t)others[i]);
}

static uint64_t sum_value(Sum sum) { return (uint64_t)sum.b << 32 | sum.a; }

/* ---- writing ---- */

static uint8_t *put_fixed64(uint8_t *at, unsigned field, uint64_t value)
{
    *at++ = (uint8_t)(field << 3 | FIXED64);
    memcpy(at, &value, 8);
    return at + 8;
}

enum { FIXED64_SIZE = 9 };

static int varint_size(uint64_t value)
{
    int size = 1;
    for (; value > 127; value >>= 7)
        size++;
    return size;
}

static uint8_t *put_varint(uint8_t *at, uint64_t value)
{
    for (; value > 127; value >>= 7)
        *at++ = (uint8_t)(value | 128);
    *at++ = (uint8_t)value;
    return at;
}

static uint8_t *put_number(uint8_t *at, unsigned field, uint64_t value)
{
    if (!value)
        return at; /* proto3 leaves zeros out */
    *at++ = (uint8_t)(field << 3 | VARINT);
    return put_varint(at, value);
}

static uint8_t *put_span_head(uint8_t *at, unsigned field, uint64_t size)
{
    *at++ = (uint8_t)(field << 3 | BYTES);
    return put_varint(at, size);
}

static uint64_t number_size(uint64_t value) { return value ? 1 + varint_size(value) : 0; }
static uint64_t span_size(uint64_t size) { return 1 + varint_size(size) + size; }

static uint64_t tensor_size(uint64_t dtype, uint64_t rows, uint64_t columns, uint64_t size)
{
    return number_size(dtype) + span_size(varint_size(rows) + varint_size(columns))
         + span_size(size);
}

static uint8_t *put_tensor_head(uint8_t *at, uint64_t dtype, uint64_t rows, uint64_t columns,
                                uint64_t size)
{
    at = put_number(at, 1, dtype);
    at = put_span_head(at, 2, varint_size(rows) + varint_size(columns));
    at = put_varint(put_varint(at, rows), columns);
    return put_span_head(at, 3, size);
}

/* ---- the module's functions; arguments are unsigned integers unless a docstring says more ---- */

static int numbers_from(PyObject *const *args, Py_ssize_t count, uint64_t *out)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        out[i] = PyLong_AsUnsignedLongLong(args[i]);
        if (out[i] == (uint64_t)-1 && PyErr_Occurred())
            return 0;
    }
    return 1;
}

static int expect(Py_ssize_t got, Py_ssize_t want)
{
    if (got != want)
        PyErr_Format(PyExc_TypeError, "%zd arguments expected, got %zd", want, got);
    return got == want;
}

PyDoc_STRVAR(
    build_execute_doc,
    "build_execute(call_id, layer_idx, phase, timeout_ms, topology_version, combine, dtype,\n"
    "              num_rows, hidden_size, top_k, hidden_ptr, ids_ptr, weights_ptr, owners_ptr,\n"
    "              owner)\n"
    "-> (frame, rows) or None. ids: int32 [T, K]; weights: float32 [T, K]; all contiguous.\n"
    "With owners_ptr (int32, by expert id) only the pairs of `owner` go, and `rows` is int32\n"
    "bytes: the rows that have any; else every pair goes and `rows` is None. None: no row has a\n"
    "pair.\n"
    "Raises ValueError: a weight is not finite.");

static PyObject *build_execute(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t n[15];
    if (!expect(count, 15) || !numbers_from(args, 15, n))
        return NULL;
    uint64_t dtype = n[6], num_rows = n[7], hidden = n[8], top_k = n[9];
    uint64_t row_bytes = hidden * (dtype == FLOAT32 ? 4 : 2);
    const uint8_t *rows_at = (const uint8_t *)n[10];
    const int32_t *ids = (const int32_t *)n[11], *owners = (const int32_t *)n[13];
    const uint8_t *weights = (const uint8_t *)n[12];
    int32_t owner = (int32_t)n[14];
    if (!all_finite(weights, 4 * num_rows * top_k, 1)) {
        PyErr_SetString(PyExc_ValueError, "weights holds NaN or infinity");
        return NULL;
    }
    uint64_t sent_rows = num_rows, pairs = num_rows * top_k;
    if (owners) {
        sent_rows = pairs = 0;
        for (uint64_t row = 0; row < num_rows; row++) {
            uint64_t before = pairs;
            for (uint64_t k = 0; k < top_k; k++)
                pairs += owners[ids[row * top_k + k]] == owner;
            sent_rows += pairs > before;
        }
    }
    if (!pairs)
        Py_RETURN_NONE;
    uint64_t tensor = tensor_size(dtype, sent_rows, hidden, sent_rows * row_bytes);
    uint64_t inner = span_size(tensor) + span_size(4 * (sent_rows + 1)) + 2 * span_size(4 * pairs)
                   + FIXED64_SIZE;
    for (int i = 0; i < 6; i++)
        inner += number_size(n[i]);
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)span_size(inner));
    PyObject *rows =
        owners ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(4 * sent_rows)) : Py_NewRef(Py_None);
    if (!frame || !rows) {
        Py_XDECREF(frame);
        Py_XDECREF(rows);
        return NULL;
    }
    uint8_t *at = put_span_head((uint8_t *)PyBytes_AS_STRING(frame), 2, inner);
    for (unsigned i = 0; i < 6; i++)
        at = put_number(at, i + 1, n[i]);
    at = put_span_head(at, 7, tensor);
    at = put_tensor_head(at, dtype, sent_rows, hidden, sent_rows * row_bytes);
    uint8_t *hidden_at = at, *first_split = NULL;
    uint8_t *splits_at = first_split =
        put_span_head(at + sent_rows * row_bytes, 8, 4 * (sent_rows + 1));
    uint8_t *ids_at = put_span_head(splits_at + 4 * (sent_rows + 1), 9, 4 * pairs);
    uint8_t *weights_at = put_span_head(ids_at + 4 * pairs, 10, 4 * pairs);
    uint8_t *kept_at = owners ? (uint8_t *)PyBytes_AS_STRING(rows) : NULL;
    int32_t end = 0;
    memcpy(splits_at, &end, 4);
    for (uint64_t row = 0; row < num_rows; row++) {
        int32_t start = end, index = (int32_t)row;
        for (uint64_t k = row * top_k; k < (row + 1) * top_k; k++) {
            if (owners && owners[ids[k]] != owner)
                continue;
            memcpy(ids_at + 4 * end, &ids[k], 4);
            memcpy(weights_at + 4 * end, weights + 4 * k, 4);
            end++;
        }
        if (end == start)
            continue;
        memcpy(at, rows_at + row * row_bytes, row_bytes);
        at += row_bytes;
        memcpy(splits_at += 4, &end, 4);
        if (kept_at) {
            memcpy(kept_at, &index, 4);
            kept_at += 4;
        }
    }
    Sum sum = {0, 0};
    const uint64_t scalars[] = {n[1], n[2], n[5]};
    sum_numbers(&sum, n[0], scalars, 3);
    sum_bytes(&sum, hidden_at, sent_rows * row_bytes);
    sum_bytes(&sum, first_split, 4 * (sent_rows + 1));
    sum_bytes(&sum, ids_at, 4 * pairs);
    sum_bytes(&sum, weights_at, 4 * pairs);
    put_fixed64(weights_at + 4 * pairs, 11, sum_value(sum));
    PyObject *pair = PyTuple_Pack(2, frame, rows);
    Py_DECREF(frame);
    Py_DECREF(rows);
    return pair;
}

PyDoc_STRVAR(
    check_execute_doc,
    "check_execute(frame: bytes, num_layers, num_experts, top_k, hidden_size, dtype, max_rows)\n"
    "-> (call_id, layer_idx, phase, timeout_ms, combine, num_rows, num_pairs, hidden, splits,\n"
    "ids, weights), the last four offsets into the frame, when it is a sound Execute; else None.");

static PyObject *check_execute(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t want[6], numbers[FIELDS] = {0}, dtype, shape[2];
    Span message, found[FIELDS] = {{0}}, hidden;
    if (!expect(count, 7) || !numbers_from(args + 1, 6, want))
        return NULL;
    if (!PyBytes_CheckExact(args[0]))
        Py_RETURN_NONE;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(args[0]);
    if (!read_frame(data, PyBytes_GET_SIZE(args[0]), 2, &message)
        || !read_message(message, 0x7e, 1u << 11, 0x780, numbers, found) || !found[7].at
        || !read_tensor(found[7], &dtype, shape, &hidden))
        Py_RETURN_NONE;
    uint64_t pairs = found[9].size / 4;
    if (numbers[1] == 0 || numbers[2] >= want[0]
        || (numbers[3] != PHASE_DECODE && numbers[3] != PHASE_PREFILL) || numbers[4] == 0
        || numbers[4] > UINT32_MAX || (numbers[6] != COMBINE_SUM && numbers[6] != COMBINE_ROWS)
        || dtype != want[4] || shape[0] > want[5] || shape[1] != want[3]
        || found[8].size != 4 * (shape[0] + 1) || pairs < 1 || pairs > shape[0] * want[2]
        || found[9].size != 4 * pairs || found[10].size != 4 * pairs)
        Py_RETURN_NONE;
    if (int32_at(found[8].at, 0) != 0 || int32_at(found[8].at, shape[0]) != (int32_t)pairs)
        Py_RETURN_NONE;
    for (uint64_t row = 0; row < shape[0]; row++) {
        int32_t first = int32_at(found[8].at, row), last = int32_at(found[8].at, row + 1),
                previous = -1;
        if (last < first || last > (int32_t)pairs)
            Py_RETURN_NONE;
        for (; first < last; first++) {
            int32_t id = int32_at(found[9].at, (uint64_t)first);
            if (id <= previous || id >= (int32_t)want[1])
                Py_RETURN_NONE;
            previous = id;
        }
    }
    if (numbers[0]) {
        Sum sum = {0, 0};
        const uint64_t scalars[] = {numbers[2], numbers[3], numbers[6]};
        sum_numbers(&sum, numbers[1], scalars, 3);
        sum_bytes(&sum, hidden.at, hidden.size);
        for (int i = 8; i <= 10; i++)
            sum_bytes(&sum, found[i].at, found[i].size);
        if (sum_value(sum) != numbers[11])
            Py_RETURN_NONE;
    }
    return Py_BuildValue("KKKKKKKnnnn", numbers[1], numbers[2], numbers[3], numbers[4], numbers[6],
                         shape[0], pairs, (Py_ssize_t)(hidden.at - data),
                         (Py_ssize_t)(found[8].at - data), (Py_ssize_t)(found[9].at - data),
                         (Py_ssize_t)(found[10].at - data));
}

/* Whether `size` bytes from `offset` lie in the bytes object. */
static int within(PyObject *data, uint64_t offset, uint64_t size)
{
    uint64_t total = (uint64_t)PyBytes_GET_SIZE(data);
    if (offset <= total && size <= total - offset)
        return 1;
    PyErr_SetString(PyExc_ValueError, "offsets lie outside the frame");
    return 0;
}

PyDoc_STRVAR(
    unpack_execute_doc,
    "unpack_execute(frame, num_rows, num_pairs, row_bytes, is_float32, hidden, splits, ids,\n"
    "               weights, hidden_ptr, rows_ptr, ids_ptr, weights_ptr) -> int\n"
    "Copies a checked frame's values out: hidden rows as they are, row of each pair and expert id\n"
    "as int64 [M], weights float32 [M]. Returns 0, or 1 (hidden) or 2 (weights) when one is not\n"
    "finite.");

static PyObject *unpack_execute(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t n[12];
    if (!expect(count, 13) || !numbers_from(args + 1, 12, n))
        return NULL;
    uint64_t num_rows = n[0], pairs = n[1], hidden_bytes = n[0] * n[2];
    if (!PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "frame must be bytes");
        return NULL;
    }
    if (!within(args[0], n[4], hidden_bytes) || !within(args[0], n[5], 4 * (num_rows + 1))
        || !within(args[0], n[6], 4 * pairs) || !within(args[0], n[7], 4 * pairs))
        return NULL;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(args[0]);
    int64_t *rows = (int64_t *)n[9], *ids = (int64_t *)n[10];
    memcpy((void *)n[8], data + n[4], hidden_bytes);
    memcpy((void *)n[11], data + n[7], 4 * pairs);
    for (uint64_t row = 0, pair = 0; row < num_rows; row++)
        for (; pair < pairs && (int32_t)pair < int32_at(data + n[5], row + 1); pair++)
            rows[pair] = (int64_t)row;
    for (uint64_t pair = 0; pair < pairs; pair++)
        ids[pair] = int32_at(data + n[6], pair);
    if (!all_finite((const uint8_t *)n[8], hidden_bytes, (int)n[3]))
        return PyLong_FromLong(1);
    return PyLong_FromLong(all_finite((const uint8_t *)n[11], 4 * pairs, 1) ? 0 : 2);
}

PyDoc_STRVAR(build_result_doc,
             "build_result(call_id, queue_us, compute_us, dtype, num_rows, hidden_size, rows_ptr)\n"
             "-> bytes or None\n"
             "None: a number is not finite.");

static PyObject *build_result(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t n[7];
    if (!expect(count, 7) || !numbers_from(args, 7, n))
        return NULL;
    uint64_t size = n[4] * n[5] * (n[3] == FLOAT32 ? 4 : 2);
    if (!all_finite((const uint8_t *)n[6], size, n[3] == FLOAT32))
        Py_RETURN_NONE;
    uint64_t tensor = tensor_size(n[3], n[4], n[5], size);
    uint64_t inner = number_size(n[0]) + span_size(tensor) + number_size(n[1]) + number_size(n[2])
                   + FIXED64_SIZE;
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)span_size(inner));
    if (!frame)
        return NULL;
    uint8_t *at = put_span_head((uint8_t *)PyBytes_AS_STRING(frame), 2, inner);
    at = put_span_head(put_number(at, 1, n[0]), 2, tensor);
    at = put_tensor_head(at, n[3], n[4], n[5], size);
    memcpy(at, (const void *)n[6], size);
    Sum sum = {0, 0};
    sum_numbers(&sum, n[0], NULL, 0);
    sum_bytes(&sum, at, size);
    put_fixed64(put_number(put_number(at + size, 3, n[1]), 4, n[2]), 5, sum_value(sum));
    return frame;
}

PyDoc_STRVAR(check_result_doc,
             "check_result(frame: bytes)\n"
             "-> (call_id, queue_us, compute_us, num_rows, hidden_size, offset, frame)\n"
             "of a Result whose rows are sound and float32, else None.");

static PyObject *check_result(PyObject *self, PyObject *frame)
{
    uint64_t numbers[FIELDS] = {0}, dtype, shape[2];
    Span message, found[FIELDS] = {{0}}, rows;
    if (!PyBytes_CheckExact(frame))
        Py_RETURN_NONE;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(frame);
    if (!read_frame(data, PyBytes_GET_SIZE(frame), 2, &message)
        || !read_message(message, 1u << 1 | 1u << 3 | 1u << 4, 1u << 5, 1u << 2, numbers, found)
        || !found[2].at || !read_tensor(found[2], &dtype, shape, &rows) || dtype != FLOAT32
        || numbers[3] > UINT32_MAX || numbers[4] > UINT32_MAX)
        Py_RETURN_NONE;
    if (numbers[0]) {
        Sum sum = {0, 0};
        sum_numbers(&sum, numbers[1], NULL, 0);
        sum_bytes(&sum, rows.at, rows.size);
        if (sum_value(sum) != numbers[5])
            Py_RETURN_NONE;
    }
    return Py_BuildValue("KKKKKnO", numbers[1], numbers[3], numbers[4], shape[0], shape[1],
                         (Py_ssize_t)(rows.at - data), frame);
}

PyDoc_STRVAR(
    add_rows_doc,
    "add_rows(frame, offset, num_rows, hidden_size, rows, out_ptr, out_rows) -> bool\n"
    "Float32 rows of a frame into out [out_rows, hidden_size]: copied when `rows` is None, else\n"
    "added to the rows named by it (int32 bytes). False, and out untouched, when one is not\n"
    "finite.");

static PyObject *add_rows(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t n[3], out[2];
    if (!expect(count, 7) || !numbers_from(args + 1, 3, n) || !numbers_from(args + 5, 2, out))
        return NULL;
    uint64_t size = 4 * n[1] * n[2];
    int named = args[4] != Py_None;
    if (!PyBytes_CheckExact(args[0]) || (named && !PyBytes_CheckExact(args[4]))) {
        PyErr_SetString(PyExc_TypeError, "frame and rows must be bytes");
        return NULL;
    }
    if (!within(args[0], n[0], size) || (named && !within(args[4], 0, 4 * n[1])))
        return NULL;
    if (!named && n[1] != out[1]) {
        PyErr_SetString(PyExc_ValueError, "the frame has another number of rows");
        return NULL;
    }
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(args[0]) + n[0];
    if (!all_finite(data, size, 1))
        Py_RETURN_FALSE;
    if (!named) {
        memcpy((void *)out[0], data, size);
        Py_RETURN_TRUE;
    }
    const uint8_t *rows = (const uint8_t *)PyBytes_AS_STRING(args[4]);
    for (uint64_t row = 0; row < n[1]; row++) {
        int32_t index = int32_at(rows, row);
        if (index < 0 || (uint64_t)index >= out[1]) {
            PyErr_SetString(PyExc_ValueError, "a row lies outside the output");
            return NULL;
        }
        float *sum = (float *)out[0] + (uint64_t)index * n[2];
        for (uint64_t column = 0; column < n[2]; column++) {
            float value;
            memcpy(&value, data + 4 * (row * n[2] + column), 4);
            sum[column] += value;
        }
    }
    Py_RETURN_TRUE;
}

static PyMethodDef methods[] = {
    {"build_execute", (PyCFunction)(void (*)(void))build_execute, METH_FASTCALL, build_execute_doc},
    {"check_execute", (PyCFunction)(void (*)(void))check_execute, METH_FASTCALL, check_execute_doc},
    {"unpack_execute", (PyCFunction)(void (*)(void))unpack_execute, METH_FASTCALL,
     unpack_execute_doc},
    {"build_result", (PyCFunction)(void (*)(void))build_result, METH_FASTCALL, build_result_doc},
    {"check_result", check_result, METH_O, check_result_doc},
    {"add_rows", (PyCFunction)(void (*)(void))add_rows, METH_FASTCALL, add_rows_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT,
                                    "_hop",
                                    "The hop's frames, natively; see rpc/hop/codec.py.",
                                    0,
                                    methods,
                                    NULL,
                                    NULL,
                                    NULL,
                                    NULL};

/* rpc/hop/codec.py refuses a module of another version: raised with every change of a signature. */
enum { VERSION = 3 };

PyMODINIT_FUNC PyInit__hop(void)
{
    PyObject *created = PyModule_Create(&module);
    if (created && PyModule_AddIntConstant(created, "VERSION", VERSION) < 0)
        Py_CLEAR(created);
    return created;
}
