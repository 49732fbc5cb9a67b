// cuBLAS and cuRAND, as far as candle calls them: one product of matrices.
#include "driver.h"

#include <vector>

enum { SINGLE = 0, HALF = 2, BFLOAT = 14, COMPUTE_32F = 68, INVALID = 7 };

struct Handle {
    void *stream;
};
API cublasCreate_v2(Handle **handle) {
    *handle = new Handle{};
    return SUCCESS;
}
API cublasDestroy_v2(Handle *handle) {
    delete handle;
    return SUCCESS;
}
API cublasSetStream_v2(Handle *handle, void *stream) {
    handle->stream = stream;
    return SUCCESS;
}
API cublasSetWorkspace_v2(Handle *, void *, size_t) { return SUCCESS; }

static float load(const void *from, int type, size_t i) {
    switch (type) {
    case SINGLE: return ((const float *)from)[i];
    case BFLOAT: return ((const __nv_bfloat16 *)from)[i];
    default: return ((const __half *)from)[i];
    }
}
static void store(void *to, int type, size_t i, float value) {
    switch (type) {
    case SINGLE: ((float *)to)[i] = value; break;
    case BFLOAT: ((__nv_bfloat16 *)to)[i] = value; break;
    default: ((__half *)to)[i] = value;
    }
}
__attribute__((optimize("O3", "fast-math"))) static float dot(const float *a, const float *b, int length) {
    float sum = 0;
    for (int i = 0; i < length; i++) sum += a[i] * b[i];
    return sum;
}

// C = alpha A B + beta C, column by column: A is m x k, B is k x n, each transposed if asked for.
API cublasGemmStridedBatchedEx(Handle *handle, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha_at,
                               const void *a, int type_a, int lda, long long stride_a, const void *b, int type_b, int ldb,
                               long long stride_b, const void *beta_at, void *c, int type_c, int ldc, long long stride_c,
                               int batch, int compute, int) {
    int rows_a = transpose_a ? k : m, columns_a = transpose_a ? m : k;
    int rows_b = transpose_b ? n : k, columns_b = transpose_b ? k : n;
    if (m <= 0 || n <= 0 || k <= 0 || batch <= 0 || lda < rows_a || ldb < rows_b || ldc < m) {
        problem("product with bad shapes");
        return INVALID;
    }
    if (compute != COMPUTE_32F) problem("product that computes in type " + std::to_string(compute));
    size_t size = type_a == SINGLE ? 4 : 2;
    auto extent = [&](long long stride, int columns, int ld, int rows) {
        return size * ((size_t)(batch - 1) * stride + (size_t)(columns - 1) * ld + rows);
    };
    check((device_ptr)a, extent(stride_a, columns_a, lda, rows_a), "first factor of a product", stream_of(handle->stream).device);
    check((device_ptr)b, extent(stride_b, columns_b, ldb, rows_b), "second factor of a product", stream_of(handle->stream).device);
    check((device_ptr)c, extent(stride_c, n, ldc, m), "result of a product", stream_of(handle->stream).device);
    count(batch > 1 ? "product, batched" : "product", 2.0 * m * n * k * batch);
    float alpha = *(const float *)alpha_at, beta = *(const float *)beta_at;
    stream_of(handle->stream).push([=] {
        std::vector<float> row((size_t)m * k), column((size_t)n * k);
        for (int q = 0; q < batch; q++) {
            const char *qa = (const char *)a + q * stride_a * size, *qb = (const char *)b + q * stride_b * size;
            char *qc = (char *)c + q * stride_c * size;
            for (int i = 0; i < m; i++)
                for (int j = 0; j < k; j++)
                    row[(size_t)i * k + j] = load(qa, type_a, transpose_a ? (size_t)i * lda + j : (size_t)j * lda + i);
            for (int i = 0; i < n; i++)
                for (int j = 0; j < k; j++)
                    column[(size_t)i * k + j] = load(qb, type_b, transpose_b ? (size_t)j * ldb + i : (size_t)i * ldb + j);
            for (int j = 0; j < n; j++)
                for (int i = 0; i < m; i++) {
                    float value = alpha * dot(&row[(size_t)i * k], &column[(size_t)j * k], k);
                    size_t at = (size_t)j * ldc + i;
                    store(qc, type_c, at, beta == 0 ? value : value + beta * load(qc, type_c, at));
                }
        }
    });
    return SUCCESS;
}

// Made with every device, never used.
API curandCreateGenerator(void **generator, int) {
    *generator = (void *)64;
    return SUCCESS;
}
API curandDestroyGenerator(void *) { return SUCCESS; }
API curandSetStream(void *, void *) { return SUCCESS; }
API curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return SUCCESS; }
API curandSetGeneratorOffset(void *, unsigned long long) { return SUCCESS; }
