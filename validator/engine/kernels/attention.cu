// Causal attention over packed sequences in 16 bits, after FlashAttention-2 (Dao, arXiv 2307.08691): scores of 64
// queries and a tile of keys exist in registers only, the softmax runs along, sums are f32. Values are copied while keys
// are multiplied, and the next keys while values are. One launch for all sequences and heads of a pack.
#include "warp.cuh"

constexpr int ROWS = 64; // queries of a block: 16 for each of four warps
constexpr int THREADS = 128;
constexpr float LOG2_E = 1.44269504f;

// Starts copying `count` rows of keys or values to shared memory; what is not there is zero. A neighbor's infinities
// must not meet a weight of zero.
template <class T, int WIDTH, int TILE>
__device__ inline void fetch(T (&to)[TILE][WIDTH + 8], const T *from, int stride, int count, int dim) {
    constexpr int CHUNKS = WIDTH / 8;
#pragma unroll
    for (int i = threadIdx.x; i < TILE * CHUNKS; i += THREADS) {
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

// `qkv`: [tokens, (heads + 2 kv_heads) * dim], rotated; `out`: [tokens, heads * dim]. A tile of the grid is a sequence
// (its first token and length) and the first of its queries. A query sees itself and `window` tokens before it.
// WIDTH: dim or more; TILE: keys at a time.
template <class T, int WIDTH, int TILE>
__device__ void attend(const T *qkv, const uint32_t *tiles, T *out, int heads, int kv_heads, int dim, int window, float scale) {
    __shared__ __align__(16) T keys[TILE][WIDTH + 8]; // eight more: rows begin in different banks
    __shared__ __align__(16) T values[TILE][WIDTH + 8];
    const uint32_t *tile = tiles + 3 * blockIdx.x;
    const int start = tile[0], length = tile[1], first = tile[2];
    const int head = blockIdx.y, kv_head = head / (heads / kv_heads);
    const int stride = (heads + 2 * kv_heads) * dim;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const T *sequence = qkv + (size_t)start * stride;
    const T *its_keys = sequence + (heads + kv_head) * dim, *its_values = its_keys + kv_heads * dim;

    // This lane's two rows of the warp's sixteen.
    const int rows[2] = {first + warp * 16 + lane / 4, first + warp * 16 + lane / 4 + 8};
    uint32_t query[WIDTH / 16][4];
    for (int k = 0; k < WIDTH / 16; k++)
        for (int i = 0; i < 4; i++) {
            int row = rows[i % 2], column = k * 16 + 2 * (lane % 4) + 8 * (i / 2);
            bool is = row < length && column < dim;
            query[k][i] = is ? *(const uint32_t *)(sequence + (size_t)row * stride + head * dim + column) : 0;
        }
    float sums[WIDTH / 8][4] = {}, most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
    const float base2 = scale * LOG2_E;
    const int end = min(length, first + ROWS);
    const int begin = window < 0 ? 0 : max(0, first - window) / TILE * TILE;

    fetch<T, WIDTH, TILE>(keys, its_keys + (size_t)begin * stride, stride, length - begin, dim);
    for (int key = begin; key < end; key += TILE) {
        copies_done();
        __syncthreads(); // the keys are there, nobody reads the values before them any more
        fetch<T, WIDTH, TILE>(values, its_values + (size_t)key * stride, stride, length - key, dim);
        float scores[TILE / 8][4] = {};
#pragma unroll
        for (int k = 0; k < WIDTH / 16; k++)
#pragma unroll
            for (int n = 0; n < TILE / 8; n += 2) {
                uint32_t b[4];
                load_tiles(b, &keys[n * 8 + lane / 16 * 8 + lane % 8][k * 16 + lane / 8 % 2 * 8]);
                multiply_add(scores[n], query[k], b[0], b[1], T());
                multiply_add(scores[n + 1], query[k], b[2], b[3], T());
            }
        if (window >= 0 || key + TILE - 1 > first + warp * 16)
#pragma unroll
            for (int n = 0; n < TILE / 8; n++)
                for (int i = 0; i < 4; i++) {
                    int row = rows[i / 2], column = key + n * 8 + 2 * (lane % 4) + i % 2;
                    bool seen = column <= row && (window < 0 || row - column <= window);
                    scores[n][i] = seen ? scores[n][i] : -INFINITY;
                }
        float now[2] = {most[0], most[1]};
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
            for (int i = 0; i < 4; i++) now[i / 2] = fmaxf(now[i / 2], scores[n][i]);
        float shrink[2], offset[2];
        for (int r = 0; r < 2; r++) {
            now[r] = row_max(now[r]);
            // A row that has seen nothing yet keeps its zeros.
            offset[r] = now[r] == -INFINITY ? 0 : now[r] * base2;
            shrink[r] = exp2f(most[r] * base2 - offset[r]);
            most[r] = now[r];
            total[r] *= shrink[r];
        }
#pragma unroll
        for (int d = 0; d < WIDTH / 8; d++)
            for (int i = 0; i < 4; i++) sums[d][i] *= shrink[i / 2];
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
            for (int i = 0; i < 4; i++) {
                scores[n][i] = exp2f(scores[n][i] * base2 - offset[i / 2]);
                total[i / 2] += scores[n][i];
            }
        copies_done();
        __syncthreads(); // the values are there, nobody reads the keys any more
        if (const int next = key + TILE; next < end)
            fetch<T, WIDTH, TILE>(keys, its_keys + (size_t)next * stride, stride, length - next, dim);
#pragma unroll
        for (int k = 0; k < TILE / 16; k++) {
            const float(&low)[4] = scores[2 * k], (&high)[4] = scores[2 * k + 1];
            const uint32_t weights[4] = {packed<T>(low[0], low[1]), packed<T>(low[2], low[3]), packed<T>(high[0], high[1]), packed<T>(high[2], high[3])};
#pragma unroll
            for (int d = 0; d < WIDTH / 8; d += 2) {
                uint32_t b[4];
                load_tiles_transposed(b, &values[k * 16 + lane / 8 % 2 * 8 + lane % 8][d * 8 + lane / 16 * 8]);
                multiply_add(sums[d], weights, b[0], b[1], T());
                multiply_add(sums[d + 1], weights, b[2], b[3], T());
            }
        }
    }
    for (int r = 0; r < 2; r++) {
        float whole = row_sum(total[r]);
        if (rows[r] >= length) continue;
        T *to = out + (size_t)(start + rows[r]) * heads * dim + head * dim;
        for (int d = 0; d < WIDTH / 8; d++) {
            int column = d * 8 + 2 * (lane % 4);
            if (column < dim) *(uint32_t *)(to + column) = packed<T>(sums[d][2 * r] / whole, sums[d][2 * r + 1] / whole);
        }
    }
}

#define ATTENTION(NAME, T, WIDTH, TILE)                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, WIDTH > 128 ? 2 : 3) attention_##NAME##_##WIDTH(                                    \
        const T *qkv, const uint32_t *tiles, T *out, int heads, int kv_heads, int dim, int window, float scale) {          \
        attend<T, WIDTH, TILE>(qkv, tiles, out, heads, kv_heads, dim, window, scale);                                      \
    }
ATTENTION(bf16, __nv_bfloat16, 64, 64)
ATTENTION(bf16, __nv_bfloat16, 80, 64)
ATTENTION(bf16, __nv_bfloat16, 96, 64)
ATTENTION(bf16, __nv_bfloat16, 128, 64)
ATTENTION(bf16, __nv_bfloat16, 256, 32)
ATTENTION(f16, __half, 64, 64)
ATTENTION(f16, __half, 80, 64)
ATTENTION(f16, __half, 96, 64)
ATTENTION(f16, __half, 128, 64)
ATTENTION(f16, __half, 256, 32)
