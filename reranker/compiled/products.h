/* Dot products, eight numbers at a time. Where the processor has AVX2 and FMA the loops are those of a second copy. */
#ifndef SHORTLIST_PRODUCTS_H
#define SHORTLIST_PRODUCTS_H

#include "arrays.h"

typedef float Eight __attribute__((vector_size(32), aligned(4), may_alias));

#define SHORTEST 1e-12f /* a vector of zeros has no direction: its products are zero and stay so */
#define AHEAD 12         /* candidates whose vectors are asked of the memory meanwhile */

typedef int32_t EightBits __attribute__((vector_size(32), aligned(4), may_alias));
typedef float Four __attribute__((vector_size(16)));
typedef int32_t Order __attribute__((vector_size(16)));
#define AT(numbers) (*(const Eight *)(numbers))

INLINE float sum_of(Eight sums) {
    union {
        Eight eight;
        Four four[2];
    } halves = {sums};
    Four sum = halves.four[0] + halves.four[1];
    sum += __builtin_shuffle(sum, (Order){2, 3, 0, 1});
    return sum[0] + sum[1];
}

/* Four sums that do not wait for each other. */
INLINE float dot(const float *one, const float *other, Py_ssize_t d) {
    Eight a = {0}, b = {0}, c = {0}, e = {0};
    Py_ssize_t k = 0;
    for (; k + 32 <= d; k += 32) {
        a += AT(one + k) * AT(other + k);
        b += AT(one + k + 8) * AT(other + k + 8);
        c += AT(one + k + 16) * AT(other + k + 16);
        e += AT(one + k + 24) * AT(other + k + 24);
    }
    for (; k + 8 <= d; k += 8) a += AT(one + k) * AT(other + k);
    float sum = sum_of((a + b) + (c + e));
    for (; k < d; k++) sum += one[k] * other[k];
    return sum;
}

/* The product of a vector with itself and that with another, read once. */
INLINE void both(const float *own, const float *other, Py_ssize_t d, float *square, float *product) {
    Eight a = {0}, b = {0}, c = {0}, e = {0};
    Py_ssize_t k = 0;
    for (; k + 16 <= d; k += 16) {
        Eight one = AT(own + k), two = AT(own + k + 8);
        a += one * one;
        b += two * two;
        c += one * AT(other + k);
        e += two * AT(other + k + 8);
    }
    *square = sum_of(a + b);
    *product = sum_of(c + e);
    for (; k < d; k++) *square += own[k] * own[k], *product += own[k] * other[k];
}

typedef struct {
    const uint32_t *items; /* [n] */
    Py_ssize_t n, d;
    const float *vectors; /* [all items, d] */
} Candidates;

INLINE void fetch(const Candidates *given, Py_ssize_t place) {
    if (place < given->n) {
        const char *at = (const char *)(given->vectors + given->d * given->items[place]);
        for (Py_ssize_t byte = 0; byte < given->d * 4; byte += 64) __builtin_prefetch(at + byte);
    }
}

/* found[i] = v_i · vector */
INLINE void products_body(const Candidates *given, const float *vector, float *found) {
    for (Py_ssize_t i = 0; i < AHEAD; i++) fetch(given, i);
    for (Py_ssize_t i = 0; i < given->n; i++) {
        fetch(given, i + AHEAD);
        found[i] = dot(given->vectors + given->d * given->items[i], vector, given->d);
    }
}

/* found[i] = row i · vector, of n rows that lie one after the other */
INLINE void rows_body(const float *rows, Py_ssize_t n, Py_ssize_t d, const float *vector, float *found) {
    for (Py_ssize_t i = 0; i < n; i++) found[i] = dot(rows + i * d, vector, d);
}

