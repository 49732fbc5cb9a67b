"""The Python side of `bench-cpu` and `gpu-check`: transformers, one sample after another.

usage: bench-reference.py write DIR SHAPE [--device cpu|cuda]    random weights and token ids
       bench-reference.py run DIR [--device ..] [--threads N] [--limit N]    one line of JSON
       bench-reference.py matmul    rate of a large bf16 product on the GPU, in TFLOP/s
       bench-reference.py table FILE.. [--rate TFLOPS]    a table of pairs of JSON lines: reference, ours
"""
import argparse, json, os, random, resource, statistics, time

SHAPES = {  # class, vocabulary, hidden, inner, layers, heads, key heads, dtype, samples, prompt, response
    "tiny": ("Llama", 2000, 64, 176, 2, 4, 2, "float32", 40, (20, 150), (280, 450)),
    "tiny-stablelm": ("StableLm", 2000, 64, 176, 2, 4, 4, "bfloat16", 20, (20, 60), (40, 90)),
    "llama-86m": ("Llama", 32000, 640, 1728, 10, 10, 5, "float32", 40, (20, 150), (280, 450)),
    "llama-86m-bf16": ("Llama", 32000, 640, 1728, 10, 10, 5, "bfloat16", 40, (20, 150), (280, 450)),
    "llama-1.1b": ("Llama", 32000, 2048, 5632, 22, 32, 4, "bfloat16", 1, (20, 20), (44, 44)),
    "llama-8b": ("Llama", 128256, 4096, 14336, 32, 32, 8, "bfloat16", 200, (100, 200), (300, 500)),
    "stablelm-1.6b": ("StableLm", 100352, 2048, 5632, 24, 32, 32, "bfloat16", 200, (100, 200), (300, 500)),
}
parser = argparse.ArgumentParser()
parser.add_argument("what", choices=["write", "run", "matmul", "table"])
parser.add_argument("args", nargs="*")
parser.add_argument("--device", default="cpu")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--limit", type=int)
parser.add_argument("--rate", type=float, help="TFLOP/s of a large product, to say which share is reached")
options = parser.parse_args()


def import_torch():
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch

    torch.set_num_threads(options.threads)
    return torch


def write(folder, shape):
    torch = import_torch()
    import transformers

    name, vocabulary, hidden, inner, layers, heads, keys, dtype, samples, prompt, response = SHAPES[shape]
    config = getattr(transformers, name + "Config")(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=keys, max_position_embeddings=4096, rope_theta=10000.0)
    torch.manual_seed(1)
    torch.set_default_dtype(getattr(torch, dtype))
    with torch.device(options.device):
        model = getattr(transformers, name + "ForCausalLM")(config)
    model.save_pretrained(os.path.join(folder, "model"), safe_serialization=True, max_shard_size="5GB")
    r = random.Random(1)
    batches = []
    for _ in range(samples):
        p, n = r.randint(*prompt), r.randint(*response)
        batches.append({"ids": [r.randrange(vocabulary) for _ in range(p + n)], "prompt_len": p})
    with open(os.path.join(folder, "batches.json"), "w") as file:
        json.dump(batches[: options.limit], file)
    with open(os.path.join(folder, "dtype"), "w") as file:
        file.write(dtype)


def run(folder):
    torch = import_torch()
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, open(os.path.join(folder, "dtype")).read())
    batches = json.load(open(os.path.join(folder, "batches.json")))
    begun = time.time()
    model = AutoModelForCausalLM.from_pretrained(os.path.join(folder, "model"), torch_dtype=dtype, attn_implementation="sdpa")
    model = model.eval().to(options.device)
    load, losses = time.time() - begun, []
    for repeat in range(1 if options.device == "cpu" else 2):  # the first time on a GPU warms it up
        losses, begun, cpu = [], time.time(), time.process_time()
        with torch.inference_mode():
            for batch in batches:
                ids = torch.tensor([batch["ids"]], device=options.device)
                labels = ids.clone()
                labels[:, : batch["prompt_len"]] = -100
                losses.append(model(ids, labels=labels).loss.item())
    wall, tokens = time.time() - begun, sum(len(batch["ids"]) for batch in batches)
    print(json.dumps({
        "tokens": tokens, "load_s": load, "wall_s": wall, "cpu_s": time.process_time() - cpu, "tokens_per_s": tokens / wall,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "losses": [str(loss) for loss in losses]}))


def matmul():
    torch = import_torch()
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in "ab")
    for count in (5, 30):
        torch.cuda.synchronize()
        begun = time.time()
        for _ in range(count):
            a @ b
        torch.cuda.synchronize()
    print(30 * 2 * 8192**3 / (time.time() - begun) / 1e12)


def flops(shape, tokens, rows):
    """Multiplications and additions of the matrix products; attention is left out."""
    _, vocabulary, hidden, inner, layers, heads, keys, *_ = SHAPES[shape]
    body = layers * hidden * (2 * hidden + 2 * hidden // heads * keys + 3 * inner)
    return 2 * (body * tokens + vocabulary * hidden * rows)


def table(files):
    columns = ["model", "tokens", "reference tokens/s", "ours tokens/s", "wall ratio (min to max)", "CPU ratio", "load s", "MiB", "loss apart (max, mean)"]
    columns += ["share of product rate"] * bool(options.rate)
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for path in files:
        lines = [json.loads(line) for line in open(path)]
        theirs, ours, shape = lines[0::2], lines[1::2], os.path.basename(path)
        wall = sorted(t["wall_s"] / o["wall_s"] for t, o in zip(theirs, ours))
        cpu = statistics.median(t["cpu_s"] / o["cpu_s"] for t, o in zip(theirs, ours))
        apart = [float(o) - float(t) for t, o in zip(theirs[0]["losses"], ours[0]["losses"])]
        speed = [statistics.median(line["tokens_per_s"] for line in side) for side in (theirs, ours)]
        cells = [shape, ours[0]["tokens"], f"{speed[0]:.0f}", f"{speed[1]:.0f}", f"{statistics.median(wall):.2f} ({wall[0]:.2f} to {wall[-1]:.2f})", f"{cpu:.2f}",
                 f"{min(o['load_s'] for o in ours):.2f}", max(o["peak_rss_mib"] for o in ours), f"{max(map(abs, apart)):.1e}, {sum(apart) / len(apart):+.1e}"]
        if options.rate:
            share = flops(shape, ours[0]["tokens"], ours[0]["head_rows"]) / min(o["wall_s"] for o in ours) / options.rate / 1e12
            cells.append(f"{share:.0%}")
        print("| " + " | ".join(map(str, cells)) + " |")


{"write": write, "run": run, "matmul": matmul, "table": lambda *files: table(files)}[options.what](*options.args)
