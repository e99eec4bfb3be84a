/* LoRA on a CPU: y[row] += scale * B (A x[row]), for rows that use different adapters.

   Every row names a slot; a slot has factors for each slice of a packed layer's output. Rows are taken ROWS at a time
   where neighbours share a slot (a prompt), else one by one (decoding), and never touch another slot's factors. All
   sums are float32, and y is rounded once. Plain C with the vector extensions of GCC and Clang, and OpenMP.

   The functions are written once, and compiled for each type of number by including this file again. */

#ifndef NUMBER

#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

/* A tile of ROWS rows by RANKS ranks, or by SPAN vectors of the output, fills the registers that there are. */
#define ROWS 4
#if defined(__AVX512F__)
enum { WIDTH = 16, RANKS = 4, SPAN = 4 };
#elif defined(__AVX__)
enum { WIDTH = 8, RANKS = 2, SPAN = 2 };
#else
enum { WIDTH = 4, RANKS = 4, SPAN = 4 };
#endif
#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bfloat16;
typedef float floats __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH)));
typedef float quads __attribute__((vector_size(16)));

typedef struct {
    const void *a; /* (rank, inputs) */
    const void *b; /* (rank, width of the slice) */
    int64_t rank;  /* 0 where the slot leaves the slice alone; at most MAX_RANK */
} Update;

/* A slice of a packed layer's output, and vLLM's slots for it. Steps lead from slot to slot, in numbers. */
typedef struct {
    const void *a;                     /* slots of (ranks, inputs) */
    const void *b;                     /* slots of (width, ranks) */
    void *rows;                        /* slots for the same as b, but of (ranks, width) */
    int64_t a_step, b_step, rows_step;
    int64_t ranks, inputs;
    int64_t first, width;              /* columns of the output */
} Slice;

enum { MAX_RANK = 512 };

INLINE floats load_float(const float *p)
{
    floats v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store_float(float *p, floats v)
{
    memcpy(p, &v, sizeof v);
}

INLINE floats load_bfloat16(const bfloat16 *p)
{
    halves h;
    memcpy(&h, p, sizeof h);
    return (floats)(__builtin_convertvector(h, words) << 16);
}

/* Rounds to nearest, ties to even; a NaN stays one. */
INLINE void store_bfloat16(bfloat16 *p, floats v)
{
#ifdef __AVX512BF16__
    __m256bh h = _mm512_cvtneps_pbh((__m512)v);
#else
    words bits = (words)v, nan = (words)(v != v);
    words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    halves h = __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0), halves);
#endif
    memcpy(p, &h, sizeof h);
}

INLINE float total(floats v)
{
    quads q[WIDTH / 4];
    memcpy(q, &v, sizeof v);
    for (int n = WIDTH / 8; n; n /= 2)
        for (int i = 0; i < n; i++)
            q[i] += q[i + n];
    return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}

/* Whether a number is not zero, of either sign; a NaN is not. */
INLINE int is_float(float f)
{
    return f != 0;
}

INLINE int is_bfloat16(bfloat16 h)
{
    return (h & 0x7fff) != 0;
}

#define NUMBER float
#define FOR(name) name##_float
#include "lora.c"
#undef NUMBER
#undef FOR

#define NUMBER bfloat16
#define FOR(name) name##_bfloat16
#ifdef __AVX512BF16__
#define PAIRS __m512bh /* two bfloat16 for each float32 sum, multiplied and added by one instruction */
#endif
#include "lora.c"

#else /* for one type of number */

/* The first n of a vector, the rest zero. */
INLINE floats FOR(load_some)(const NUMBER *p, int64_t n)
{
    NUMBER padded[WIDTH] = {0};
    memcpy(padded, p, n * sizeof *p);
    return FOR(load)(padded);
}