/* cosines[i] = v_i · vector / |v_i| */
INLINE void toward_body(const Candidates *given, const float *vector, float *cosines, float *lengths) {
    for (Py_ssize_t i = 0; i < AHEAD; i++) fetch(given, i);
    for (Py_ssize_t i = 0; i < given->n; i++) {
        const float *own = given->vectors + given->d * given->items[i];
        fetch(given, i + AHEAD);
        both(own, vector, given->d, &lengths[i], &cosines[i]);
    }
    for (Py_ssize_t i = 0; i < given->n; i++) {
        float length = sqrtf(lengths[i]);
        lengths[i] = length > SHORTEST ? length : SHORTEST;
        cosines[i] /= lengths[i];
    }
}

/* Vectors of length 1 to compare with, eight side by side: number j of vector s is at (s / 8 * d + j) * 8 + s % 8. */
typedef struct {
    const float *vectors, *weights; /* in the places that are left in the last eight the first one stands again */
    Py_ssize_t eights;
} Sides;

/* The greatest of weight times cosine to one of the sides. */
INLINE float nearest_body(const float *own, float length, Py_ssize_t d, const Sides *sides) {
    Eight best = {0};
    for (Py_ssize_t at = 0; at < sides->eights; at++) {
        const float *side = sides->vectors + at * d * 8;
        Eight a = {0}, b = {0}, c = {0}, e = {0};
        Py_ssize_t j = 0;
        for (; j + 4 <= d; j += 4) {
            a += own[j] * AT(side + j * 8);
            b += own[j + 1] * AT(side + j * 8 + 8);
            c += own[j + 2] * AT(side + j * 8 + 16);
            e += own[j + 3] * AT(side + j * 8 + 24);
        }
        for (; j < d; j++) a += own[j] * AT(side + j * 8);
        a = ((a + b) + (c + e)) * AT(sides->weights + at * 8);
        EightBits is_more = a > best;
        best = at ? (Eight)((is_more & (EightBits)a) | (~is_more & (EightBits)best)) : a;
    }
    float found = best[0];
    for (int place = 1; place < 8; place++) found = best[place] > found ? best[place] : found;
    return found / length;
}

/* bounds[i]: what `nearest` is at most, or with a side of -1 at least, whatever the vectors are beside the direction q:
   |u·v - (u·q)(v·q)| <= |u - (u·q)q| |v - (v·q)q|. `along` are the v·q and `beside` the lengths of v - (v·q)q. */
INLINE void bound_body(Py_ssize_t n, const float *cosines, const float *along, const float *beside, Py_ssize_t count,
                       float side, float *rests, float *bounds) {
    for (Py_ssize_t i = 0; i < n; i++) {
        float rest = 1.0f - cosines[i] * cosines[i];
        rests[i] = side * sqrtf(rest > 0.0f ? rest : 0.0f);
        bounds[i] = -3e38f;
    }
    for (Py_ssize_t s = 0; s < count; s++) {
        float one = along[s], other = beside[s];
        for (Py_ssize_t i = 0; i < n; i++) {
            float bound = cosines[i] * one + rests[i] * other;
            bounds[i] = bound > bounds[i] ? bound : bounds[i];
        }
    }
}

INLINE float sayable(float number) { return fabsf(number) <= 3.4028235e38f ? number : 0.0f; }

/* sums[i] += weight * numbers[i], where that is a number */
INLINE void add_body(float *restrict sums, const float *restrict numbers, Py_ssize_t n, float weight) {
    for (Py_ssize_t i = 0; i < n; i++) sums[i] += weight * sayable(numbers[i]);
}

/* Any of eight numbers is at least so high. */
INLINE int is_any_from(const float *numbers, float least) {
    union {
        EightBits eight;
        int64_t four[4];
    } is_high = {AT(numbers) >= ((Eight){0} + least)};
    return (is_high.four[0] | is_high.four[1] | is_high.four[2] | is_high.four[3]) != 0;
}

