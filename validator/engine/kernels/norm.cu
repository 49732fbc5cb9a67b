// Norms of rows, and what goes into them: the residual's new term, a linear layer's bias. Computed in f32 and rounded
// where the reference rounds.
#include "pack.cuh"

// The sum over a block of whole warps, for all of its threads.
__device__ inline float block_sum(float x) {
    __shared__ float of_warp[32];
    for (int mask = 16; mask; mask /= 2) x += __shfl_xor_sync(0xffffffff, x, mask);
    __syncthreads(); // nobody reads an earlier sum any more
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) x += of_warp[warp];
    return x;
}

// As the host numbers them.
enum { RMS = 0, RMS_ROUNDED_ONCE = 1, LAYER = 2 };

template <int N, class T>
__device__ void norm_row(const T *x, const T *term, T *sum, T *out, const float *weight, const float *bias, int width, int kind, float eps) {
    if (term) {
        each_pack<N>(width, [&](int i) {
            auto a = load<N>(x + i);
            const auto b = load<N>(term + i);
            for (int j = 0; j < N; j++) a.at[j] = rounded<T>(widened(a.at[j]) + widened(b.at[j]));
            store(sum + i, a);
        });
        x = sum; // each thread goes on with what it wrote itself
    }
    float mean = 0, squares = 0;
    if (kind == LAYER) {
        each_pack<N>(width, [&](int i) {
            const auto a = load<N>(x + i);
            for (int j = 0; j < N; j++) mean += widened(a.at[j]);
        });
        mean = block_sum(mean) / width;
    }
    each_pack<N>(width, [&](int i) {
        const auto a = load<N>(x + i);
        for (int j = 0; j < N; j++) squares += (widened(a.at[j]) - mean) * (widened(a.at[j]) - mean);
    });
    const float scale = 1.0f / sqrtf(block_sum(squares) / width + eps);
    each_pack<N>(width, [&](int i) {
        auto a = load<N>(x + i);
        for (int j = 0; j < N; j++) {
            float y = (widened(a.at[j]) - mean) * scale;
            if (kind == RMS) y = widened(rounded<T>(y));
            y *= weight[i + j];
            a.at[j] = rounded<T>(bias ? y + bias[i + j] : y);
        }
        store(out + i, a);
    });
}

// Normalizes rows of `x` to `out`; or of `x + term` to the second half of `out`, with the sum in the first. `weights`:
// rows of weight, and with `biased` as many of bias after them, taken in turns. Grid: rows.
template <class T>
__device__ void norm(const T *x, const T *term, T *out, const float *weight, int width, int weights, int kind, int summed, int biased, float eps) {
    const size_t row = (size_t)blockIdx.x * width;
    const size_t half = summed ? (size_t)gridDim.x * width : 0;
    weight += blockIdx.x % weights * width;
    const float *bias = biased ? weight + weights * width : nullptr;
    const T *added = summed ? term + row : nullptr;
    if (width % 4 == 0) norm_row<4>(x + row, added, out + row, out + half + row, weight, bias, width, kind, eps);
    else norm_row<1>(x + row, added, out + row, out + half + row, weight, bias, width, kind, eps);
}

// Adds a bias to each row, in place. Grid: rows.
template <class T> __device__ void add_bias(T *x, const T *bias, int width) {
    x += (size_t)blockIdx.x * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) x[i] = rounded<T>(widened(x[i]) + widened(bias[i]));
}

#define NORMS(NAME, T)                                                                                                       \
    extern "C" __global__ void norm_##NAME(const T *x, const T *term, T *out, const float *weight, int width, int weights,   \
                                           int kind, int summed, int biased, float eps) {                                    \
        norm(x, term, out, weight, width, weights, kind, summed, biased, eps);                                               \
    }                                                                                                                        \
    extern "C" __global__ void add_bias_##NAME(T *x, const T *bias, int width) { add_bias(x, bias, width); }
NORMS(f32, float)
NORMS(bf16, __nv_bfloat16)
NORMS(f16, __half)
