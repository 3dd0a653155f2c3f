/* The loops of an answer, compiled. What they compute is defined in Python, in reranker/forms.py and beside each caller;
   arrays are numpy's, those that are written belong to the caller. What could lead beyond an array is checked. */
#include "ranking.h"

/* score(out, items, vectors, allowed, weights, forms, k) */
static PyObject *score(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"wf", "I", "f", "?", NULL};
    Array a[4];
    Term *terms = NULL;
    Py_ssize_t count = 0;
    int lent = 0, is_done = 0;
    Asked asked = {0};
    if (!lend_all(a, &lent, arguments, given, 7, types)) goto done;
    Py_ssize_t n = a[1].rows, k = PyLong_AsSsize_t(arguments[6]);
    WANT(a[0].rows == n && a[3].rows == n, "score: arrays of other lengths than the items");
    WANT(k >= 0, "score: k below 0");
    if (!are_within(a[1].view.buf, n, a[2].rows)) goto done;
    if (!(terms = read_terms(arguments[5], arguments[4], &count, a[2].rows, a[2].columns, n))) goto done;
    asked.all = (Candidates){a[1].view.buf, n, a[2].columns, a[2].view.buf};
    is_done = add_terms(terms, count, &asked, a[0].view.buf, a[3].view.buf, k);
done:
    free_places(&asked.places);
    if (terms) free_terms(terms, count);
    give_back(a, lent);
    return is_done ? Py_NewRef(Py_None) : NULL;
}

/* values(out, items, positions, vectors, forms, n): out is zero where a form is None */
static PyObject *values(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"wf", "I", "l", "f", NULL};
    Array a[4];
    Term *terms = NULL;
    Py_ssize_t count = 0;
    int lent = 0, is_done = 0;
    float *scratch = NULL;
    Asked asked = {0};
    if (!lend_all(a, &lent, arguments, given, 6, types)) goto done;
    Py_ssize_t m = a[1].rows, d = a[3].columns, n = PyLong_AsSsize_t(arguments[5]);
    const int64_t *positions = a[2].view.buf;
    WANT(a[2].rows == m, "values: as many positions as items");
    for (Py_ssize_t i = 0; i < m; i++) WANT(positions[i] >= 0 && positions[i] < n, "values: a position beyond the pool");
    if (!are_within(a[1].view.buf, m, a[3].rows)) goto done;
    if (!(terms = read_terms(arguments[4], NULL, &count, a[3].rows, d, n))) goto done;
    WANT(a[0].rows == PyList_GET_SIZE(arguments[4]) && a[0].columns == m, "values: out is not [terms, items]");
    asked.all = (Candidates){a[1].view.buf, m, d, a[3].view.buf};
    asked.positions = positions;
    if (!(scratch = PyMem_Calloc(2 * m + 2 * d + 1, sizeof(float)))) {
        PyErr_NoMemory();
        goto done;
    }
    float *lengths = scratch, *cosines = lengths + m, *own = cosines + m, *vector = own + d;
    memset(a[0].view.buf, 0, a[0].view.len);
    for (Py_ssize_t at = 0; at < count; at++) {
        const Term *term = &terms[at];
        float *found = (float *)a[0].view.buf + term->row * m;
        if (term->kind == TOWARD || term->kind == NEAREST) {
            memset(vector, 0, d * sizeof *vector);
            if (term->kind == TOWARD) add_vector(term, 1.0f, d, own, vector);
            toward(&asked.all, vector, term->kind == TOWARD ? found : cosines, lengths);
        } else if (!fill(term, &asked, found)) {
            goto done;
        }
        for (Py_ssize_t i = 0; term->kind == NEAREST && i < m; i++)
            found[i] = nearest(asked.all.vectors + d * asked.all.items[i], lengths[i], d, term->arrays[0].view.buf,
                               term->arrays[1].view.buf, term->arrays[0].rows);
        for (Py_ssize_t i = 0; i < m; i++) found[i] = sayable(found[i]);
    }
    is_done = 1;
done:
    PyMem_Free(scratch);
    free_places(&asked.places);
    if (terms) free_terms(terms, count);
    give_back(a, lent);
    return is_done ? Py_NewRef(Py_None) : NULL;
}

