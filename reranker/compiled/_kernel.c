/* The loops of an answer, compiled. What they compute is defined in Python, in reranker/forms.py and beside each caller;
   arrays are numpy's, those that are written belong to the caller. What could lead beyond an array is checked. */
#include "sources.h"

/* score(out, asked, allowed, weights, forms, best) -> how many of best[k] are filled; k = 0: it does not matter */
static PyObject *score(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    Array a[3];
    Term *terms = NULL;
    Py_ssize_t count = 0, filled = 0;
    int lent = 0, is_done = 0;
    Asked asked = {0};
    Best best = {0};
    if (given != 6) return PyErr_Format(PyExc_TypeError, "%zd arguments; wanted 6", given);
    if (!lend(&a[0], arguments[0], "f", PyBUF_WRITABLE) || !++lent || !lend(&a[1], arguments[2], "?", 0) || !++lent ||
        !lend(&a[2], arguments[5], "l", PyBUF_WRITABLE) || !++lent || !read_asked(&asked, arguments[1]))
        goto done;
    Py_ssize_t n = asked.pool, k = a[2].rows;
    WANT(a[0].rows == n && a[1].rows == n, "score: arrays of other lengths than the items");
    if (!(terms = read_terms(arguments[4], arguments[3], &count, &asked))) goto done;
    is_done = make_best(&best, k) && add_terms(terms, count, &asked, a[0].view.buf, a[1].view.buf, &best);
    if (is_done) filled = take(&best, a[2].view.buf);
done:
    free_best(&best);
    if (terms) free_terms(terms, count);
    free_asked(&asked);
    give_back(a, lent);
    return is_done ? PyLong_FromSsize_t(filled) : NULL;
}

/* values(out, asked, positions, forms): out is zero where a form is None */
static PyObject *values(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    Array a[2];
    Term *terms = NULL;
    Py_ssize_t count = 0;
    int lent = 0, is_done = 0;
    Scratch scratch = {0};
    Asked asked = {0};
    if (given != 4) return PyErr_Format(PyExc_TypeError, "%zd arguments; wanted 4", given);
    if (!lend(&a[0], arguments[0], "f", PyBUF_WRITABLE) || !++lent || !lend(&a[1], arguments[2], "l", 0) || !++lent ||
        !read_asked(&asked, arguments[1]) || !(terms = read_terms(arguments[3], NULL, &count, &asked)) ||
        !choose(&asked, &a[1]))
        goto done;
    Py_ssize_t m = asked.all.n, d = asked.all.d;
    WANT(a[0].rows == PyList_GET_SIZE(arguments[3]) && a[0].columns == m, "values: out is not [forms, positions]");
    if (!make_scratch(&scratch, m, d, asked.visits)) goto done;
    memset(a[0].view.buf, 0, a[0].view.len);
    for (Py_ssize_t at = 0; at < count; at++) {
        const Term *term = &terms[at];
        float *found = (float *)a[0].view.buf + term->row * m;
        memset(scratch.direction, 0, d * sizeof(float));
        if (term->kind == TOWARD) add_vector(term, &asked, 1.0f, scratch.own, scratch.direction);
        if (term->kind == TOWARD || term->kind == NEAREST)
            toward(&asked.all, scratch.direction, found, scratch.lengths);
        else if (!fill(term, &asked, found))
            goto done;
        if (term->kind == NEAREST) {
            Sides sides = sides_of(&asked, &scratch);
            for (Py_ssize_t i = 0; i < m; i++)
                found[i] = nearest(asked.all.vectors + d * asked.all.items[i], scratch.lengths[i], d, &sides);
        }
        for (Py_ssize_t i = 0; i < m; i++) found[i] = sayable(found[i]);
    }
    is_done = 1;
done:
    PyMem_Free(scratch.memory);
    if (terms) free_terms(terms, count);
    free_asked(&asked);
    give_back(a, lent);
    return is_done ? Py_NewRef(Py_None) : NULL;
}

/* top(out, scores, allowed) -> how many of out[k] are filled */
static PyObject *top(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"wl", "f", "?", NULL};
    Array a[3];
    int lent = 0;
    Py_ssize_t filled = -1;
    Best best = {0};
    if (!lend_all(a, &lent, arguments, given, 3, types)) goto done;
    WANT(a[1].rows == a[2].rows, "top: as many scores as candidates");
    if (!make_best(&best, a[0].rows)) goto done;
    offer_allowed(&best, a[1].view.buf, a[2].view.buf, a[1].rows);
    filled = take(&best, a[0].view.buf);
done:
    free_best(&best);
    give_back(a, lent);
    return filled < 0 ? NULL : PyLong_FromSsize_t(filled);
}

