/* The score of every candidate, as far as it can matter, and the best of them. */
#ifndef SHORTLIST_RANKING_H
#define SHORTLIST_RANKING_H

#include "terms.h"

#define SLACK 1e-4f /* of a bound: far more than what float32 loses on the way to it */

/* Better comes first: the higher score, then the lower place. */
INLINE int is_better(float score, int64_t place, float than, int64_t its) {
    return score > than || (score == than && place < its);
}

/* The best k so far, the worst of them in front: a binary heap. */
typedef struct {
    Py_ssize_t k, count;
    float *scores;
    int64_t *places;
} Best;

static void sink(Best *best, Py_ssize_t at) {
    for (Py_ssize_t child; (child = 2 * at + 1) < best->count; at = child) {
        if (child + 1 < best->count &&
            is_better(best->scores[child], best->places[child], best->scores[child + 1], best->places[child + 1]))
            child++;
        if (!is_better(best->scores[at], best->places[at], best->scores[child], best->places[child])) return;
        float score = best->scores[at];
        int64_t place = best->places[at];
        best->scores[at] = best->scores[child], best->places[at] = best->places[child];
        best->scores[child] = score, best->places[child] = place;
    }
}

static void put_in(Best *best, float score, int64_t place) {
    if (best->count == best->k) {
        best->scores[0] = score, best->places[0] = place;
        sink(best, 0);
        return;
    }
    best->scores[best->count] = score, best->places[best->count] = place;
    if (++best->count == best->k)
        for (Py_ssize_t at = best->k / 2; at-- > 0;) sink(best, at);
}

INLINE void offer(Best *best, float score, int64_t place) {
    if (best->count < best->k || is_better(score, place, best->scores[0], best->places[0])) put_in(best, score, place);
}

INLINE void offer_allowed(Best *best, const float *scores, const char *allowed, Py_ssize_t n) {
    for (Py_ssize_t first = 0; best->k && first < n; first += 8) {
        if (best->count == best->k && first + 8 <= n && !is_any_from(scores + first, best->scores[0])) continue;
        for (Py_ssize_t i = first; i < n && i < first + 8; i++)
            if (allowed[i]) offer(best, scores[i], i);
    }
}

/* places[k]: of the best, in order; how many there are. None is left. Source: heapsort. */
static Py_ssize_t take(Best *best, int64_t *places) {
    Py_ssize_t count = best->count;
    for (Py_ssize_t at = count / 2; at-- > 0;) sink(best, at);
    while (best->count > 0) {
        Py_ssize_t last = --best->count;
        places[last] = best->places[0];
        best->scores[0] = best->scores[last], best->places[0] = best->places[last];
        sink(best, 0);
    }
    return count;
}

/* 0 and an exception: no memory. `free_best` is due in any case. */
static int make_best(Best *best, Py_ssize_t k) {
    *best = (Best){k, 0, PyMem_Malloc((k + 1) * sizeof(float)), PyMem_Malloc((k + 1) * sizeof(int64_t))};
    if (best->scores && best->places) return 1;
    return PyErr_NoMemory(), 0;
}

static void free_best(Best *best) {
    PyMem_Free(best->scores);
    PyMem_Free(best->places);
}

/* Numbers of one call, all of one memory. */
typedef struct {
    float *memory, *found, *cosines, *lengths, *bounds, *direction, *own, *along, *beside, *weights, *sides;
} Scratch;

static int make_scratch(Scratch *scratch, Py_ssize_t n, Py_ssize_t d, Py_ssize_t visited) {
    Py_ssize_t room = (visited + 7) / 8 * 8;
    scratch->memory = PyMem_Malloc((4 * n + 2 * d + 2 * visited + room * (d + 1) + 1) * sizeof(float));
    if (!scratch->memory) return PyErr_NoMemory(), 0;
    scratch->found = scratch->memory, scratch->cosines = scratch->found + n, scratch->lengths = scratch->cosines + n;
    scratch->bounds = scratch->lengths + n, scratch->direction = scratch->bounds + n;
    scratch->own = scratch->direction + d, scratch->along = scratch->own + d, scratch->beside = scratch->along + visited;
    scratch->weights = scratch->beside + visited, scratch->sides = scratch->weights + room;
    return 1;
}

/* What a NEAREST compares with; a weight counts as 1 at most. */
static Sides sides_of(const Asked *asked, Scratch *scratch) {
    const float *visited = asked->unit, *weights = asked->weights;
    Py_ssize_t d = asked->all.d, count = asked->visits, room = (count + 7) / 8 * 8;
    for (Py_ssize_t place = 0; place < room; place++) {
        Py_ssize_t s = place < count ? place : 0;
        float *to = scratch->sides + place / 8 * d * 8 + place % 8;
        for (Py_ssize_t j = 0; j < d; j++) to[j * 8] = visited[s * d + j];
        scratch->weights[place] = weights[s] < 1.0f ? weights[s] : 1.0f;
    }
    return (Sides){scratch->sides, scratch->weights, room / 8};
}

