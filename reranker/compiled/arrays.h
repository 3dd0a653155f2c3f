/* Arrays that Python lends for the length of a call, and small things that the loops share. */
#ifndef SHORTLIST_ARRAYS_H
#define SHORTLIST_ARRAYS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct {
    Py_buffer view;
    Py_ssize_t rows, columns; /* columns: 1 of an array of one dimension */
    Py_ssize_t step;          /* bytes from a row to the next */
} Array;

/* Borrow an array in C order whose elements are of one of the struct codes in `types`; 0 and an exception: it is not.
   numpy's int64 is 'l' and its bool '?'. With `flags` PyBUF_STRIDES one of one dimension may be a column of a table. */
static int lend(Array *array, PyObject *from, const char *types, int flags) {
    if (PyObject_GetBuffer(from, &array->view, PyBUF_ND | PyBUF_FORMAT | flags) < 0) return 0;
    Py_buffer *view = &array->view;
    int is_column = flags == PyBUF_STRIDES;
    if (view->ndim < 1 || view->ndim > 2 - is_column || !strchr(types, view->format[0]) || view->format[1]) {
        PyErr_Format(PyExc_TypeError, "an array of %d dimensions of %s; wanted one%s of %s", view->ndim,
                     view->format, is_column ? "" : " or two", types);
        PyBuffer_Release(view);
        return 0;
    }
    array->rows = view->shape[0];
    array->columns = view->ndim == 2 ? view->shape[1] : 1;
    array->step = is_column ? view->strides[0] : array->columns * view->itemsize;
    return 1;
}

static void give_back(Array *arrays, int count) {
    while (count--) PyBuffer_Release(&arrays[count].view);
}

#define WANT(condition, message)                     \
    if (!(condition)) {                              \
        PyErr_SetString(PyExc_ValueError, message);  \
        goto done;                                   \
    }

/* The arrays among the arguments, in their order; types: one string each, 'w' in front of one that is written. */
static int lend_all(Array *arrays, int *lent, PyObject *const *arguments, Py_ssize_t given, Py_ssize_t wanted,
                    const char *const *types) {
    if (given != wanted) return PyErr_Format(PyExc_TypeError, "%zd arguments; wanted %zd", given, wanted), 0;
    for (*lent = 0; types[*lent]; ++*lent) {
        int is_written = types[*lent][0] == 'w';
        if (!lend(&arrays[*lent], arguments[*lent], types[*lent] + is_written, is_written ? PyBUF_WRITABLE : 0)) return 0;
    }
    return 1;
}

/* 1 when every one of n indexes is below `rows`; else an IndexError. */
static int are_within(const uint32_t *indexes, Py_ssize_t n, Py_ssize_t rows) {
    uint32_t highest = 0;
    for (Py_ssize_t i = 0; i < n; i++) highest = indexes[i] > highest ? indexes[i] : highest;
    if (n == 0 || (Py_ssize_t)highest < rows) return 1;
    PyErr_Format(PyExc_IndexError, "item %u of %zd", highest, rows);
    return 0;
}

/* Ask the memory for rows of an array that are read soon. */
INLINE void fetch_rows(const Array *array, const uint32_t *rows, Py_ssize_t count) {
    for (Py_ssize_t s = 0; s < count; s++)
        for (Py_ssize_t byte = 0; byte < array->step; byte += 64)
            __builtin_prefetch((const char *)array->view.buf + array->step * rows[s] + byte);
}

/* Where an item stands among the candidates: open addressing, a fixed memory whatever the catalogue. */
typedef struct {
    uint32_t mask;
    uint32_t *items;
    int32_t *places; /* -1: free */
} Places;

INLINE uint32_t slot_of(const Places *places, uint32_t item) {
    uint32_t slot = (item * 2654435761u) >> 7 & places->mask;
    while (places->places[slot] >= 0 && places->items[slot] != item) slot = (slot + 1) & places->mask;
    return slot;
}

/* 0 and an exception: no memory. `room` is the most items that there will be. */
static int make_places(Places *places, Py_ssize_t room) {
    uint32_t size = 64;
    while ((Py_ssize_t)size < 2 * room) size <<= 1;
    places->mask = size - 1;
    places->items = PyMem_Malloc(size * sizeof(uint32_t));
    places->places = PyMem_Malloc(size * sizeof(int32_t));
    if (!places->items || !places->places) {
        PyErr_NoMemory();
        return 0;
    }
    memset(places->places, 0xff, size * sizeof(int32_t));
    return 1;
}

static void free_places(Places *places) {
    PyMem_Free(places->items);
    PyMem_Free(places->places);
    places->items = NULL, places->places = NULL;
}

INLINE void put(Places *places, uint32_t item, int32_t place) {
    uint32_t slot = slot_of(places, item);
    places->items[slot] = item;
    places->places[slot] = place;
}

INLINE int32_t place_of(const Places *places, uint32_t item) { return places->places[slot_of(places, item)]; }

/* Grows as the number falls; -0 counts as 0. */
INLINE uint32_t descending(float number) {
    uint32_t bits;
    number += 0.0f;
    memcpy(&bits, &number, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7fffffffu;
}

#define FEW 16 /* keys that are sorted one by one */

/* Sort ascending; `other` is as long. The highest bits in which the keys differ say where about each belongs, so that few
   are left to be sorted in each place, in the same way. Source: MSD radix sort. */
static void sort(uint64_t *keys, uint64_t *other, Py_ssize_t n) {
    if (n <= FEW) {
        for (Py_ssize_t i = 1, at; i < n; i++) {
            uint64_t key = keys[i];
            for (at = i; at > 0 && keys[at - 1] > key; at--) keys[at] = keys[at - 1];
            keys[at] = key;
        }
        return;
    }
    uint64_t lowest = keys[0], highest = keys[0];
    for (Py_ssize_t i = 1; i < n; i++) {
        lowest = keys[i] < lowest ? keys[i] : lowest;
        highest = keys[i] > highest ? keys[i] : highest;
    }
    if (lowest == highest) return;
    int bits = n < 256 ? 8 : 10, shift = 64 - __builtin_clzll(highest - lowest) - bits;
    shift = shift > 0 ? shift : 0;
    uint32_t ends[(1 << 10) + 1] = {0};
    for (Py_ssize_t i = 0; i < n; i++) ends[((keys[i] - lowest) >> shift) + 1]++;
    for (int bin = 0; bin < 1 << bits; bin++) ends[bin + 1] += ends[bin]; /* where each bin begins, so far */
    for (Py_ssize_t i = 0; i < n; i++) other[ends[(keys[i] - lowest) >> shift]++] = keys[i];
    memcpy(keys, other, n * sizeof *keys);
    for (int bin = 0; bin < 1 << bits; bin++) {
        uint32_t begin = bin ? ends[bin - 1] : 0;
        if (ends[bin] - begin > 1 && shift > 0) sort(keys + begin, other + begin, ends[bin] - begin);
    }
}

#endif
