// Causal attention over packed sequences in 16 bits, after FlashAttention-2 (Dao, arXiv 2307.08691): scores of a block
// of queries and a tile of keys exist in registers only, the softmax runs along, sums are f32. Values are copied while
// keys are multiplied, and the next keys while values are. One launch for all sequences and heads of a pack.
#include "warp.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * 32;
constexpr float LOG2_E = 1.44269504f;

// Starts copying `count` rows of queries, keys or values to shared memory; what is not there is zero. A neighbor's
// infinities must not meet a weight of zero.
template <int WIDTH, int ROWS, class T>
__device__ inline void fetch(T (*to)[WIDTH + 8], const T *from, int stride, int count, int dim) {
    constexpr int CHUNKS = WIDTH / 8;
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, chunk = i % CHUNKS;
        const bool is = row < count && chunk * 8 < dim;
        copy_chunk(&to[row][chunk * 8], is ? from + (size_t)row * stride + chunk * 8 : from, is);
    }
}

// Of the four lanes that share a row.
__device__ inline float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ inline float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffff, x, 1);
    return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// `qkv`: [tokens, (heads + 2 kv_heads) * dim], rotated; `out`: [tokens, heads * dim]. The grid is parts of
// the work list by heads. A query sees itself and `window` tokens before it.
// WIDTH: dim or more; TILE: keys at a time; EACH: times sixteen queries of each warp.
//
// A warp of sixteen queries reads 256 bytes of shared memory for each product of 4 096 operations, which is more than
// an H100 reads in that time. With 32 it reads half of that; its queries then lie in shared memory, too, for want of
// registers. A row's bits are the same either way.
template <class T, int WIDTH, int TILE, int EACH>
__device__ void attend(const T *qkv, const uint32_t *list, T *out, int heads, int kv_heads, int dim, int window, float scale) {
    typedef T Row[WIDTH + 8]; // eight more: rows begin in different banks
    SHARED_MEMORY(memory);
    Row *const keys = (Row *)memory, *const values = keys + TILE, *const queries = values + TILE;
    constexpr int ROWS = WARPS * EACH * 16;
    const auto [start, length, first] = work_of_block<ROWS>(list);
    if (first >= length) return;
    const int head = blockIdx.y, kv_head = head / (heads / kv_heads);
    const int stride = (heads + 2 * kv_heads) * dim;
    const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * EACH * 16; // the warp's first query of the block's
    const T *sequence = qkv + (size_t)start * stride;
    const T *its_keys = sequence + (heads + kv_head) * dim, *its_values = its_keys + kv_heads * dim;

    // Of each sixteen queries, two rows are this lane's.
    auto row_of = [&](int e, int r) { return first + own + e * 16 + r * 8 + lane / 4; };
    uint32_t query[EACH][WIDTH / 16][4];
    if constexpr (EACH == 1) {
        for (int k = 0; k < WIDTH / 16; k++)
            for (int i = 0; i < 4; i++) {
                int row = row_of(0, i % 2), column = k * 16 + 2 * (lane % 4) + 8 * (i / 2);
                bool is = row < length && column < dim;
                query[0][k][i] = is ? *(const uint32_t *)(sequence + (size_t)row * stride + head * dim + column) : 0;
            }
    } else {
        fetch<WIDTH, ROWS>(queries, sequence + (size_t)first * stride + head * dim, stride, length - first, dim);
    }
    float sums[EACH][WIDTH / 8][4] = {}, most[EACH][2], total[EACH][2] = {};
    for (int e = 0; e < EACH; e++) most[e][0] = most[e][1] = -INFINITY;
    const float base2 = scale * LOG2_E;
    const int end = min(length, first + ROWS);
    const int begin = window < 0 ? 0 : max(0, first - window) / TILE * TILE;

    fetch<WIDTH, TILE>(keys, its_keys + (size_t)begin * stride, stride, length - begin, dim);
    for (int key = begin; key < end; key += TILE) {
        copies_done();
        __syncthreads(); // the keys are there, nobody reads the values before them any more
        fetch<WIDTH, TILE>(values, its_values + (size_t)key * stride, stride, length - key, dim);
        // Keys that none of the warp's queries sees would add nothing.
        const bool seen = key < first + own + EACH * 16;
        float scores[EACH][TILE / 8][4] = {};
        if (seen) {
#pragma unroll
            for (int k = 0; k < WIDTH / 16; k++) {
                if constexpr (EACH > 1)
#pragma unroll
                    for (int e = 0; e < EACH; e++)
                        load_tiles(query[e][k], &queries[own + e * 16 + lane % 16][k * 16 + lane / 16 * 8]);
#pragma unroll
                for (int n = 0; n < TILE / 8; n += 2) {
                    uint32_t b[4];
                    load_tiles(b, &keys[n * 8 + lane / 16 * 8 + lane % 8][k * 16 + lane / 8 % 2 * 8]);
#pragma unroll
                    for (int e = 0; e < EACH; e++) {
                        multiply_add(scores[e][n], query[e][k], b[0], b[1], T());
                        multiply_add(scores[e][n + 1], query[e][k], b[2], b[3], T());
                    }
                }
            }
            if (window >= 0 || key + TILE - 1 > first + own)
#pragma unroll
                for (int e = 0; e < EACH; e++)
#pragma unroll
                    for (int n = 0; n < TILE / 8; n++)
                        for (int i = 0; i < 4; i++) {
                            int row = row_of(e, i / 2), column = key + n * 8 + 2 * (lane % 4) + i % 2;
                            bool is = column <= row && (window < 0 || row - column <= window);
                            scores[e][n][i] = is ? scores[e][n][i] : -INFINITY;
                        }
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                float now[2] = {most[e][0], most[e][1]};
#pragma unroll
                for (int n = 0; n < TILE / 8; n++)
                    for (int i = 0; i < 4; i++) now[i / 2] = fmaxf(now[i / 2], scores[e][n][i]);
                float shrink[2], offset[2];
                for (int r = 0; r < 2; r++) {
                    now[r] = row_max(now[r]);
                    // A row that has seen nothing yet keeps its zeros.
                    offset[r] = now[r] == -INFINITY ? 0 : now[r] * base2;
                    shrink[r] = power_of_2(most[e][r] * base2 - offset[r]);
                    most[e][r] = now[r];
                    total[e][r] *= shrink[r];
                }
#pragma unroll
                for (int d = 0; d < WIDTH / 8; d++)
                    for (int i = 0; i < 4; i++) sums[e][d][i] *= shrink[i / 2];
#pragma unroll
                for (int n = 0; n < TILE / 8; n++)
                    for (int i = 0; i < 4; i++) {
                        scores[e][n][i] = power_of_2(scores[e][n][i] * base2 - offset[i / 2]);
                        total[e][i / 2] += scores[e][n][i];
                    }
            }
        }
        copies_done();
        __syncthreads(); // the values are there, nobody reads the keys any more
        if (const int next = key + TILE; next < end)
            fetch<WIDTH, TILE>(keys, its_keys + (size_t)next * stride, stride, length - next, dim);
        if (!seen) continue;
#pragma unroll
        for (int k = 0; k < TILE / 16; k++) {
            uint32_t weights[EACH][4];
#pragma unroll
            for (int e = 0; e < EACH; e++)
                for (int i = 0; i < 4; i++) {
                    const float(&pairs)[4] = scores[e][2 * k + i / 2];
                    weights[e][i] = packed<T>(pairs[i % 2 * 2], pairs[i % 2 * 2 + 1]);
                }
#pragma unroll
            for (int d = 0; d < WIDTH / 8; d += 2) {
                uint32_t b[4];
                load_tiles_transposed(b, &values[k * 16 + lane / 8 % 2 * 8 + lane % 8][d * 8 + lane / 16 * 8]);
#pragma unroll
                for (int e = 0; e < EACH; e++) {
                    multiply_add(sums[e][d], weights[e], b[0], b[1], T());
                    multiply_add(sums[e][d + 1], weights[e], b[2], b[3], T());
                }
            }
        }
    }
