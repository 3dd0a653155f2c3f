/* The forms of a signal, as reranker/forms.py defines them: what a candidate is worth by each. */
#ifndef SHORTLIST_TERMS_H
#define SHORTLIST_TERMS_H

#include "asked.h"

enum Kind {
    PLACED, BEFORE, SHARE, OF_ITEM, HALVING, NEAR_NUMBER, OF_CODE, TOGETHER, MISSED, MET, TOWARD, NEAREST, KINDS
};
enum To { SESSION, MEAN, LATEST, USER };

/* For each kind, what its tuple has: the types of each array, and then so many numbers; whether the array may be a column
   of a table; and whether it needs a session. */
static const char *const LAYOUT[KINDS][3] = {
    [PLACED] = {"f"}, [OF_ITEM] = {"fd"}, [HALVING] = {"fd"}, [NEAR_NUMBER] = {"fd"}, [OF_CODE] = {"i"},
    [TOGETHER] = {"i", "f"},
};
static const int NUMBERS[KINDS] = {[HALVING] = 2, [OF_CODE] = 1, [TOGETHER] = 1, [TOWARD] = 1};
static const int FLAGS[KINDS] = {
    [OF_ITEM] = PyBUF_STRIDES, [HALVING] = PyBUF_STRIDES, [NEAR_NUMBER] = PyBUF_STRIDES, [OF_CODE] = PyBUF_STRIDES,
};
static const int NEEDS_SESSION[KINDS] = {
    [NEAR_NUMBER] = 1, [OF_CODE] = 1, [TOGETHER] = 1, [TOWARD] = 1, [NEAREST] = 1,
};
static PyTypeObject *CLASSES[KINDS]; /* of the tuples, in the order of the kinds; see `know` */

typedef struct {
    enum Kind kind;
    float weight;
    Py_ssize_t row; /* its place in the list of forms */
    int count;
    Array arrays[2];
    double numbers[2];
} Term;

static void free_terms(Term *terms, Py_ssize_t count) {
    for (Py_ssize_t at = 0; at < count; at++) give_back(terms[at].arrays, terms[at].count);
    PyMem_Free(terms);
}

/* A term's arrays must fit the catalogue and the pool. */
static int fits(const Term *term, const Asked *asked) {
    const Array *a = term->arrays;
    switch (term->kind) {
        case PLACED: return a[0].rows > 0;
        case OF_ITEM: case HALVING: case NEAR_NUMBER: return a[0].rows == asked->rows;
        case OF_CODE: return a[0].rows == asked->rows && term->numbers[0] >= 0 && term->numbers[0] < INT32_MAX;
        case TOGETHER:
            return a[0].rows == asked->rows && a[1].rows == asked->rows && a[0].columns == a[1].columns &&
                   term->numbers[0] > 0;
        case TOWARD: return term->numbers[0] >= SESSION && term->numbers[0] <= USER;
        default: return 1;
    }
}

/* How many of the visited items a TOGETHER looks up. */
INLINE Py_ssize_t latest_of(const Term *term, const Asked *asked) {
    return term->numbers[0] < (double)asked->visits ? (Py_ssize_t)term->numbers[0] : asked->visits;
}

/* The terms of a list of forms, without those that are None or have nothing to go by; NULL and an exception: they do not
   fit. `weights`: as many, or NULL for none. */
static Term *read_terms(PyObject *forms, PyObject *weights, Py_ssize_t *count, const Asked *asked) {
    *count = 0;
    if (!PyList_Check(forms) ||
        (weights && (!PyList_Check(weights) || PyList_GET_SIZE(weights) != PyList_GET_SIZE(forms))))
        return PyErr_SetString(PyExc_TypeError, "forms, weights: wanted lists of one length"), NULL;
    Term *terms = PyMem_Calloc(PyList_GET_SIZE(forms) + 1, sizeof(Term));
    if (!terms) return (Term *)PyErr_NoMemory();
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(forms); at++) {
        PyObject *form = PyList_GET_ITEM(forms, at);
        if (form == Py_None) continue;
        Term *term = &terms[*count];
        int kind = 0;
        while (kind < KINDS && Py_TYPE(form) != CLASSES[kind]) kind++;
        if (kind == KINDS) goto unfit;
        if (NEEDS_SESSION[kind] && asked->visits == 0) continue;
        ++*count;
        term->row = at;
        term->kind = (enum Kind)kind;
        if (weights) term->weight = (float)PyFloat_AsDouble(PyList_GET_ITEM(weights, at));
        Py_ssize_t place = 0, size = PyTuple_GET_SIZE(form);
        for (; term->count < 2 && LAYOUT[kind][term->count]; term->count++, place++)
            if (place >= size ||
                !lend(&term->arrays[term->count], PyTuple_GET_ITEM(form, place), LAYOUT[kind][term->count], FLAGS[kind]))
                goto unfit;
        for (int number = 0; number < NUMBERS[kind]; number++, place++) {
            if (place >= size) goto unfit;
            term->numbers[number] = PyFloat_AsDouble(PyTuple_GET_ITEM(form, place));
        }
        if (PyErr_Occurred() || place != size || !fits(term, asked)) goto unfit;
        for (int list = 0; kind == TOGETHER && list < 2; list++)
            fetch_rows(&term->arrays[list], asked->visited, latest_of(term, asked));
    }
    return terms;
