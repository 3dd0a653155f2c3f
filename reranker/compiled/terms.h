/* The forms of a signal, as reranker/forms.py defines them: what a candidate is worth by each. */
#ifndef SHORTLIST_TERMS_H
#define SHORTLIST_TERMS_H

#include "products.h"

enum Kind { PLACED, BEFORE, SHARE, OF_ITEM, HALVING, NEAR_NUMBER, OF_CODE, TOGETHER, TOWARD, NEAREST, KINDS };

/* For each kind, what its tuple has: the types of each array, and then so many numbers. */
static const char *const LAYOUT[KINDS][4] = {
    [PLACED] = {"f"}, [SHARE] = {"f"}, [OF_ITEM] = {"fd"}, [HALVING] = {"fd"}, [NEAR_NUMBER] = {"fd", "I", "f"},
    [OF_CODE] = {"i", "I", "f"}, [TOGETHER] = {"i", "f", "I", "f"}, [TOWARD] = {"f", "f"}, [NEAREST] = {"f", "f"},
};
static const int NUMBERS[KINDS] = {[BEFORE] = 1, [SHARE] = 1, [HALVING] = 2, [OF_CODE] = 1, [TOWARD] = 1};
static PyTypeObject *CLASSES[KINDS]; /* of the tuples, in the order of the kinds; see `know` */

typedef struct {
    enum Kind kind;
    float weight;
    Py_ssize_t row; /* its place in the list of forms */
    int count;
    Array arrays[4];
    double numbers[2];
} Term;

/* Who is asked about: places in the whole pool, of which the arrays by place are; NULL: all of it in its order. */
typedef struct {
    Candidates all;
    const int64_t *positions;
    Places places;
    int has_places;
} Asked;

static void free_terms(Term *terms, Py_ssize_t count) {
    for (Py_ssize_t at = 0; at < count; at++) give_back(terms[at].arrays, terms[at].count);
    PyMem_Free(terms);
}

/* A term's arrays must fit the catalogue of `rows` items of `d` numbers, and a pool of `n`. */
static int fits(const Term *term, Py_ssize_t rows, Py_ssize_t d, Py_ssize_t n) {
    const Array *a = term->arrays;
    switch (term->kind) {
        case BEFORE: return 1;
        case PLACED: return a[0].rows >= n;
        case SHARE: return a[0].rows == n && term->numbers[0] >= 0 && term->numbers[0] <= n;
        case OF_ITEM: case HALVING: return a[0].rows == rows;
        case OF_CODE: case NEAR_NUMBER:
            return a[0].rows == rows && a[1].rows == a[2].rows && are_within(a[1].view.buf, a[1].rows, rows);
        case TOGETHER:
            return a[0].rows == a[1].rows && a[0].columns == a[1].columns && a[2].rows == a[3].rows &&
                   are_within(a[2].view.buf, a[2].rows, a[0].rows);
        default: return a[0].columns == d && a[0].rows == a[1].rows && a[0].rows > 0;
    }
}

/* The terms of a list of forms, without those that are None; NULL and an exception: they do not fit the catalogue, or the
   pool of `n`. `weights`: as many, or NULL for none. */
static Term *read_terms(PyObject *forms, PyObject *weights, Py_ssize_t *count, Py_ssize_t rows, Py_ssize_t d,
                        Py_ssize_t n) {
    *count = 0;
    if (!PyList_Check(forms) ||
        (weights && (!PyList_Check(weights) || PyList_GET_SIZE(weights) != PyList_GET_SIZE(forms))))
        return PyErr_SetString(PyExc_TypeError, "forms, weights: wanted lists of one length"), NULL;
    Term *terms = PyMem_Calloc(PyList_GET_SIZE(forms) + 1, sizeof(Term));
    if (!terms) return (Term *)PyErr_NoMemory();
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(forms); at++) {
        PyObject *form = PyList_GET_ITEM(forms, at);
        if (form == Py_None) continue;
        Term *term = &terms[(*count)++];
        term->row = at;
        int kind = 0;
        while (kind < KINDS && Py_TYPE(form) != CLASSES[kind]) kind++;
        if (kind == KINDS) goto unfit;
        term->kind = (enum Kind)kind;
        if (weights) term->weight = (float)PyFloat_AsDouble(PyList_GET_ITEM(weights, at));
        Py_ssize_t place = 0, size = PyTuple_GET_SIZE(form);
        for (; term->count < 4 && LAYOUT[kind][term->count]; term->count++, place++)
            if (place >= size ||
                !lend(&term->arrays[term->count], PyTuple_GET_ITEM(form, place), LAYOUT[kind][term->count], 0))
                goto unfit;
        for (int number = 0; number < NUMBERS[kind]; number++, place++) {
            if (place >= size) goto unfit;
            term->numbers[number] = PyFloat_AsDouble(PyTuple_GET_ITEM(form, place));
        }
        if (PyErr_Occurred() || place != size || !fits(term, rows, d, n)) goto unfit;
    }
    return terms;