/* neighbours(items, scores, near, near_scores, visited, weights) -> how many items and scores are filled */
static PyObject *neighbours(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"wI", "wf", "iI", "f", "I", "f", NULL};
    Array a[6];
    Places places = {0};
    char *memory = NULL;
    int lent = 0, is_done = 0;
    Py_ssize_t count = 0;
    if (!lend_all(a, &lent, arguments, given, 6, types)) goto done;
    Lists lists = {a[2].view.buf, a[3].view.buf, a[2].columns, a[4].view.buf, a[5].view.buf, a[4].rows};
    Py_ssize_t most = lists.width * lists.count;
    WANT(a[2].rows == a[3].rows && a[3].columns == lists.width && a[5].rows == lists.count,
         "neighbours: arrays do not fit");
    WANT(a[0].rows >= most && a[1].rows >= most && most < INT32_MAX, "neighbours: no room");
    if (!are_within(lists.visited, lists.count, a[2].rows)) goto done;
    fetch_rows(&a[2], lists.visited, lists.count), fetch_rows(&a[3], lists.visited, lists.count);
    if (!make_places(&places, most)) goto done;
    if (!(memory = PyMem_Malloc((most + 1) * 24))) {
        PyErr_NoMemory();
        goto done;
    }
    double *sums = (double *)memory;
    uint64_t *keys = (uint64_t *)(sums + most);
    count = find_neighbours(&lists, &places, most, a[0].view.buf, a[1].view.buf, sums, keys);
    is_done = 1;
done:
    PyMem_Free(memory);
    free_places(&places);
    give_back(a, lent);
    return is_done ? PyLong_FromSsize_t(count) : NULL;
}

/* gather(items, scores, listed, their_scores, near, near_scores, visited, weights, vectors, user, fresh, of_fresh, moved,
   most_near, most_fresh) -> how many items and scores are filled */
static PyObject *gather(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"wI", "wf", "I", "f", "iI", "f", "I", "f", "f", "f", "I", "f", "f", NULL};
    Array a[13];
    Places places = {0};
    char *memory = NULL;
    int lent = 0, is_done = 0;
    Py_ssize_t with_near = 0, count = 0;
    if (!lend_all(a, &lent, arguments, given, 15, types)) goto done;
    uint32_t *items = a[0].view.buf;
    float *scores = a[1].view.buf;
    const uint32_t *listed = a[2].view.buf, *fresh = a[10].view.buf;
    const float *vectors = a[8].view.buf, *user = a[9].view.buf;
    Py_ssize_t n = a[2].rows, d = a[8].columns, m = a[10].rows;
    Py_ssize_t most_near = PyLong_AsSsize_t(arguments[13]), k = PyLong_AsSsize_t(arguments[14]);
    if (PyErr_Occurred()) goto done;
    Lists lists = {a[4].view.buf, a[5].view.buf, a[4].columns, a[6].view.buf, a[7].view.buf, a[6].rows};
    if (most_near == 0) lists.count = 0;
    Py_ssize_t most = lists.width * lists.count, room = most > m ? most : m;
    k = k < m ? k : m;
    WANT(a[3].rows == n && a[4].rows == a[5].rows && a[5].columns == lists.width && a[7].rows == a[6].rows &&
             a[9].rows == d && a[11].rows == m && (m == 0 || (a[11].columns == d && a[12].rows == d)),
         "gather: arrays do not fit");
    WANT(most_near >= 0 && k >= 0 && most < INT32_MAX && n + m < INT32_MAX, "gather: numbers out of range");
    WANT(a[0].rows == a[1].rows && a[0].rows >= n + (most < most_near ? most : most_near) + k, "gather: no room");
    if (!are_within(lists.visited, lists.count, a[4].rows) || !are_within(fresh, m, a[8].rows)) goto done;
    fetch_rows(&a[4], lists.visited, lists.count), fetch_rows(&a[5], lists.visited, lists.count);
    if (!make_places(&places, n + most + k)) goto done;
    if (!(memory = PyMem_Malloc((room + 1) * 36))) {
        PyErr_NoMemory();
        goto done;
    }
    double *sums = (double *)memory;
    uint64_t *keys = (uint64_t *)(sums + room);
    uint32_t *moved = (uint32_t *)(keys + 2 * room), *found = moved + room;
    float *numbers = (float *)(found + room);
    memcpy(items, listed, n * sizeof *items), memcpy(scores, a[3].view.buf, n * sizeof *scores);
    for (Py_ssize_t i = 0; i < n; i++) put(&places, listed[i], TAKEN);
    count = find_neighbours(&lists, &places, most_near, found, numbers, sums, keys);
    if (!are_within(found, count, a[8].rows)) goto done;
    for (Py_ssize_t i = 0; i < count; i++) put(&places, found[i], TAKEN);
    products(&(Candidates){found, count, d, vectors}, user, numbers);
    put_in_order(found, numbers, count, keys, moved);
    memcpy(items + n, found, count * sizeof *items), memcpy(scores + n, numbers, count * sizeof *scores);
    with_near = n + count;
    rows(a[11].view.buf, k ? m : 0, d, a[12].view.buf, numbers);
    Py_ssize_t suiting = k ? find_greatest(numbers, NULL, m, k, keys) : 0;
    count = 0;
    for (Py_ssize_t at = 0; at < suiting; at++) {
        uint32_t item = fresh[(uint32_t)keys[at]];
        if (place_of(&places, item) != TAKEN) found[count++] = item;
    }
    products(&(Candidates){found, count, d, vectors}, user, numbers);
    put_in_order(found, numbers, count, keys, moved);
    memcpy(items + with_near, found, count * sizeof *items), memcpy(scores + with_near, numbers, count * sizeof *scores);
    count += with_near;
    is_done = 1;