#pragma unroll
    for (int e = 0; e < EACH; e++)
        for (int r = 0; r < 2; r++) {
            const float whole = row_sum(total[e][r]);
            const int row = row_of(e, r);
            if (row >= length) continue;
            T *to = out + (size_t)(start + row) * heads * dim + head * dim;
            for (int d = 0; d < WIDTH / 8; d++) {
                int column = d * 8 + 2 * (lane % 4);
                if (column < dim) *(uint32_t *)(to + column) = packed<T>(sums[e][d][2 * r] / whole, sums[e][d][2 * r + 1] / whole);
            }
        }
}

// BLOCKS: that a multiprocessor runs at once, at least.
#define KERNEL(NAME, T, WIDTH, TILE, EACH, BLOCKS)                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(                                                \
        const T *qkv, const uint32_t *list, T *out, int heads, int kv_heads, int dim, int window, float scale) {      \
        attend<T, WIDTH, TILE, EACH>(qkv, list, out, heads, kv_heads, dim, window, scale);                            \
    }
#define NARROW(NAME, T, WIDTH, TILE, BLOCKS) KERNEL(attention_##NAME##_##WIDTH, T, WIDTH, TILE, 1, BLOCKS)
#define WIDE(NAME, T, WIDTH) KERNEL(attention_##NAME##_##WIDTH##_wide, T, WIDTH, 64, 2, 2)
#define KERNELS(NAME, T)                                                                                                \
    NARROW(NAME, T, 64, 64, 3)                                                                                         \
    NARROW(NAME, T, 80, 64, 3)                                                                                         \
    NARROW(NAME, T, 96, 64, 3)                                                                                         \
    NARROW(NAME, T, 128, 64, 3)                                                                                        \
    NARROW(NAME, T, 256, 32, 2)                                                                                        \
    WIDE(NAME, T, 64)                                                                                                  \
    WIDE(NAME, T, 80)                                                                                                  \
    WIDE(NAME, T, 96)                                                                                                  \
    WIDE(NAME, T, 128)
KERNELS(bf16, __nv_bfloat16)
KERNELS(f16, __half)
