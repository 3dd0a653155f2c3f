/* Where candidates come from beside the stored list: neighbours of visited items, and fresh items that suit a vector. */
#ifndef SHORTLIST_SOURCES_H
#define SHORTLIST_SOURCES_H

#include "ranking.h"

#define TAKEN INT32_MAX /* the place of an item that is a candidate already */

/* Lists of items and their scores, [all items, width], padded with -1; and whose lists are read, by which weight. */
typedef struct {
    const int32_t *near;
    const float *scores;
    Py_ssize_t width;
    const uint32_t *visited;
    const float *weights;
    Py_ssize_t count;
} Lists;

/* Sort n items by descending number, equal ones by what `second` says: the items themselves (0) or their places (1).
   `keys` has room for 2n, `moved` for n. */
static void put_in_order(uint32_t *items, float *numbers, Py_ssize_t n, int by_place, uint64_t *keys, uint32_t *moved) {
    for (Py_ssize_t i = 0; i < n; i++) {
        keys[i] = (uint64_t)descending(numbers[i]) << 32 | (uint64_t)(by_place ? (uint32_t)i : items[i]);
        moved[i] = items[i];
    }
    sort(keys, keys + n, n);
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t low = (uint32_t)keys[i], bits = (uint32_t)(keys[i] >> 32);
        uint32_t of_number = bits >> 31 ? bits : ~bits & 0x7fffffffu;
        items[i] = by_place ? moved[low] : low;
        memcpy(&numbers[i], &of_number, sizeof of_number);
    }
}

/* The neighbours that are not TAKEN, by summed score and then item; how many. `sums` has room for all of them. */
static Py_ssize_t find_neighbours(const Lists *lists, Places *places, uint32_t *items, float *scores, double *sums,
                                  uint64_t *keys, uint32_t *moved) {
    Py_ssize_t count = 0;
    for (Py_ssize_t s = 0; s < lists->count; s++) {
        const int32_t *near = lists->near + lists->visited[s] * lists->width;
        const float *of_near = lists->scores + lists->visited[s] * lists->width;
        for (Py_ssize_t j = 0; j < lists->width && near[j] >= 0; j++) {
            uint32_t slot = slot_of(places, (uint32_t)near[j]);
            int32_t place = places->places[slot];
            if (place == TAKEN) continue;
            if (place < 0) {
                places->items[slot] = items[count] = (uint32_t)near[j];
                places->places[slot] = place = (int32_t)count;
                sums[count++] = 0.0;
            }
            sums[place] += (double)(of_near[j] * lists->weights[s]);
        }
    }
    for (Py_ssize_t i = 0; i < count; i++) scores[i] = (float)sums[i];
    put_in_order(items, scores, count, 0, keys, moved);
    return count;
}

/* The places of the k rows that suit a vector best, best first, equal ones by place; how many, -1 and an exception: no
   memory. `found` has room for n products, `keys` for 2k. */
static Py_ssize_t find_suiting(const float *vectors, Py_ssize_t n, Py_ssize_t d, const float *vector, Py_ssize_t k,
                               float *found, uint64_t *keys) {
    Best best;
    if (!make_best(&best, k)) return -1;
    rows(vectors, n, d, vector, found);
    for (Py_ssize_t i = 0; k && i < n; i++) offer(&best, found[i], i);
    for (Py_ssize_t at = 0; at < best.count; at++)
        keys[at] = (uint64_t)descending(best.scores[at]) << 32 | (uint64_t)best.places[at];
    sort(keys, keys + best.count, best.count);
    Py_ssize_t count = best.count;
    free_best(&best);
    return count;
}

#endif
