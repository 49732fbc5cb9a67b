// What a warp does together: products of tiles on tensor cores, tiles read from shared memory. On the host
// (tests/cudasim) each is the same in plain C++, after the PTX ISA's description of its fragments.
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include <stdint.h>
#ifndef __CUDACC__
#include <vector>
#endif

__device__ inline uint16_t bits_of(__nv_bfloat16 x) { return __bfloat16_as_ushort(x); }
__device__ inline uint16_t bits_of(__half x) { return __half_as_ushort(x); }
__device__ inline float widened(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float widened(__half x) { return __half2float(x); }
template <class T> __device__ T rounded(float x);
template <> __device__ inline __nv_bfloat16 rounded(float x) { return __float2bfloat16_rn(x); }
template <> __device__ inline __half rounded(float x) { return __float2half(x); }
template <> __device__ inline float rounded(float x) { return x; }
__device__ inline float widened(float x) { return x; }

// Two rounded numbers in one register, the first in the low half.
template <class T> __device__ inline uint32_t packed(float low, float high) {
    return bits_of(rounded<T>(low)) | uint32_t(bits_of(rounded<T>(high))) << 16;
}

// What a block of the attention does: queries of a sequence from `first` on. The work list has an entry (first token and
// length of a sequence, the first of its queries) for each `ENTRY` queries; a kernel of fewer takes parts of it.
constexpr int ENTRY = 128;
struct Work {
    int start, length, first;
};
template <int QUERIES> __device__ inline Work work_of_block(const uint32_t *list) {
    constexpr int PARTS = ENTRY / QUERIES;
    const uint32_t *entry = list + 3 * (blockIdx.x / PARTS);
    return {int(entry[0]), int(entry[1]), int(entry[2] + blockIdx.x % PARTS * QUERIES)};
}

// The memory that the threads of a block share, as much as the launch asks for.
#ifdef __CUDACC__
#define SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#else
#define SHARED_MEMORY(name) unsigned char *const name = sim_shared()
#endif

// 2^x, or nothing where that is less than the smallest normal number.
__device__ inline float power_of_2(float x) {
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return x < -126 ? 0 : exp2f(x);
#endif
}

// Starts a copy of 16 bytes to shared memory, or of as many zeros; done after `copies_done`, for others after a barrier.
#ifdef __CUDACC__
__device__ inline void copy_chunk(void *to, const void *from, bool is) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(is ? 16 : 0)
                 : "memory");
}
__device__ inline void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#else
// On the host nothing is copied before it is waited for, so that a missing wait shows.
struct SimCopy {
    void *to;
    const void *from;
    bool is;
};
inline std::vector<SimCopy> &sim_copies() {
    static std::vector<SimCopy> copies[1024];
    return copies[threadIdx.x];
}
inline void copy_chunk(void *to, const void *from, bool is) { sim_copies().push_back({to, from, is}); }
inline void copies_done() {
    for (const SimCopy &copy : sim_copies())
        if (copy.is) memcpy(copy.to, copy.from, 16);
        else memset(copy.to, 0, 16);
    sim_copies().clear();
}
#endif

#ifdef __CUDACC__
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __nv_bfloat16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __half) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Four tiles of 8 x 8: lane i names row i % 8 of tile i / 8.
__device__ inline void load_tiles(uint32_t (&r)[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
__device__ inline void load_tiles_transposed(uint32_t (&r)[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
#else
template <class T> void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T) {
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    sim_warp warp(mine, sizeof mine);
    auto half = [&](int lane, int word, int k) {
        uint16_t bits = ((const uint32_t *)warp.of(lane))[word] >> 16 * (k % 2);
        T value;
        memcpy(&value, &bits, 2);
        return widened(value);
    };
    for (int i = 0; i < 4; i++) {
        int row = warp.lane() / 4, column = 2 * (warp.lane() % 4) + i % 2;
        for (int k = 0; k < 16; k++)
            c[i] += half(row * 4 + k % 8 / 2, i / 2 + 2 * (k / 8), k) * half(column * 4 + k % 8 / 2, 4 + k / 8, k);
    }
}
inline void sim_tiles(uint32_t (&r)[4], const void *row, bool transposed) {
    sim_warp warp(&row, sizeof row);
    for (int tile = 0; tile < 4; tile++) {
        uint32_t both = 0;
        for (int i = 0; i < 2; i++) {
            int major = warp.lane() / 4, minor = 2 * (warp.lane() % 4) + i;
            if (transposed) std::swap(major, minor);
            both |= uint32_t((*(const uint16_t *const *)warp.of(tile * 8 + major))[minor]) << 16 * i;
        }
        r[tile] = both;
    }
}
inline void load_tiles(uint32_t (&r)[4], const void *row) { sim_tiles(r, row, false); }
inline void load_tiles_transposed(uint32_t (&r)[4], const void *row) { sim_tiles(r, row, true); }
#endif
