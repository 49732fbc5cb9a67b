// What a CUDA kernel needs to compile as C++ for the host: types, built-ins, barriers.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <cassert>
#include <cstdlib>
#include <limits>
#include <algorithm>
#include <type_traits>
#include <utility>
using std::isnan; using std::signbit; using std::max; using std::min;
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#define CUDA_VERSION 13000
struct uint3s { unsigned x, y, z; };
struct sim_thread { uint3s thread, block; };
extern thread_local uint3s threadIdx, blockIdx, blockDim, gridDim;
void sim_barrier();
// The shared memory that the launch asked for.
unsigned char *sim_shared();
uint64_t sim_exchange(uint64_t value, int lane_mask);
inline void __syncthreads() { sim_barrier(); }
template <class T> T __shfl_xor_sync(unsigned, T v, int mask, int = 32) {
    static_assert(sizeof(T) <= 8); uint64_t w = 0; memcpy(&w, &v, sizeof(T)); w = sim_exchange(w, mask); memcpy(&v, &w, sizeof(T)); return v;
}
// What the lanes of a warp show each other: 32 bytes each, from the constructor until all have let go.
class sim_warp {
public:
    sim_warp(const void *mine, size_t bytes);
    ~sim_warp();
    int lane() const;
    const void *of(int lane) const;
};
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.7071067811865476); }
template <class A, class B> inline auto min(A a, B b) -> std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B> && !std::is_same_v<A, B>, std::common_type_t<A, B>> { return a < b ? a : b; }
template <class A, class B> inline auto max(A a, B b) -> std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B> && !std::is_same_v<A, B>, std::common_type_t<A, B>> { return a > b ? a : b; }
template <class T> T sim_bits(auto v) { T t; static_assert(sizeof t == sizeof v); memcpy(&t, &v, sizeof t); return t; }
inline float __uint_as_float(unsigned v) { return sim_bits<float>(v); }
inline unsigned __float_as_uint(float v) { return sim_bits<unsigned>(v); }
inline float __int_as_float(int v) { return sim_bits<float>(v); }
inline int __float_as_int(float v) { return sim_bits<int>(v); }
inline double __longlong_as_double(long long v) { return sim_bits<double>(v); }
inline long long __double_as_longlong(double v) { return sim_bits<long long>(v); }
template <class T, class U> T atomicAdd(T *p, U v) { T old = *p; *p = T(old + T(v)); return old; }
template <class T, class U> T atomicMax(T *p, U v) { T old = *p; if (T(v) > old) *p = T(v); return old; }
template <class T, class U> T atomicMin(T *p, U v) { T old = *p; if (T(v) < old) *p = T(v); return old; }
template <class T, class U, class V> T atomicCAS(T *p, U c, V v) { T old = *p; if (old == T(c)) *p = T(v); return old; }

struct sim_bf16 {
    uint16_t bits;
    static uint16_t round(float f) { uint32_t u; memcpy(&u, &f, 4); if (std::isnan(f)) return 0x7fff; return (u + 0x7fff + ((u >> 16) & 1)) >> 16; }
    static float widen(uint16_t b) { uint32_t u = uint32_t(b) << 16; float f; memcpy(&f, &u, 4); return f; }
};
struct sim_f16 {
    static uint16_t round(float f) { _Float16 h = (_Float16)f; uint16_t b; memcpy(&b, &h, 2); return b; }
    static float widen(uint16_t b) { _Float16 h; memcpy(&h, &b, 2); return (float)h; }
};
template <class R> struct sim_16 {
    uint16_t bits;
    sim_16() = default;
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> sim_16(T v) : bits(R::round((float)v)) {}
    operator float() const { return R::widen(bits); }
};
typedef sim_16<sim_bf16> __nv_bfloat16;
typedef sim_16<sim_f16> __half;
struct __nv_bfloat162 { __nv_bfloat16 x, y; };
#define SIM_OP(op) \
template <class R> sim_16<R> operator op(sim_16<R> a, sim_16<R> b) { return sim_16<R>((float)a op (float)b); } \
template <class R> sim_16<R> &operator op##=(sim_16<R> &a, sim_16<R> b) { return a = a op b; } \
template <class R> sim_16<R> &operator op##=(sim_16<R> &a, float b) { return a = sim_16<R>((float)a op b); }
SIM_OP(+) SIM_OP(-) SIM_OP(*) SIM_OP(/)
template <class R> sim_16<R> operator-(sim_16<R> a) { return sim_16<R>(-(float)a); }
#define SIM_CMP(op) template <class R> bool operator op(sim_16<R> a, sim_16<R> b) { return (float)a op (float)b; }
SIM_CMP(<) SIM_CMP(>) SIM_CMP(<=) SIM_CMP(>=) SIM_CMP(==) SIM_CMP(!=)
#define SIM_F(name, expr) template <class R> sim_16<R> name(sim_16<R> x) { float f = x; return sim_16<R>(expr); }
SIM_F(hsqrt, sqrtf(f)) SIM_F(hcos, cosf(f)) SIM_F(hsin, sinf(f)) SIM_F(hlog, logf(f)) SIM_F(hexp, expf(f)) SIM_F(__habs, fabsf(f))
template <class R> bool __hisnan(sim_16<R> x) { return std::isnan((float)x); }
template <class R> sim_16<R> __hmax_nan(sim_16<R> a, sim_16<R> b) { return __hisnan(a) ? a : __hisnan(b) ? b : (float)a < (float)b ? b : a; }
template <class R> sim_16<R> __hmin_nan(sim_16<R> a, sim_16<R> b) { return __hisnan(a) ? a : __hisnan(b) ? b : (float)b < (float)a ? b : a; }
inline float __half2float(__half h) { return h; }
inline __half __float2half(float f) { return __half(f); }
inline float __bfloat162float(__nv_bfloat16 h) { return h; }
inline __nv_bfloat16 __float2bfloat16(float f) { return __nv_bfloat16(f); }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __nv_bfloat16(f); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }
inline unsigned short __half_as_ushort(__half h) { return h.bits; }
inline __half __ushort_as_half(unsigned short b) { __half h; h.bits = b; return h; }
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x + b.x, a.y + b.y}; }
inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x * b.x, a.y * b.y}; }
inline __nv_bfloat162 __hsub2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x - b.x, a.y - b.y}; }
// Eight bits: no model here uses them.
struct __nv_fp8_e4m3 { uint8_t __x; __nv_fp8_e4m3() = default; template <class T> __nv_fp8_e4m3(T) : __x(0) { abort(); } operator float() const { abort(); } };
enum { __NV_E4M3 };
inline __half __nv_cvt_fp8_to_halfraw(uint8_t, int) { abort(); }

// A kernel registers itself under its name, with a function that calls it and the sizes of its arguments.
typedef void (*sim_call)(void **arguments);
struct sim_kernel {
    sim_kernel(const char *name, sim_call call, const unsigned *sizes);
};
template <auto F> struct sim_invoke;
template <class... A, void (*F)(A...)> struct sim_invoke<F> {
    template <size_t... I> static void at(void **p, std::index_sequence<I...>) { F(*(std::remove_const_t<A> *)p[I]...); }
    static constexpr unsigned sizes[] = {sizeof(A)..., 0};
    static void call(void **p) { at(p, std::index_sequence_for<A...>{}); }
};
#define SIM_KERNEL(name) static sim_kernel sim_##name(#name, sim_invoke<&name>::call, sim_invoke<&name>::sizes);