done:
    PyMem_Free(memory);
    free_places(&places);
    give_back(a, lent);
    return is_done ? PyLong_FromSsize_t(count) : NULL;
}

/* eligible(out, items, shown, hidden): out[i] is what `shown` says of the item, unless it is among the hidden ones */
static PyObject *eligible(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"w?", "I", "?", "I", NULL};
    Array a[4];
    Places hidden = {0};
    int lent = 0, is_done = 0;
    if (!lend_all(a, &lent, arguments, given, 4, types)) goto done;
    char *out = a[0].view.buf;
    const uint32_t *items = a[1].view.buf, *of_hidden = a[3].view.buf;
    const char *shown = a[2].view.buf;
    WANT(a[0].rows == a[1].rows, "eligible: as many answers as items");
    if (!are_within(items, a[1].rows, a[2].rows) || !make_places(&hidden, 4 * a[3].rows)) goto done;
    for (Py_ssize_t i = 0; i < a[3].rows; i++) put(&hidden, of_hidden[i], 0);
    for (Py_ssize_t i = 0; i < a[1].rows; i++) out[i] = shown[items[i]] && place_of(&hidden, items[i]) < 0;
    is_done = 1;
done:
    free_places(&hidden);
    give_back(a, lent);
    return is_done ? Py_NewRef(Py_None) : NULL;
}

/* refresh(out, matrix, base, vectors, items, weights, of_session, their_weights, recency, is_unit) */
static PyObject *refresh(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"wf", "f", "f", "f", "I", "f", "I", "f", "f", NULL};
    Array a[9];
    float *pooled = NULL;
    int lent = 0, is_done = 0;
    if (!lend_all(a, &lent, arguments, given, 10, types)) goto done;
    Py_ssize_t d = a[3].columns, before = a[4].rows, n = before + a[6].rows;
    float *out = a[0].view.buf, total = 0.0f;
    const float *recency = (const float *)a[8].view.buf + a[8].rows - n, *base = a[2].view.buf;
    WANT(a[0].rows == d && a[1].rows == d && a[1].columns == d && a[2].rows == d && a[5].rows == before &&
             a[7].rows == a[6].rows && a[8].rows >= n, "refresh: arrays do not fit");
    if (!are_within(a[4].view.buf, before, a[3].rows) || !are_within(a[6].view.buf, a[6].rows, a[3].rows)) goto done;
    if (!(pooled = PyMem_Calloc(d + 1, sizeof(float)))) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        int part = i < before ? 4 : 6;
        Py_ssize_t at = i < before ? i : i - before;
        const float *own = (const float *)a[3].view.buf + d * ((const uint32_t *)a[part].view.buf)[at];
        float share = sqrtf(((const float *)a[part + 1].view.buf)[at]) * recency[i];
        total += share;
        for (Py_ssize_t j = 0; j < d; j++) pooled[j] += share * own[j];
    }
    for (Py_ssize_t j = 0; j < d; j++) pooled[j] /= n ? total : 1.0f;
    for (Py_ssize_t j = 0; j < d; j++) out[j] = base[j] + dot((const float *)a[1].view.buf + d * j, pooled, d);
    if (PyObject_IsTrue(arguments[9])) {
        float length = sqrtf(dot(out, out, d));
        for (Py_ssize_t j = 0; j < d; j++) out[j] /= length > SHORTEST ? length : SHORTEST;
    }
    is_done = 1;
done:
    PyMem_Free(pooled);
    give_back(a, lent);
    return is_done ? Py_NewRef(Py_None) : NULL;
}

/* know(classes): the classes of the forms, in the order of the kinds; they live as long as the process */
static PyObject *know(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    if (given != KINDS) return PyErr_Format(PyExc_TypeError, "%zd forms; wanted %d", given, KINDS);
    for (int kind = 0; kind < KINDS; kind++) {
        if (!PyType_Check(arguments[kind]) || !PyType_IsSubtype((PyTypeObject *)arguments[kind], &PyTuple_Type))
            return PyErr_SetString(PyExc_TypeError, "a form is a class of tuples"), NULL;
        CLASSES[kind] = (PyTypeObject *)Py_NewRef(arguments[kind]);
    }
    Py_RETURN_NONE;
}

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    METHOD(score), METHOD(values), METHOD(top), METHOD(neighbours), METHOD(gather), METHOD(eligible),
    METHOD(refresh), METHOD(know), {0},
};
/* SOURCES: the digest of the sources that this was compiled from, given by setup.py */
static int name_sources(PyObject *module) { return PyModule_AddStringConstant(module, "SOURCES", SOURCES); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, name_sources}, {0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&module); }
