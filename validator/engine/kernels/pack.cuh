// Rows in packs: neighboring elements, loaded and stored together.
#pragma once
#include "warp.cuh"

template <class T, int N> struct __align__(sizeof(T) * N) Pack {
    T at[N];
};
template <int N, class T> __device__ inline Pack<T, N> load(const T *from) { return *(const Pack<T, N> *)from; }
template <int N, class T> __device__ inline void store(T *to, Pack<T, N> pack) { *(Pack<T, N> *)to = pack; }

// Calls `body` with the first element of each of this thread's packs of a row.
template <int N, class F> __device__ inline void each_pack(int width, F body) {
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) body(i);
}