unfit:
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "term %zd is of no known form, or does not fit the catalogue", *count - 1);
    free_terms(terms, *count);
    return NULL;
}

/* What a sum by weight is divided by. */
INLINE float strength_of(const Array *weights) {
    float sum = 0.0f;
    for (Py_ssize_t s = 0; s < weights->rows; s++) sum += ((const float *)weights->view.buf)[s];
    return sum > 1.0f ? sum : 1.0f;
}

/* vector += weight times that of a TOWARD; `own` has room for it. */
static void add_vector(const Term *term, float weight, Py_ssize_t d, float *own, float *vector) {
    const float *rows = term->arrays[0].view.buf, *weights = term->arrays[1].view.buf;
    memset(own, 0, d * sizeof *own);
    for (Py_ssize_t s = 0; s < term->arrays[0].rows; s++)
        for (Py_ssize_t j = 0; j < d; j++) own[j] += weights[s] * rows[s * d + j];
    float length = term->numbers[0] ? sqrtf(dot(own, own, d)) : strength_of(&term->arrays[1]);
    float factor = weight / (length > SHORTEST ? length : SHORTEST);
    for (Py_ssize_t j = 0; j < d; j++) vector[j] += own[j] * factor;
}

INLINE float number_of(const Array *array, Py_ssize_t at) {
    const void *numbers = array->view.buf;
    return array->view.format[0] == 'f' ? ((const float *)numbers)[at] : (float)((const double *)numbers)[at];
}

static int fill_codes(const Term *term, const Asked *asked, float *found) {
    const Array *a = term->arrays;
    const int32_t *codes = a[0].view.buf;
    const uint32_t *visited = a[1].view.buf;
    const float *weights = a[2].view.buf;
    float *shares = PyMem_Calloc((size_t)term->numbers[0] + 1, sizeof(float)); /* the first is of a missing value: 0 */
    if (!shares) return PyErr_NoMemory(), 0;
    for (Py_ssize_t s = 0; s < a[1].rows; s++) shares[codes[visited[s]] + 1] += weights[s];
    shares[0] = 0.0f;
    float factor = 1.0f / strength_of(&a[2]);
    for (Py_ssize_t i = 0; i < asked->all.n; i++) found[i] = shares[codes[asked->all.items[i]] + 1] * factor;
    PyMem_Free(shares);
    return 1;
}

static int fill_together(const Term *term, Asked *asked, float *found) {
    const Array *a = term->arrays;
    const uint32_t *visited = a[2].view.buf;
    const float *weights = a[3].view.buf;
    const Candidates *all = &asked->all;
    if (!asked->has_places) {
        if (!make_places(&asked->places, all->n)) return 0;
        asked->has_places = 1;
        for (Py_ssize_t i = 0; i < all->n; i++) put(&asked->places, all->items[i], (int32_t)i);
    }
    memset(found, 0, all->n * sizeof *found);
    float factor = 1.0f / strength_of(&a[3]);
    for (Py_ssize_t s = 0; s < a[2].rows; s++) {
        const int32_t *near = (const int32_t *)a[0].view.buf + visited[s] * a[0].columns;
        const float *scores = (const float *)a[1].view.buf + visited[s] * a[0].columns;
        for (Py_ssize_t j = 0; j < a[0].columns && near[j] >= 0; j++) {
            int32_t place = place_of(&asked->places, (uint32_t)near[j]);
            if (place >= 0) found[place] += scores[j] * weights[s] * factor;
        }
    }
    return 1;
}