/* top(out, scores, allowed) -> how many of out[k] are filled */
static PyObject *top(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"wl", "f", "?", NULL};
    Array a[3];
    Best best = {0};
    uint64_t *keys = NULL;
    int lent = 0, is_done = 0;
    if (!lend_all(a, &lent, arguments, given, 3, types)) goto done;
    const float *scores = a[1].view.buf;
    const char *allowed = a[2].view.buf;
    int64_t *found = a[0].view.buf;
    WANT(a[1].rows == a[2].rows && a[1].rows < INT32_MAX, "top: as many scores as candidates");
    if (!make_best(&best, a[0].rows) || !(keys = PyMem_Malloc((2 * best.k + 1) * sizeof *keys))) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; best.k && i < a[1].rows; i++)
        if (allowed[i]) offer(&best, scores[i], i);
    for (Py_ssize_t at = 0; at < best.count; at++)
        keys[at] = (uint64_t)descending(best.scores[at]) << 32 | (uint64_t)best.places[at];
    sort(keys, keys + best.count, best.count);
    for (Py_ssize_t at = 0; at < best.count; at++) found[at] = (int64_t)(keys[at] & 0xffffffffu);
    is_done = 1;
done:
    PyMem_Free(keys);
    free_best(&best);
    give_back(a, lent);
    return is_done ? PyLong_FromSsize_t(best.count) : NULL;
}

/* neighbours(items, scores, near, near_scores, visited, weights, known) -> how many items and scores are filled */
static PyObject *neighbours(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"wI", "wf", "iI", "f", "I", "f", "I", NULL};
    Array a[7];
    Places places = {0};
    double *sums = NULL;
    uint64_t *keys = NULL;
    int lent = 0, is_done = 0;
    Py_ssize_t count = 0;
    if (!lend_all(a, &lent, arguments, given, 7, types)) goto done;
    uint32_t *items = a[0].view.buf;
    float *scores = a[1].view.buf;
    const uint32_t *visited = a[4].view.buf, *known = a[6].view.buf;
    const float *weights = a[5].view.buf;
    Py_ssize_t width = a[2].columns, most = width * a[4].rows, known_count = a[6].rows;
    WANT(a[2].rows == a[3].rows && a[3].columns == width && a[4].rows == a[5].rows, "neighbours: arrays do not fit");
    WANT(a[0].rows >= most && a[1].rows >= most && most < INT32_MAX, "neighbours: no room");
    if (!are_within(visited, a[4].rows, a[2].rows) || !make_places(&places, most + known_count)) goto done;
    sums = PyMem_Malloc((most + 1) * sizeof *sums), keys = PyMem_Malloc((2 * most + 1) * sizeof *keys);
    if (!sums || !keys) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < known_count; i++) put(&places, known[i], INT32_MAX);
    for (Py_ssize_t s = 0; s < a[4].rows; s++) {
        const int32_t *near = (const int32_t *)a[2].view.buf + visited[s] * width;
        const float *of_near = (const float *)a[3].view.buf + visited[s] * width;
        for (Py_ssize_t j = 0; j < width && near[j] >= 0; j++) {
            uint32_t slot = slot_of(&places, (uint32_t)near[j]);
            int32_t place = places.places[slot];
            if (place == INT32_MAX) continue;
            if (place < 0) {
                places.items[slot] = items[count] = (uint32_t)near[j];
                places.places[slot] = place = (int32_t)count;
                sums[count++] = 0.0;
            }
            sums[place] += (double)(of_near[j] * weights[s]);
        }
    }
    for (Py_ssize_t i = 0; i < count; i++) keys[i] = (uint64_t)descending((float)sums[i]) << 32 | items[i];
    sort(keys, keys + count, count);
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)(keys[i] >> 32), of_score = bits >> 31 ? bits : ~bits & 0x7fffffffu;
        items[i] = (uint32_t)keys[i];
        memcpy(&scores[i], &of_score, sizeof of_score);
    }
    is_done = 1;
done:
    PyMem_Free(sums);
    PyMem_Free(keys);
    free_places(&places);
    give_back(a, lent);
    return is_done ? PyLong_FromSsize_t(count) : NULL;
}