unfit:
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "a form is not a known one, or does not fit the catalogue");
    free_terms(terms, *count);
    return NULL;
}

/* What a sum by these weights is divided by. */
INLINE float strength_of(const float *weights, Py_ssize_t count) {
    float sum = 0.0f;
    for (Py_ssize_t s = 0; s < count; s++) sum += weights[s];
    return sum > 1.0f ? sum : 1.0f;
}

/* vector += weight times that of a TOWARD; `own` has room for it. */
static void add_vector(const Term *term, const Asked *asked, float weight, float *own, float *vector) {
    Py_ssize_t d = asked->all.d;
    enum To to = (enum To)term->numbers[0];
    float length = 1.0f;
    const float *from = to == USER ? asked->user : asked->unit;
    if (!from) return;
    memset(own, 0, d * sizeof *own);
    if (to == USER || to == LATEST) {
        for (Py_ssize_t j = 0; j < d; j++) own[j] = from[j];
    } else {
        for (Py_ssize_t s = 0; s < asked->visits; s++)
            for (Py_ssize_t j = 0; j < d; j++) own[j] += asked->weights[s] * from[s * d + j];
    }
    if (to == USER || to == MEAN) length = sqrtf(dot(own, own, d));
    if (to == SESSION) length = strength_of(asked->weights, asked->visits);
    float factor = weight / (length > SHORTEST ? length : SHORTEST);
    for (Py_ssize_t j = 0; j < d; j++) vector[j] += own[j] * factor;
}

/* An item's number in a column of numbers or codes. */
#define IN(type, column, item) (*(const type *)((const char *)(column)->view.buf + (column)->step * (Py_ssize_t)(item)))

INLINE double number_of(const Array *column, Py_ssize_t item) {
    return column->view.format[0] == 'f' ? IN(float, column, item) : IN(double, column, item);
}

static void fill_numbers(const Array *column, const uint32_t *items, Py_ssize_t n, float *found) {
    if (column->view.format[0] == 'f')
        for (Py_ssize_t i = 0; i < n; i++) found[i] = IN(float, column, items[i]);
    else
        for (Py_ssize_t i = 0; i < n; i++) found[i] = (float)IN(double, column, items[i]);
}

/* The place of an item's code among `count` of them, the first of which is for a missing value; there for any other, too. */
INLINE uint32_t place_of_code(const Array *codes, Py_ssize_t item, uint32_t count, int *is_beyond) {
    uint32_t place = (uint32_t)IN(int32_t, codes, item) + 1;
    *is_beyond |= place >= count;
    return place < count ? place : 0;
}

static int fill_codes(const Term *term, const Asked *asked, float *found) {
    const Array *codes = term->arrays;
    uint32_t count = (uint32_t)term->numbers[0] + 1;
    int is_beyond = 0;
    float *shares = PyMem_Calloc(count, sizeof(float));
    if (!shares) return PyErr_NoMemory(), 0;
    for (Py_ssize_t s = 0; s < asked->visits; s++)
        shares[place_of_code(codes, asked->visited[s], count, &is_beyond)] += asked->weights[s];
    shares[0] = 0.0f;
    float factor = 1.0f / strength_of(asked->weights, asked->visits);
    for (Py_ssize_t i = 0; i < asked->all.n; i++)
        found[i] = shares[place_of_code(codes, asked->all.items[i], count, &is_beyond)] * factor;
    PyMem_Free(shares);
    if (is_beyond) PyErr_Format(PyExc_IndexError, "a code beyond the %u that there are", count - 1);
    return !is_beyond;
}

static int fill_together(const Term *term, Asked *asked, float *found) {
    const Array *a = term->arrays;
    Py_ssize_t latest = latest_of(term, asked);
    if (!know_places(asked)) return 0;
    memset(found, 0, asked->all.n * sizeof *found);
    float factor = 1.0f / strength_of(asked->weights, latest);
    for (Py_ssize_t s = 0; s < latest; s++) {
        const int32_t *near = (const int32_t *)a[0].view.buf + asked->visited[s] * a[0].columns;
        const float *scores = (const float *)a[1].view.buf + asked->visited[s] * a[0].columns;
        for (Py_ssize_t j = 0; j < a[0].columns && near[j] >= 0; j++) {
            int32_t place = place_of(&asked->places, (uint32_t)near[j]);
            if (place >= 0) found[place] += scores[j] * asked->weights[s] * factor;
        }
    }
    return 1;
}

