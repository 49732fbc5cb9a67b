"""Rates of bf16 products and copies on this GPU, with random data: one line of JSON."""
import json
import statistics

import torch

# Rows, columns and depth: a large square, the products of an 8 B Llama and a 1.6 B StableLM in a pack of 8192
# tokens, one part of a head, a small pack.
PRODUCTS = [
    (8192, 8192, 8192), (8192, 6144, 4096), (8192, 28672, 4096), (8192, 4096, 14336), (8192, 11264, 2048),
    (1046, 128256, 4096), (550, 28672, 4096),
]


def timed(work, count):
    for _ in range(3):
        work()
    times = []
    for _ in range(count):
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        work()
        ended.record()
        torch.cuda.synchronize()
        times.append(begun.elapsed_time(ended) / 1e3)
    return statistics.median(times)


def bf16(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


found = {}
for m, n, k in PRODUCTS:
    a, b = bf16(m, k), bf16(n, k)
    found[f"{m}x{n}x{k} TFLOP/s"] = 2 * m * n * k / timed(lambda: a @ b.t(), 20) / 1e12
x = bf16(2**30)
y = torch.empty_like(x)
found["copy GB/s"] = 4 * 2**30 / timed(lambda: y.copy_(x), 10) / 1e9
pinned = torch.empty(2**29, dtype=torch.uint8, pin_memory=True)
there = torch.empty(2**29, dtype=torch.uint8, device="cuda")
found["pinned to device GB/s"] = 2**29 / timed(lambda: there.copy_(pinned, non_blocking=True), 5) / 1e9
print(json.dumps(found))
