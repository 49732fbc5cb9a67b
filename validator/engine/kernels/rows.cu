// Kernels over rows of hidden states: rotary embedding, gated activation, rows by number, cross-entropy. Each rounds where the
// reference rounds.
#include "pack.cuh"

// Rotates the first `2 * half` dimensions of each query and key head in place. Grid: tokens. `stride`: elements of a
// token; `heads`: queries and keys.
template <int N, class T> __device__ void rotate_token(T *token, const T *cos, const T *sin, int heads, int dim, int half) {
    each_pack<N>(heads * half, [&](int i) {
        const int column = i % half;
        T *first = token + i / half * dim + column, *second = first + half;
        auto a = load<N>(first), b = load<N>(second);
        const auto c = load<N>(cos + column), s = load<N>(sin + column);
        auto product = [](T x, T y) { return widened(rounded<T>(widened(x) * widened(y))); };
        for (int j = 0; j < N; j++) {
            const T x = a.at[j], y = b.at[j];
            a.at[j] = rounded<T>(product(x, c.at[j]) - product(y, s.at[j]));
            b.at[j] = rounded<T>(product(x, s.at[j]) + product(y, c.at[j]));
        }
        store(first, a);
        store(second, b);
    });
}
template <class T> __device__ void rotate(T *qkv, const T *cos, const T *sin, int stride, int heads, int dim, int half) {
    qkv += (size_t)blockIdx.x * stride;
    cos += (size_t)blockIdx.x * half;
    sin += (size_t)blockIdx.x * half;
    if (half % 4 == 0 && dim % 4 == 0) rotate_token<4>(qkv, cos, sin, heads, dim, half);
    else rotate_token<1>(qkv, cos, sin, heads, dim, half);
}

// activation(gate) * up, from [rows, gate | up] to [rows, width]: the activation is rounded, then the product. Grid:
// rows.
enum { SILU = 0, GELU_TANH = 1, GELU = 2 };
__device__ inline float activated(int activation, float x) {
    switch (activation) {
    case SILU: return x / (1.0f + expf(-x));
    case GELU_TANH: return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    default: return x * normcdff(x);
    }
}
template <int N, class T> __device__ void gate_row(const T *gate, T *out, int width, int activation) {
    each_pack<N>(width, [&](int i) {
        auto a = load<N>(gate + i);
        const auto up = load<N>(gate + width + i);
        for (int j = 0; j < N; j++)
            a.at[j] = rounded<T>(widened(rounded<T>(activated(activation, widened(a.at[j])))) * widened(up.at[j]));
        store(out + i, a);
    });
}
template <class T> __device__ void gated(const T *gate_up, T *out, int width, int activation) {
    gate_up += (size_t)blockIdx.x * 2 * width;
    out += (size_t)blockIdx.x * width;
    if (width % 4 == 0) gate_row<4>(gate_up, out, width, activation);
    else gate_row<1>(gate_up, out, width, activation);
}

// Rows of a matrix, by their numbers. Grid: rows.
template <int N, class T> __device__ void copy_row(const T *from, T *out, int width) {
    each_pack<N>(width, [&](int i) { store(out + i, load<N>(from + i)); });
}
template <class T> __device__ void gather(const T *from, const uint32_t *rows, T *out, int width) {
    from += (size_t)rows[blockIdx.x] * width;
    out += (size_t)blockIdx.x * width;
    if (width % 4 == 0) copy_row<4>(from, out, width);
    else copy_row<1>(from, out, width);
}

// Minus the logarithm of a row's softmax at its target, in one pass: the largest so far and the sum of exponentials
// relative to it. Grid: rows.
struct Exponentials {
    float most, sum; // the largest, and the sum of the others' exponentials relative to it
    bool odd; // not a number among them, or infinite: fmaxf would pass over it
};
template <int N, class T> __device__ inline Exponentials exponentials(const T *row, int width) {
    Exponentials all = {-INFINITY, 0, false};
    each_pack<N>(width, [&](int i) {
        const auto pack = load<N>(row + i);
        float most = all.most;
        for (int j = 0; j < N; j++) {
            const float x = widened(pack.at[j]);
            all.odd |= isnan(x) || x == INFINITY;
            most = fmaxf(most, x);
        }
        const float base = most == -INFINITY ? 0 : most;
        all.sum *= expf(all.most - base);
        for (int j = 0; j < N; j++) all.sum += expf(widened(pack.at[j]) - base);
        all.most = most;
    });
    return all;
}
template <class T> __device__ void cross_entropy(const T *logits, const uint32_t *targets, float *out, int width) {
    const T *row = logits + (size_t)blockIdx.x * width;
    const Exponentials own = width % 8 == 0 ? exponentials<8>(row, width) : exponentials<1>(row, width);
    float most = own.most, sum = own.odd ? NAN : own.sum;
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
    extern "C" __global__ void gated_##NAME(const T *gate_up, T *out, int width, int activation) {                          \
        gated(gate_up, out, width, activation);                                                                              \
    }                                                                                                                        \
    extern "C" __global__ void gather_##NAME(const T *from, const uint32_t *rows, T *out, int width) {                      \
        gather(from, rows, out, width);                                                                                     \
    }                                                                                                                        \
    extern "C" __global__ void cross_entropy_##NAME(const T *logits, const uint32_t *targets, float *out, int width) {      \
        cross_entropy(logits, targets, out, width);                                                                          \
    }
ROWS_OF(f32, float)
ROWS_OF(bf16, __nv_bfloat16)
ROWS_OF(f16, __half)
