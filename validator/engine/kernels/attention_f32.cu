// Causal attention over packed sequences in f32, without tensor cores: one launch as in attention.cu, for comparing
// with the reference rather than for speed.
#include "warp.cuh"

constexpr int ROWS = 64; // queries of a block
constexpr int THREADS = 256;
constexpr int EACH = ROWS / (THREADS / 32); // queries of a warp
constexpr int TILE = 32; // keys at a time, one for each lane
constexpr int WIDTH = 256; // most dimensions of a head

__device__ inline float of_lane(float x, int lane) { return __shfl_xor_sync(0xffffffff, x, lane ^ threadIdx.x % 32); }

// Arguments as in attention.cu. In turns, each lane scores one key and sums some dimensions of all values.
extern "C" __global__ void __launch_bounds__(THREADS) attention_f32(
    const float *qkv, const uint32_t *list, float *out, int heads, int kv_heads, int dim, int window, float scale) {
    __shared__ float memory[TILE * (WIDTH + 1)]; // keys, then values; one more: lanes read different banks
    const auto [start, length, first_of_block] = work_of_block<ROWS>(list);
    if (first_of_block >= length) return;
    const int first = first_of_block + threadIdx.x / 32 * EACH;
    const int head = blockIdx.y, kv_head = head / (heads / kv_heads), lane = threadIdx.x % 32;
    const int stride = (heads + 2 * kv_heads) * dim;
    const float *sequence = qkv + (size_t)start * stride;
    const float *its_keys = sequence + (heads + kv_head) * dim, *its_values = its_keys + kv_heads * dim;
    auto fetch = [&](const float *from, int key) {
        __syncthreads();
        for (int i = threadIdx.x; i < TILE * dim; i += THREADS) {
            const int row = i / dim, column = i % dim;
            memory[row * (dim + 1) + column] = key + row < length ? from[(size_t)(key + row) * stride + column] : 0;
        }
        __syncthreads();
    };

    const float *query[EACH];
    for (int i = 0; i < EACH; i++) query[i] = sequence + (size_t)min(first + i, length - 1) * stride + head * dim;
    float sums[EACH][WIDTH / 32] = {}, most[EACH], total[EACH] = {};
    for (int i = 0; i < EACH; i++) most[i] = -INFINITY;
    const int end = min(length, first_of_block + ROWS);
    const int begin = window < 0 ? 0 : max(0, first_of_block - window) / TILE * TILE;
    for (int key = begin; key < end; key += TILE) {
        fetch(its_keys, key);
        float weights[EACH] = {};
        for (int d = 0; d < dim; d++) {
            const float x = memory[lane * (dim + 1) + d];
#pragma unroll
            for (int i = 0; i < EACH; i++) weights[i] += x * query[i][d];
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int row = first + i, column = key + lane;
            const bool seen = column <= row && (window < 0 || row - column <= window);
            float now = seen ? weights[i] * scale : -INFINITY;
            const float score = now;
            for (int mask = 16; mask; mask /= 2) now = fmaxf(now, __shfl_xor_sync(0xffffffff, now, mask));
            now = fmaxf(now, most[i]);
            // A row that has seen nothing yet keeps its zeros.
            const float offset = now == -INFINITY ? 0 : now;
            const float shrink = expf(most[i] - offset);
            most[i] = now;
            weights[i] = expf(score - offset);
            float sum = weights[i];
            for (int mask = 16; mask; mask /= 2) sum += __shfl_xor_sync(0xffffffff, sum, mask);
            total[i] = total[i] * shrink + sum;
#pragma unroll
            for (int c = 0; c < WIDTH / 32; c++) sums[i][c] *= shrink;
        }
        fetch(its_values, key);
        for (int row = 0; row < TILE; row++)
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                const float weight = of_lane(weights[i], row);
#pragma unroll
                for (int c = 0; c < WIDTH / 32; c++)
                    if (c * 32 + lane < dim) sums[i][c] += weight * memory[row * (dim + 1) + c * 32 + lane];
            }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int c = 0; c < WIDTH / 32; c++)
            if (first + i < length && c * 32 + lane < dim)
                out[((size_t)(start + first + i) * heads + head) * dim + c * 32 + lane] = sums[i][c] / total[i];
}