/* The lowest and the highest of n numbers; infinite the other way round where there are none. */
INLINE void extremes_body(const float *numbers, Py_ssize_t n, float *lowest, float *highest) {
    Eight low = (Eight){0} + INFINITY, high = -low;
    Py_ssize_t i = 0;
    for (; i + 8 <= n; i += 8) {
        EightBits is_less = AT(numbers + i) < low, is_more = AT(numbers + i) > high;
        low = (Eight)((is_less & (EightBits)AT(numbers + i)) | (~is_less & (EightBits)low));
        high = (Eight)((is_more & (EightBits)AT(numbers + i)) | (~is_more & (EightBits)high));
    }
    *lowest = INFINITY, *highest = -INFINITY;
    for (int place = 0; place < 8; place++) {
        *lowest = low[place] < *lowest ? low[place] : *lowest;
        *highest = high[place] > *highest ? high[place] : *highest;
    }
    for (; i < n; i++) {
        *lowest = numbers[i] < *lowest ? numbers[i] : *lowest;
        *highest = numbers[i] > *highest ? numbers[i] : *highest;
    }
}

enum { BINS = 512 };

/* bins[i]: of BINS of one width, number 0 for the highest numbers; 0 for all where they are alike or not finite. */
INLINE void find_bins_body(const float *restrict numbers, Py_ssize_t n, uint16_t *restrict bins) {
    float lowest, highest;
    extremes_body(numbers, n, &lowest, &highest);
    float scale = (BINS - 1) / (highest - lowest);
    if (!(scale > 0.0f && scale < 1e30f)) scale = highest = 0.0f;
    for (Py_ssize_t i = 0; i < n; i++) {
        float bin = (highest - numbers[i]) * scale;
        bins[i] = (uint16_t)(int32_t)(bin > 0.0f ? bin : 0.0f); /* of no number, too */
    }
}

/* numbers[i] = 2^-numbers[i], of numbers from 0 on; a NaN stays one. */
INLINE void halve_body(float *numbers, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        float x = numbers[i] < 126.0f ? -numbers[i] : -126.0f;
        int32_t whole = (int32_t)(x - 0.5f), bits;
        float f = (x - (float)whole) * 0.69314718f, power;
        float found = 0.041666667f + f * (0.0083333333f + f * 0.0013888889f); /* the series of e^f to its sixth power */
        found = 1.0f + f * (1.0f + f * (0.5f + f * (0.16666667f + f * found)));
        bits = (whole + 127) << 23;
        memcpy(&power, &bits, sizeof power);
        numbers[i] = numbers[i] != numbers[i] ? numbers[i] : found * power;
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#define WIDE __attribute__((target("avx2,fma")))
#define IS_WIDE (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define WIDE
#define IS_WIDE 0
#endif

/* name(arguments): the body, compiled for any processor and for a wide one, chosen at the call. */
#define TWICE(type, name, parameters, arguments)                           \
    WIDE static type name##_wide parameters { return name##_body arguments; } \
    static type name##_any parameters { return name##_body arguments; }    \
    static type name parameters { return IS_WIDE ? name##_wide arguments : name##_any arguments; }

TWICE(void, products, (const Candidates *given, const float *vector, float *found), (given, vector, found))
TWICE(void, rows, (const float *rows, Py_ssize_t n, Py_ssize_t d, const float *vector, float *found),
      (rows, n, d, vector, found))
TWICE(void, toward, (const Candidates *given, const float *vector, float *cosines, float *lengths),
      (given, vector, cosines, lengths))
TWICE(float, nearest, (const float *own, float length, Py_ssize_t d, const Sides *sides), (own, length, d, sides))
TWICE(void, bound,
      (Py_ssize_t n, const float *cosines, const float *along, const float *beside, Py_ssize_t count, float side,
       float *rests, float *bounds),
      (n, cosines, along, beside, count, side, rests, bounds))
TWICE(void, add, (float *sums, const float *numbers, Py_ssize_t n, float weight), (sums, numbers, n, weight))
TWICE(void, extremes, (const float *numbers, Py_ssize_t n, float *lowest, float *highest), (numbers, n, lowest, highest))
TWICE(void, find_bins, (const float *numbers, Py_ssize_t n, uint16_t *bins), (numbers, n, bins))
TWICE(void, halve, (float *numbers, Py_ssize_t n), (numbers, n))

#endif
