/* What a request gives to all of its signals: the pool, the session, the user's vector, and what was shown in vain. */
#ifndef SHORTLIST_ASKED_H
#define SHORTLIST_ASKED_H

#include "products.h"

/* The tuple that `SignalInputs.arrays` makes, and what is made of it. */
typedef struct {
    Array arrays[9];
    int lent;
    Candidates all;           /* who is asked about */
    Py_ssize_t pool, rows;    /* candidates in the pool, items in the catalogue */
    const float *base_scores; /* [pool] */
    Py_ssize_t listed;
    const uint32_t *visited; /* [visits] */
    const float *weights;
    Py_ssize_t visits;
    float *unit;       /* [visits, d]: the vectors of the visited items at length 1 */
    const float *user; /* [d], or NULL */
    const uint32_t *missed;
    const float *misses; /* [count of missed] */
    Py_ssize_t n_missed;
    const uint32_t *history; /* [n_history] */
    Py_ssize_t n_history;
    const int64_t *positions; /* in the pool of those who are asked about; NULL: all of it in its order */
    uint32_t *chosen;
    Places places;
    int has_places;
} Asked;

static void free_asked(Asked *asked) {
    PyMem_Free(asked->unit);
    PyMem_Free(asked->chosen);
    free_places(&asked->places);
    give_back(asked->arrays, asked->lent);
}

/* 0 and an exception: it is no such tuple, or does not fit together. `free_asked` is due in any case. */
static int read_asked(Asked *asked, PyObject *given) {
    static const char *const types[] = {"I", "f", "f", "I", "f", "f", "I", "f", "I"};
    Array *a = asked->arrays;
    if (!PyTuple_Check(given) || PyTuple_GET_SIZE(given) != 10)
        return PyErr_SetString(PyExc_TypeError, "what is asked: wanted a tuple of 10"), 0;
    for (; asked->lent < 9; asked->lent++)
        if (!lend(&a[asked->lent], PyTuple_GET_ITEM(given, asked->lent), types[asked->lent], 0)) return 0;
    Py_ssize_t listed = PyLong_AsSsize_t(PyTuple_GET_ITEM(given, 9)), n = a[0].rows, d = a[2].columns;
    if (PyErr_Occurred()) return 0;
    if (a[1].rows != n || n >= INT32_MAX || listed < 0 || listed > n || a[4].rows != a[3].rows ||
        (a[5].rows != d && a[5].rows != 0) || a[7].rows != a[6].rows)
        return PyErr_SetString(PyExc_ValueError, "what is asked: arrays of other lengths than the items"), 0;
    if (!are_within(a[0].view.buf, n, a[2].rows) || !are_within(a[3].view.buf, a[3].rows, a[2].rows)) return 0;
    asked->all = (Candidates){a[0].view.buf, n, d, a[2].view.buf};
    asked->pool = n, asked->rows = a[2].rows, asked->base_scores = a[1].view.buf, asked->listed = listed;
    asked->visited = a[3].view.buf, asked->weights = a[4].view.buf, asked->visits = a[3].rows;
    asked->user = a[5].rows ? a[5].view.buf : NULL;
    asked->missed = a[6].view.buf, asked->misses = a[7].view.buf, asked->n_missed = a[6].rows;
    asked->history = a[8].view.buf, asked->n_history = a[8].rows;
    if (!(asked->unit = PyMem_Malloc((asked->visits * d + 1) * sizeof(float)))) return PyErr_NoMemory(), 0;
    for (Py_ssize_t s = 0; s < asked->visits; s++) {
        const float *from = asked->all.vectors + d * asked->visited[s];
        float *to = asked->unit + d * s, length = sqrtf(dot(from, from, d));
        for (Py_ssize_t j = 0; j < d; j++) to[j] = from[j] / (length > SHORTEST ? length : SHORTEST);
    }
    return 1;
}

/* Ask about some places of the pool only. */
static int choose(Asked *asked, const Array *positions) {
    asked->positions = positions->view.buf;
    if (!(asked->chosen = PyMem_Malloc((positions->rows + 1) * sizeof(uint32_t)))) return PyErr_NoMemory(), 0;
    for (Py_ssize_t i = 0; i < positions->rows; i++) {
        if (asked->positions[i] < 0 || asked->positions[i] >= asked->pool)
            return PyErr_SetString(PyExc_ValueError, "values: a position beyond the pool"), 0;
        asked->chosen[i] = asked->all.items[asked->positions[i]];
    }
    asked->all.items = asked->chosen, asked->all.n = positions->rows;
    return 1;
}

/* Have `place_of` answer for those who are asked about. */
static int know_places(Asked *asked) {
    if (asked->has_places) return 1;
    if (!make_places(&asked->places, asked->all.n)) return 0;
    asked->has_places = 1;
    for (Py_ssize_t i = 0; i < asked->all.n; i++) put(&asked->places, asked->all.items[i], (int32_t)i);
    return 1;
}

#endif
