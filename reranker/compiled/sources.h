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

/* The keys of the k greatest of n numbers, greatest first, equal ones by what `second` says of each, or by place; how many.
   A key is `descending` of the number, and below it its `second` or its place. `keys` has room for 2n.
   Bins tell which numbers can be among them and about where, so that few are left to be sorted in each. */
static Py_ssize_t find_greatest(const float *numbers, const uint32_t *second, Py_ssize_t n, Py_ssize_t k,
                                uint64_t *keys) {
    Py_ssize_t ends[BINS + 1] = {0}, bins = 0;
    uint16_t *bin_of = (uint16_t *)(keys + n); /* which is not needed before there are keys */
    find_bins(numbers, n, bin_of);
    for (Py_ssize_t i = 0; i < n; i++) ends[bin_of[i] + 1]++;
    for (; bins < BINS && ends[bins] < k; bins++) ends[bins + 1] += ends[bins]; /* where each begins, so far */
    for (Py_ssize_t i = 0; i < n; i++)
        if (bin_of[i] < bins)
            keys[ends[bin_of[i]]++] = (uint64_t)descending(numbers[i]) << 32 | (second ? second[i] : (uint32_t)i);
    for (Py_ssize_t bin = 0, begin = 0; bin < bins; begin = ends[bin++])
        if (ends[bin] - begin > 1) sort(keys + begin, keys + n + begin, ends[bin] - begin);
    Py_ssize_t count = bins ? ends[bins - 1] : 0;
    return count < k ? count : k;
}

INLINE float number_in(uint64_t key) {
    uint32_t above = (uint32_t)(key >> 32), bits = above >> 31 ? above : ~above & 0x7fffffffu;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* Sort n items by descending number, equal ones by place. `keys` has room for 2n, `moved` for n. */
static void put_in_order(uint32_t *items, float *numbers, Py_ssize_t n, uint64_t *keys, uint32_t *moved) {
    memcpy(moved, items, n * sizeof *items);
    find_greatest(numbers, NULL, n, n, keys);
    for (Py_ssize_t i = 0; i < n; i++) items[i] = moved[(uint32_t)keys[i]], numbers[i] = number_in(keys[i]);
}

/* The k best neighbours that are not TAKEN, by summed score and then item; how many there are. `items`, `scores` and
   `sums` have room for all neighbours, `keys` for twice as many. */
static Py_ssize_t find_neighbours(const Lists *lists, Places *places, Py_ssize_t k, uint32_t *items, float *scores,
                                  double *sums, uint64_t *keys) {
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
    count = find_greatest(scores, items, count, k, keys);
    for (Py_ssize_t i = 0; i < count; i++) items[i] = (uint32_t)keys[i], scores[i] = number_in(keys[i]);
    return count;
}

#endif