/* s[i][k] = scale * x[i] . a[k] */
INLINE void FOR(shrink_tile)(const NUMBER *x, int64_t x_stride, const NUMBER *a, int64_t inputs, float scale, float *s,
                             const int rows, const int ranks)
{
    floats sums[ROWS][RANKS] = {0};
    int64_t j = 0;
#ifdef PAIRS
    for (; j + 2 * WIDTH <= inputs; j += 2 * WIDTH) {
        PAIRS u, v[RANKS];
        for (int k = 0; k < ranks; k++)
            memcpy(&v[k], a + k * inputs + j, sizeof v[k]);
        for (int i = 0; i < rows; i++) {
            memcpy(&u, x + i * x_stride + j, sizeof u);
            for (int k = 0; k < ranks; k++)
                sums[i][k] = (floats)_mm512_dpbf16_ps((__m512)sums[i][k], u, v[k]);
        }
    }
#endif
    for (; j < inputs; j += WIDTH) {
        int64_t n = inputs - j;
        floats v[RANKS];
        for (int k = 0; k < ranks; k++) {
            const NUMBER *p = a + k * inputs + j;
            v[k] = n >= WIDTH ? FOR(load)(p) : FOR(load_some)(p, n);
        }
        for (int i = 0; i < rows; i++) {
            const NUMBER *p = x + i * x_stride + j;
            floats u = n >= WIDTH ? FOR(load)(p) : FOR(load_some)(p, n);
            for (int k = 0; k < ranks; k++)
                sums[i][k] += u * v[k];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < ranks; k++)
            s[i * MAX_RANK + k] = scale * total(sums[i][k]);
}

INLINE void FOR(shrink)(const NUMBER *x, int64_t x_stride, const NUMBER *a, int64_t rank, int64_t inputs, float scale,
                        float *s, const int rows)
{
    int64_t k = 0;
    for (; k + RANKS <= rank; k += RANKS)
        FOR(shrink_tile)(x, x_stride, a + k * inputs, inputs, scale, s + k, rows, RANKS);
    for (; k < rank; k++)
        FOR(shrink_tile)(x, x_stride, a + k * inputs, inputs, scale, s + k, rows, 1);
}

/* y[i][c] += s[i] . b[.][c] for `span` whole vectors of columns */
INLINE void FOR(expand_tile)(NUMBER *y, int64_t y_stride, const NUMBER *b, int64_t width, const float *s, int64_t rank,
                             const int rows, const int span)
{
    floats sums[ROWS][SPAN] = {0};
    for (int64_t k = 0; k < rank; k++) {
        floats v[SPAN];
        for (int c = 0; c < span; c++)
            v[c] = FOR(load)(b + k * width + c * WIDTH);
        for (int i = 0; i < rows; i++)
            for (int c = 0; c < span; c++)
                sums[i][c] += s[i * MAX_RANK + k] * v[c];
    }
    for (int i = 0; i < rows; i++)
        for (int c = 0; c < span; c++) {
            NUMBER *p = y + i * y_stride + c * WIDTH;
            FOR(store)(p, FOR(load)(p) + sums[i][c]);
        }
}

/* The same for the last columns, fewer than a vector. */
INLINE void FOR(expand_rest)(NUMBER *y, int64_t y_stride, const NUMBER *b, int64_t width, const float *s, int64_t rank,
                             const int rows, int64_t n)
{
    for (int i = 0; i < rows; i++) {
        floats sums = {0};
        for (int64_t k = 0; k < rank; k++)
            sums += s[i * MAX_RANK + k] * FOR(load_some)(b + k * width, n);
        NUMBER whole[WIDTH], *p = y + i * y_stride;
        FOR(store)(whole, FOR(load_some)(p, n) + sums);
        memcpy(p, whole, n * sizeof *p);
    }
}

INLINE void FOR(expand)(NUMBER *y, int64_t y_stride, const NUMBER *b, int64_t width, const float *s, int64_t rank,
                        const int rows)
{
    int64_t j = 0;
    for (; j + SPAN * WIDTH <= width; j += SPAN * WIDTH)
        FOR(expand_tile)(y + j, y_stride, b + j, width, s, rank, rows, SPAN);
    for (; j + WIDTH <= width; j += WIDTH)
        FOR(expand_tile)(y + j, y_stride, b + j, width, s, rank, rows, 1);
    if (j < width)
        FOR(expand_rest)(y + j, y_stride, b + j, width, s, rank, rows, width - j);
}

INLINE void FOR(add_rows)(NUMBER *y, int64_t y_stride, const NUMBER *x, int64_t x_stride, int64_t inputs, float scale,
                          const Update *updates, const Slice *slices, int64_t slice_count, const int rows)
{
    float s[ROWS * MAX_RANK];
    for (int64_t c = 0; c < slice_count; c++) {
        const Update *u = updates + c;
        FOR(shrink)(x, x_stride, u->a, u->rank, inputs, scale, s, rows);
        FOR(expand)(y + slices[c].first, y_stride, u->b, slices[c].width, s, u->rank, rows);
    }
}

/* y[row] += scale * B (A x[row]) for each row that has a slot.

   y, x         rows of numbers, `y_stride` and `x_stride` numbers apart
   slots        of each row; below 0 for none
   updates      slots by slices, as lora_take has filled them in
   slices       `slice_count` ranges of y's columns that do not overlap */
void FOR(lora_add)(NUMBER *y, int64_t y_stride, const NUMBER *x, int64_t x_stride, int64_t rows, int64_t inputs,
                   const int64_t *slots, const Update *updates, const Slice *slices, int64_t slice_count, float scale)
{
    int64_t step = ROWS;
#ifdef _OPENMP
    if (rows < ROWS * omp_get_max_threads())
        step = 1; /* rather every core one row than some cores several */
#pragma omp parallel for schedule(dynamic, 1) if (rows > ROWS)
#endif
    for (int64_t first = 0; first < rows; first += step) {
        int64_t end = first + step < rows ? first + step : rows;
        int together = end - first == ROWS;
        for (int64_t i = first + 1; i < end; i++)
            together &= slots[i] == slots[first];
        for (int64_t i = first; i < end; i += together ? ROWS : 1) {
            if (slots[i] < 0)
                continue;
            const Update *u = updates + slots[i] * slice_count;
            if (together)
                FOR(add_rows)(y + i * y_stride, y_stride, x + i * x_stride, x_stride, inputs, scale, u, slices,
                              slice_count, ROWS);
            else
                FOR(add_rows)(y + i * y_stride, y_stride, x + i * x_stride, x_stride, inputs, scale, u, slices,
                              slice_count, 1);
        }
    }
}

/* How many of A's rows there are up to the last one that is not zero. */
INLINE int64_t FOR(rank)(const NUMBER *a, int64_t rows, int64_t inputs)
{
    for (int64_t k = rows; k > 0; k--) {
        const NUMBER *row = a + (k - 1) * inputs;
        int used = 0;
        for (int64_t j = 0; j < inputs; j++)
            used |= FOR(is)(row[j]);
        if (used)
            return k;
    }
    return 0;
}

/* The first `rank` columns of b, (width, stride), as the rows of `rows`, (rank, width). */
INLINE void FOR(transpose)(NUMBER *rows, const NUMBER *b, int64_t width, int64_t stride, int64_t rank)
{
    enum { BLOCK = 64 }; /* of b's rows, which stay in the cache meanwhile */
    for (int64_t first = 0; first < width; first += BLOCK) {
        int64_t end = first + BLOCK < width ? first + BLOCK : width;
        for (int64_t k = 0; k < rank; k++)
            for (int64_t j = first; j < end; j++)
                rows[k * width + j] = b[j * stride + k];
    }
}

/* Fills in a slot's updates, after vLLM has written the slot; whether there are any. */
int FOR(lora_take)(const Slice *slices, int64_t slice_count, int64_t slot, Update *updates)
{
    int any = 0;
    for (int64_t c = 0; c < slice_count; c++) {
        const Slice *of = slices + c;
        const NUMBER *a = (const NUMBER *)of->a + slot * of->a_step, *b = (const NUMBER *)of->b + slot * of->b_step;
        NUMBER *rows = (NUMBER *)of->rows + slot * of->rows_step;
        int64_t rank = FOR(rank)(a, of->ranks, of->inputs);
        FOR(transpose)(rows, b, of->width, of->ranks, rank);
        updates[slot * slice_count + c] = (Update){a, rows, rank};
        any |= rank > 0;
    }
    return any;
}

#endif
