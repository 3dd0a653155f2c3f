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
    sort(keys, keys + n, n, by_place ? 32 : 0);
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
    for (Py_ssize_t s = 0; s < lists->count; s++)
        for (Py_ssize_t j = 0; j < lists->width; j += 16) {
            __builtin_prefetch(lists->near + lists->visited[s] * lists->width + j);
            __builtin_prefetch(lists->scores + lists->visited[s] * lists->width + j);
        }
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

/* The places of the k greatest of n numbers, greatest first, equal ones by place, in the low halves of the keys; how many.
   Bins tell which numbers can be among them, so that only these are sorted. `keys` has room for 2n. */
static Py_ssize_t find_greatest(const float *numbers, Py_ssize_t n, Py_ssize_t k, uint64_t *keys) {
    enum { BINS = 512 };
    Py_ssize_t counts[BINS] = {0}, above = 0, count = 0, lowest_bin = BINS;
    float lowest = INFINITY, highest = -INFINITY;
    for (Py_ssize_t i = 0; i < n; i++) {
        lowest = numbers[i] < lowest ? numbers[i] : lowest;
        highest = numbers[i] > highest ? numbers[i] : highest;
    }
    float scale = (BINS - 1) / (highest - lowest);
    if (!(scale > 0.0f && scale < 1e30f)) scale = 0.0f; /* they are all alike, or not finite: one bin for all */
#define BIN(i) (numbers[i] - lowest > 0.0f ? (int)((numbers[i] - lowest) * scale) : 0)
    if (scale == 0.0f) lowest_bin = 0;
    for (Py_ssize_t i = 0; scale > 0.0f && i < n; i++) counts[BIN(i)]++;
    while (lowest_bin > 0 && above < k) above += counts[--lowest_bin];
    for (Py_ssize_t i = 0; i < n; i++)
        if (scale == 0.0f || BIN(i) >= lowest_bin) keys[count++] = (uint64_t)descending(numbers[i]) << 32 | (uint64_t)i;
#undef BIN
    sort(keys, keys + count, count, 32);
    return count < k ? count : k;
}

#endif