static int fill_missed(Asked *asked, float *found) {
    memset(found, 0, asked->all.n * sizeof *found);
    if (asked->n_missed == 0) return 1;
    if (!know_places(asked)) return 0;
    for (Py_ssize_t i = 0; i < asked->n_missed; i++) {
        int32_t place = place_of(&asked->places, asked->missed[i]);
        if (place >= 0) found[place] = asked->misses[i];
    }
    return 1;
}

static int fill_met(Asked *asked, float *found) {
    memset(found, 0, asked->all.n * sizeof *found);
    if (asked->n_history == 0) return 1;
    if (!know_places(asked)) return 0;
    for (Py_ssize_t i = 0; i < asked->n_history; i++) {
        int32_t place = place_of(&asked->places, asked->history[i]);
        if (place >= 0) found[place] = 0.5f + 0.5f * found[place];
    }
    return 1;
}

/* By weight, the mean logarithm of the visited items' numbers, as a number again; 0: none has one. */
static float usual_of(const Term *term, const Asked *asked) {
    double sum = 0.0, strength = 0.0;
    for (Py_ssize_t s = 0; s < asked->visits; s++) {
        double number = (float)number_of(term->arrays, asked->visited[s]), weight = asked->weights[s];
        if (!(number > 0.0)) continue;
        sum += (weight + 1e-9) * log2(number);
        strength += weight + 1e-9;
    }
    return strength > 0.0 ? (float)exp2(sum / strength) : 0.0f;
}

static void fill_share(const Asked *asked, float *found) {
    const float *numbers = asked->base_scores;
    Py_ssize_t listed = asked->listed ? asked->listed : asked->pool;
    float lowest, highest;
    extremes(numbers, listed, &lowest, &highest);
    if (!(highest > lowest)) {
        memset(found, 0, asked->all.n * sizeof *found);
        return;
    }
    if (asked->positions)
        for (Py_ssize_t i = 0; i < asked->all.n; i++) found[i] = numbers[asked->positions[i]];
    else
        memcpy(found, numbers, asked->all.n * sizeof *found);
    for (Py_ssize_t i = 0; i < asked->all.n; i++) {
        float share = (found[i] - lowest) / (highest - lowest);
        share = share < 1.0f ? share : 1.0f;
        found[i] = share > -1.0f ? share : -1.0f;
    }
}

/* found[i]: what the signal says of a candidate, of any kind but TOWARD and NEAREST; 0 and an exception: no memory. */
static int fill(const Term *term, Asked *asked, float *found) {
    const Array *first = term->arrays;
    const uint32_t *items = asked->all.items;
    const int64_t *positions = asked->positions;
    Py_ssize_t n = asked->all.n;
    float usual;
    double factor = 1.0 / term->numbers[1];
    switch (term->kind) {
        case PLACED:
            for (Py_ssize_t i = 0; i < n; i++) {
                Py_ssize_t place = positions ? positions[i] : i;
                found[i] = IN(float, first, place < first->rows ? place : first->rows - 1);
            }
            break;
        case BEFORE:
            for (Py_ssize_t i = 0; i < n; i++)
                found[i] = (positions ? positions[i] : i) < asked->listed ? 1.0f : 0.0f;
            break;
        case SHARE: fill_share(asked, found); break;
        case OF_ITEM: fill_numbers(first, items, n, found); break;
        case HALVING: /* in double: a second of an epoch is finer than a float */
            for (Py_ssize_t i = 0; i < n; i++) {
                double steps = (term->numbers[0] - number_of(first, items[i])) * factor;
                found[i] = steps < 0.0 ? 0.0f : (float)steps;
            }
            halve(found, n);
            break;
        case NEAR_NUMBER:
            usual = usual_of(term, asked);
            fill_numbers(first, items, n, found);
            for (Py_ssize_t i = 0; i < n; i++) {
                float ratio = found[i] / usual, other = usual / found[i];
                ratio = ratio < other ? ratio : other;
                found[i] = found[i] > 0.0f ? ratio : 0.0f;
            }
            if (!(usual > 0.0f)) memset(found, 0, n * sizeof *found);
            break;
        case OF_CODE: return fill_codes(term, asked, found);
        case MISSED: return fill_missed(asked, found);
        case MET: return fill_met(asked, found);
        default: return fill_together(term, asked, found);
    }
    return 1;
}

#endif