/* Add a term's part of the nearest item to the scores. With `best` only to those that may be among the k best allowed
   ones, who are in it then, and -inf to the others: who cannot be there by the bound is not asked for the products. */
static void add_nearest(const Term *term, const Asked *asked, Scratch *scratch, float *scores, const char *allowed,
                        Best *best) {
    const Candidates *all = &asked->all;
    const float *visited = asked->unit, *q = scratch->direction;
    Py_ssize_t count = asked->visits, n = all->n, d = all->d;
    Sides sides = sides_of(asked, scratch);
#define EXACT(i) sayable(nearest(all->vectors + d * all->items[i], scratch->lengths[i], d, &sides))
    if (!best) {
        for (Py_ssize_t i = 0; i < n; i++) scores[i] += term->weight * EXACT(i);
        return;
    }
    float length = sqrtf(dot(q, q, d));
    for (Py_ssize_t s = 0; s < count; s++) {
        const float *own = visited + s * d;
        float along = length > SHORTEST ? dot(own, q, d) / length : 0.0f, rest = dot(own, own, d) - along * along;
        scratch->along[s] = along * scratch->weights[s];
        scratch->beside[s] = sqrtf(rest > 0.0f ? rest : 0.0f) * scratch->weights[s];
    }
    for (Py_ssize_t i = 0; i < n; i++) scratch->cosines[i] = length > SHORTEST ? scratch->cosines[i] / length : 0.0f;
    float side = term->weight < 0.0f ? -1.0f : 1.0f;
    bound(n, scratch->cosines, scratch->along, scratch->beside, count, side, scratch->found, scratch->bounds);
    float slack = SLACK * fabsf(term->weight);
    for (Py_ssize_t i = 0; i < n; i++) scratch->bounds[i] = scores[i] + term->weight * scratch->bounds[i] + slack;
    offer_allowed(best, scratch->bounds, allowed, n);
    /* Those of the best bounds first, so that the threshold is high when it is the others' turn. */
    for (Py_ssize_t at = 0; at < best->count; at++) {
        int64_t i = best->places[at];
        scores[i] += term->weight * EXACT(i);
        scratch->bounds[i] = -INFINITY; /* done */
        best->scores[at] = scores[i];
    }
    if (best->count == best->k)
        for (Py_ssize_t at = best->k / 2; at-- > 0;) sink(best, at);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (scratch->bounds[i] == -INFINITY) continue;
        if (!allowed[i] || scratch->bounds[i] < best->scores[0]) {
            scores[i] = -INFINITY;
            continue;
        }
        scores[i] += term->weight * EXACT(i);
        offer(best, scores[i], i);
    }
#undef EXACT
}

/* scores[i]: what all terms say of a candidate, by their weights, added to what is there; the k best allowed of them are
   in `best` then. k = 0: none is asked for. What is not among them may be -inf. 0 and an exception: no memory. */
static int add_terms(const Term *terms, Py_ssize_t count, Asked *asked, float *scores, const char *allowed,
                     Best *best) {
    const Candidates *all = &asked->all;
    const Term *of_nearest = NULL;
    Scratch scratch;
    int has_direction = 0, is_done = 0;
    for (Py_ssize_t at = 0; at < count; at++)
        if (terms[at].kind == NEAREST) of_nearest = &terms[at];
    if (!make_scratch(&scratch, all->n, all->d, asked->visits)) return 0;
    memset(scratch.direction, 0, all->d * sizeof(float));
    for (Py_ssize_t at = 0; at < count; at++) {
        const Term *term = &terms[at];
        if (term->kind == TOWARD) { /* a sum of products is the product with a sum */
            add_vector(term, asked, term->weight, scratch.own, scratch.direction);
            has_direction = 1;
        } else if (term->kind != NEAREST) {
            if (!fill(term, asked, scratch.found)) goto done;
            add(scores, scratch.found, all->n, term->weight);
        }
    }
    if (has_direction || of_nearest) {
        toward(all, scratch.direction, scratch.cosines, scratch.lengths);
        add(scores, scratch.cosines, all->n, 1.0f);
    }
    /* Of several, the bound of the last would not count the others. */
    for (Py_ssize_t at = 0; at < count; at++)
        if (terms[at].kind == NEAREST && &terms[at] != of_nearest)
            add_nearest(&terms[at], asked, &scratch, scores, allowed, NULL);
    int is_bounded = best->k > 0 && best->k < all->n;
    if (of_nearest) add_nearest(of_nearest, asked, &scratch, scores, allowed, is_bounded ? best : NULL);
    if (!of_nearest || !is_bounded) offer_allowed(best, scores, allowed, all->n);
    is_done = 1;
done:
    PyMem_Free(scratch.memory);
    return is_done;
}

#endif
