// Kernels over rows of hidden states: rotary embedding, gated activation, cross-entropy. Each rounds where the
// reference rounds.
#include "warp.cuh"

// Rotates the first `2 * half` dimensions of each query and key head in place. Grid: tokens. `stride`: elements of a
// token; `heads`: queries and keys.
template <class T> __device__ void rotate(T *qkv, const T *cos, const T *sin, int stride, int heads, int dim, int half) {
    T *token = qkv + (size_t)blockIdx.x * stride;
    for (int i = threadIdx.x; i < heads * half; i += blockDim.x) {
        T *first = token + i / half * dim + i % half, *second = first + half;
        float c = widened(cos[(size_t)blockIdx.x * half + i % half]), s = widened(sin[(size_t)blockIdx.x * half + i % half]);
        float a = widened(*first), b = widened(*second);
        auto product = [](float x, float y) { return widened(rounded<T>(x * y)); };
        *first = rounded<T>(product(a, c) - product(b, s));
        *second = rounded<T>(product(a, s) + product(b, c));
    }
}

// activation(gate) * up, from [rows, gate | up] to [rows, width]: the activation is rounded, then the product.
enum { SILU = 0, GELU_TANH = 1, GELU = 2 };
template <class T> __device__ void gated(const T *gate_up, T *out, int width, int activation, size_t count) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) {
        const T *gate = gate_up + i / width * 2 * width + i % width;
        float x = widened(*gate), y;
        switch (activation) {
        case SILU: y = x / (1.0f + expf(-x)); break;
        case GELU_TANH: y = 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x))); break;
        default: y = x * normcdff(x);
        }
        out[i] = rounded<T>(widened(rounded<T>(y)) * widened(gate[width]));
    }
}

// Minus the logarithm of a row's softmax at its target, in one pass: the largest so far and the sum of exponentials
// relative to it. Grid: rows.
template <class T> __device__ void cross_entropy(const T *logits, const uint32_t *targets, float *out, int width) {
    const T *row = logits + (size_t)blockIdx.x * width;
    float most = -INFINITY, sum = 0;
    bool odd = false; // not a number among them, or infinite: fmaxf would pass over it
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float x = widened(row[i]);
        odd |= isnan(x) || x == INFINITY;
        if (x > most) {
            sum = sum * expf(most - x) + 1.0f;
            most = x;
        } else if (x > -INFINITY)
            sum += expf(x - most);
    }
    if (odd) sum = NAN;
    __shared__ float all_most[32], all_sum[32];
    auto join = [&](float other_most, float other_sum) {
        float top = fmaxf(most, other_most);
        float base = top == -INFINITY ? 0 : top;
        sum = sum * expf(most - base) + other_sum * expf(other_most - base);
        most = top;
    };
    for (int mask = 16; mask; mask /= 2) {
        float other_most = __shfl_xor_sync(0xffffffff, most, mask), other_sum = __shfl_xor_sync(0xffffffff, sum, mask);
        join(other_most, other_sum);
    }
    if (threadIdx.x % 32 == 0) {
        all_most[threadIdx.x / 32] = most;
        all_sum[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    if (threadIdx.x) return;
    for (int warp = 1; warp < blockDim.x / 32; warp++) join(all_most[warp], all_sum[warp]);
    out[blockIdx.x] = most + logf(sum) - widened(row[targets[blockIdx.x]]);
}

#define ROWS_OF(NAME, T)                                                                                                     \
    extern "C" __global__ void rotate_##NAME(T *qkv, const T *cos, const T *sin, int stride, int heads, int dim, int half) { \
        rotate(qkv, cos, sin, stride, heads, dim, half);                                                                     \
    }                                                                                                                        \
    extern "C" __global__ void gated_##NAME(const T *gate_up, T *out, int width, int activation, size_t count) {            \
        gated(gate_up, out, width, activation, count);                                                                       \
    }                                                                                                                        \
    extern "C" __global__ void cross_entropy_##NAME(const T *logits, const uint32_t *targets, float *out, int width) {      \
        cross_entropy(logits, targets, out, width);                                                                          \
    }
ROWS_OF(f32, float)
ROWS_OF(bf16, __nv_bfloat16)
ROWS_OF(f16, __half)