/* order(items, scores, vectors, vector): scores become the products with a vector, and both are put in their order */
static PyObject *order(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"wI", "wf", "f", "f", NULL};
    Array a[4];
    uint64_t *keys = NULL;
    uint32_t *before = NULL;
    int lent = 0, is_done = 0;
    if (!lend_all(a, &lent, arguments, given, 4, types)) goto done;
    uint32_t *items = a[0].view.buf;
    float *scores = a[1].view.buf;
    Py_ssize_t n = a[0].rows, d = a[2].columns;
    WANT(a[1].rows == n && a[3].rows == d && n < INT32_MAX, "order: arrays do not fit");
    if (!are_within(items, n, a[2].rows)) goto done;
    keys = PyMem_Malloc((2 * n + 1) * sizeof *keys), before = PyMem_Malloc((2 * n + 1) * sizeof *before);
    if (!keys || !before) {
        PyErr_NoMemory();
        goto done;
    }
    Candidates all = {items, n, d, a[2].view.buf};
    for (Py_ssize_t i = 0; i < n && i < AHEAD; i++) fetch(&all, i);
    for (Py_ssize_t i = 0; i < n; i++) {
        fetch(&all, i + AHEAD);
        before[i] = items[i];
        ((float *)before)[n + i] = dot(all.vectors + d * items[i], a[3].view.buf, d);
        keys[i] = (uint64_t)descending(((float *)before)[n + i]) << 32 | (uint64_t)i;
    }
    sort(keys, keys + n, n);
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t from = (uint32_t)keys[i];
        items[i] = before[from];
        scores[i] = ((float *)before)[n + from];
    }
    is_done = 1;
done:
    PyMem_Free(keys);
    PyMem_Free(before);
    give_back(a, lent);
    return is_done ? Py_NewRef(Py_None) : NULL;
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
    if (!are_within(items, a[1].rows, a[2].rows) || !make_places(&hidden, a[3].rows)) goto done;
    for (Py_ssize_t i = 0; i < a[3].rows; i++) put(&hidden, of_hidden[i], 0);
    for (Py_ssize_t i = 0; i < a[1].rows; i++) out[i] = shown[items[i]] && place_of(&hidden, items[i]) < 0;
    is_done = 1;
done:
    free_places(&hidden);
    give_back(a, lent);
    return is_done ? Py_NewRef(Py_None) : NULL;
}

/* among(out, items, others): out[i] is whether items[i], each there once, is among the others */
static PyObject *among(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"w?", "I", "I", NULL};
    Array a[3];
    Places places = {0};
    int lent = 0, is_done = 0;
    if (!lend_all(a, &lent, arguments, given, 3, types)) goto done;
    char *out = a[0].view.buf;
    const uint32_t *items = a[1].view.buf, *others = a[2].view.buf;
    WANT(a[0].rows == a[1].rows && a[1].rows < INT32_MAX, "among: as many answers as items");
    if (!make_places(&places, a[1].rows)) goto done;
    memset(out, 0, a[0].rows);
    for (Py_ssize_t i = 0; i < a[1].rows; i++) put(&places, items[i], (int32_t)i);
    for (Py_ssize_t i = 0; i < a[2].rows; i++) {
        int32_t place = place_of(&places, others[i]);
        if (place >= 0) out[place] = 1;
    }
    is_done = 1;
done:
    free_places(&places);
    give_back(a, lent);
    return is_done ? Py_NewRef(Py_None) : NULL;
}

/* unit(out, vectors, items): out[s] is vectors[items[s]] at length 1 */
static PyObject *unit(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    static const char *const types[] = {"wf", "f", "I", NULL};
    Array a[3];
    int lent = 0, is_done = 0;
    if (!lend_all(a, &lent, arguments, given, 3, types)) goto done;
    Py_ssize_t d = a[1].columns, count = a[2].rows;
    const uint32_t *items = a[2].view.buf;
    WANT(a[0].rows == count && a[0].columns == d, "unit: out is not [items, d]");
    if (!are_within(items, count, a[1].rows)) goto done;
    for (Py_ssize_t s = 0; s < count; s++) {
        const float *from = (const float *)a[1].view.buf + d * items[s];
        float *to = (float *)a[0].view.buf + d * s, length = sqrtf(dot(from, from, d));
        for (Py_ssize_t j = 0; j < d; j++) to[j] = from[j] / (length > SHORTEST ? length : SHORTEST);
    }
    is_done = 1;
done:
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
    METHOD(score), METHOD(values), METHOD(top), METHOD(neighbours), METHOD(unit), METHOD(order), METHOD(eligible),
    METHOD(among), METHOD(refresh), METHOD(know), {0},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&module); }