/* By weight, the mean logarithm of the visited items' numbers, as a number again; 0: none has one. */
static float usual_of(const Term *term) {
    const uint32_t *visited = term->arrays[1].view.buf;
    double sum = 0.0, strength = 0.0;
    for (Py_ssize_t s = 0; s < term->arrays[1].rows; s++) {
        double number = number_of(&term->arrays[0], visited[s]), weight = ((const float *)term->arrays[2].view.buf)[s];
        if (!(number > 0.0)) continue;
        sum += (weight + 1e-9) * log2(number);
        strength += weight + 1e-9;
    }
    return strength > 0.0 ? (float)exp2(sum / strength) : 0.0f;
}

static void fill_share(const Term *term, const Asked *asked, float *found) {
    const float *numbers = term->arrays[0].view.buf;
    Py_ssize_t listed = (Py_ssize_t)term->numbers[0] ? (Py_ssize_t)term->numbers[0] : term->arrays[0].rows;
    float lowest = INFINITY, highest = -INFINITY;
    for (Py_ssize_t i = 0; i < listed; i++) {
        lowest = numbers[i] < lowest ? numbers[i] : lowest;
        highest = numbers[i] > highest ? numbers[i] : highest;
    }
    for (Py_ssize_t i = 0; i < asked->all.n; i++) {
        float share = (numbers[asked->positions ? asked->positions[i] : i] - lowest) / (highest - lowest);
        share = share < 1.0f ? share : 1.0f;
        share = share > -1.0f ? share : -1.0f;
        found[i] = highest > lowest ? share : 0.0f;
    }
}

/* found[i]: what the signal says of a candidate, of any kind but TOWARD and NEAREST; 0 and an exception: no memory. */
static int fill(const Term *term, Asked *asked, float *found) {
    const Array *first = term->arrays;
    const float *numbers = first->view.buf;
    const uint32_t *items = asked->all.items;
    const int64_t *positions = asked->positions;
    Py_ssize_t n = asked->all.n;
    float usual;
    double factor = 1.0 / term->numbers[1];
    switch (term->kind) {
        case PLACED:
            for (Py_ssize_t i = 0; i < n; i++) found[i] = numbers[positions ? positions[i] : i];
            break;
        case BEFORE:
            for (Py_ssize_t i = 0; i < n; i++)
                found[i] = (positions ? positions[i] : i) < term->numbers[0] ? 1.0f : 0.0f;
            break;
        case SHARE: fill_share(term, asked, found); break;
        case OF_ITEM:
            for (Py_ssize_t i = 0; i < n; i++) found[i] = number_of(first, items[i]);
            break;
        case HALVING: /* in double: a second of an epoch is finer than a float */
            for (Py_ssize_t i = 0; i < n; i++) {
                const double *wide = first->view.buf;
                double value = first->view.format[0] == 'f' ? numbers[items[i]] : wide[items[i]];
                double steps = (term->numbers[0] - value) * factor;
                found[i] = steps < 0.0 ? 0.0f : (float)steps;
            }
            halve(found, n);
            break;
        case NEAR_NUMBER:
            usual = usual_of(term);
            for (Py_ssize_t i = 0; i < n; i++) found[i] = number_of(first, items[i]);
            for (Py_ssize_t i = 0; i < n; i++) {
                float ratio = found[i] / usual, other = usual / found[i];
                ratio = ratio < other ? ratio : other;
                found[i] = found[i] > 0.0f ? ratio : 0.0f;
            }
            if (!(usual > 0.0f)) memset(found, 0, n * sizeof *found);
            break;
        case OF_CODE: return fill_codes(term, asked, found);
        default: return fill_together(term, asked, found);
    }
    return 1;
}

INLINE float sayable(float number) { return fabsf(number) <= 3.4028235e38f ? number : 0.0f; }

#endif
