"""Everything that is to be learned from a GPU, in one command; what matters most comes first.

usage: scripts/gpu-check --bundle FOLDER      (scripts/gpu-bundle made FOLDER, elsewhere)

    OUT        folder of results.json and logs (default gpu-out)
    BUDGET     seconds in all (default 570); a stage that no longer fits is left out
    STAGES     names of stages to run, separated by commas (default: all)
    SHAPES     models to compare (default "llama-8b stablelm-1.6b")
    PYTHON     interpreter with torch and transformers
    DEVICE, REFERENCE    where ours and theirs compute (default cuda); with "cpu" and
               SHAPES="tiny tiny-stablelm" it is a trial of this script
    LIBRARIES  folders of libcuda, libcublas and libcurand; for a trial on the simulated driver
    LONGEST    the longest golden sample, in tokens; less for a trial on the simulated driver

Each stage has a time limit of its own, and results.json is written before the next one begins.
"""
import glob
import json
import math
import os
import random
import re
import subprocess
import sys
import tarfile
import threading
import time

from machine import (
    BUDGET, DEVICE, GOLDEN, HERE, OUT, PROGRAMS, PYTHON, REFERENCE, WORK, Usage, environment, left, libraries, limited,
    log, missing_walls, results, run, save, tool, without,
)
from worker import Worker, evaluate, plan_of, source

SHAPES = {  # class, vocabulary, hidden, inner, layers, heads, key heads, dtype, samples, prompt, response
    "tiny": ("Llama", 2000, 64, 176, 2, 4, 2, "float32", 12, (20, 60), (40, 120)),
    "tiny-stablelm": ("StableLm", 2000, 64, 176, 2, 4, 4, "bfloat16", 8, (20, 60), (40, 90)),
    "llama-86m": ("Llama", 32000, 640, 1728, 10, 10, 10, "bfloat16", 40, (100, 200), (200, 400)),
    "llama-8b": ("Llama", 128256, 4096, 14336, 32, 32, 8, "bfloat16", 160, (100, 200), (300, 500)),
    "stablelm-1.6b": ("StableLm", 100352, 2048, 5632, 24, 32, 32, "bfloat16", 160, (100, 200), (300, 500)),
}
SHORT = {"float32": "f32", "bfloat16": "bf16"}


def shapes():
    return os.environ.get("SHAPES", "llama-8b stablelm-1.6b").split()


def model_folder(shape):
    return os.path.join(WORK, shape, "model")


def is_written(shape):
    return os.path.exists(os.path.join(model_folder(shape), "config.json"))


def dtype_of(shape):
    return SHORT[SHAPES[shape][7]]


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file)
    return path


def brief(found):
    """A finding without what only fills pages."""
    return {k: v for k, v in found.items() if k not in ("losses", "process_s", "content_hash")}


def apart(ours, theirs):
    """The largest difference of two lists of losses."""
    return max(abs(float(a) - float(b)) for a, b in zip(ours, theirs))


def bench(model, batches, dtype, seconds, *more, device=DEVICE):
    command = [os.path.join(PROGRAMS, "bench"), "--model", model, "--batches", batches, "--device", device, *without()]
    env = environment()
    if device == "cpu":
        env["RAYON_NUM_THREADS"] = "2"  # as reference.py
    begun = time.time()
    rc, out, err = run([*command, "--dtype", dtype, *more], seconds, env=env)
    try:
        found = json.loads(out.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"failed": rc, "stderr": err}
    found["process_s"] = time.time() - begun
    return found


# ---- stages


def machine():
    """What is this machine?"""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {"libraries": libraries(), "cpus": os.cpu_count(), "memory_gib": memory}
    if DEVICE != "cpu" and tool("nvidia-smi"):
        query = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.mem,power.draw"
        found["gpu"] = run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], 30)[1].strip()
    code = "import torch, transformers; print(torch.__version__, transformers.__version__, torch.cuda.is_available())"
    found["python"] = run([PYTHON, "-c", code], 90)[1].strip()
    found["devices"] = sorted(glob.glob("/dev/nvidia*"))
    info = os.path.join(PROGRAMS, "INFO")
    found["bundle"] = open(info).read().strip() if os.path.exists(info) else ""
    return found


def walls():
    """Does the worker get its device behind its walls? If not, which wall is in the way?"""
    found = {}
    for missing in ([], ["namespaces"], ["landlock"], ["seccomp"], ["namespaces", "landlock", "seccomp"]):
        name = "without " + " and ".join(missing) if missing else "all walls"
        try:
            found[name] = one_worker(missing)
        except Exception as error:  # the next try may still tell
            found[name] = {"failed": repr(error)}
        log("  ", name, json.dumps(found[name])[:400])
        if "worst" in found[name].get("self_test", {}):
            missing_walls[:] = missing
            break
    found["failed"] = missing_walls or ("worst" not in found[name].get("self_test", {}) and "no device")
    return found


def start_worker(readable, missing=None):
    program, stderr = os.path.join(PROGRAMS, "eval-worker"), os.path.join(OUT, "worker.txt")
    return Worker(program, DEVICE, readable, environment(), stderr, limited, ["--no-sandbox", *without(missing)])


def one_worker(missing):
    worker = start_worker([os.path.join(GOLDEN, "models")], missing)
    try:
        found = {"device": worker.device, "walls": worker.walls, "hello_s": worker.hello_s}
        if "fault" not in worker.device:
            found["self_test"] = worker.self_test(120)
            begun = time.time()
            found["self_test_again"] = worker.self_test(60)
            found["again_s"] = time.time() - begun
            # What was compiled at the first start is read at the next one.
            again = start_worker([], missing)
            found["second_hello_s"] = again.hello_s
            again.close()
        return found
    finally:
        worker.close()


def golden_batches(tokenizer, ids=None):
    with open(os.path.join(GOLDEN, f"tokenized_{tokenizer}.json")) as file:
        rows = json.load(file)["samples"]
    longest = int(os.environ.get("LONGEST", 10**9))
    chosen = [row for row in rows if (ids is None or row["id"] in ids) and len(row["ids"]) <= longest]
    path = os.path.join(WORK, f"golden-{tokenizer}-{len(chosen)}.json")
    batches = [{"ids": row["ids"], "prompt_len": row["prompt_len"]} for row in chosen]
    return write_json(path, batches), [row["id"] for row in chosen]


def golden(dtype, run_name, limit):
    """Losses of the tiny golden models against those of the Python validator, at most `limit` apart."""
    with open(os.path.join(GOLDEN, "losses.json")) as file:
        models = json.load(file)["models"]
    found, worst, failed = {}, 0.0, []
    for name, model in models.items():
        reference = model["runs"].get(run_name)
        if reference is None:
            continue
        batches, ids = golden_batches(model["tokenizer"], set(reference["samples"]))
        ours = bench(os.path.join(GOLDEN, "models", name), batches, dtype, 60)
        if "failed" in ours:
            found[name] = ours
            failed.append(name)
            log("  ", name, "failed:", ours["stderr"].strip()[-300:])
            continue
        expected = dict(zip(reference["samples"], map(float, reference["losses"])))
        pairs = [(float(loss), expected[i]) for i, loss in zip(ids, ours["losses"])]
        finite = [a - b for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
        odd = [i for i, (a, b) in zip(ids, pairs) if not math.isfinite(a - b) and str(a) != str(b)]
        found[name] = {
            "worst": max(map(abs, finite), default=0.0), "mean": sum(finite) / max(1, len(finite)), "samples": len(pairs),
            "not_finite_differ": odd, "process_s": ours["process_s"], "load_s": ours["load_s"],
        }
        worst = max(worst, found[name]["worst"])
        failed += [name] * bool(odd or found[name]["worst"] > limit)
    return {"worst": worst, "failed": failed, "models": found}


def ceilings():
    """What this card reaches at best."""
    if REFERENCE == "cpu":
        return {"left_out": "no GPU"}
    rc, out, err = run([PYTHON, os.path.join(HERE, "ceilings.py")], 90)
    return json.loads(out) if rc == 0 else {"failed": rc, "stderr": err}


def attention():
    """How fast is attention alone, by the kernel for short sequences and by the one that is chosen?"""
    if DEVICE == "cpu":
        return {"left_out": "no GPU"}
    rc, out, err = run([os.path.join(PROGRAMS, "attention")], 60)
    shapes = [json.loads(line) for line in out.splitlines()]
    for shape in shapes:
        log("  ", json.dumps(shape))
    return {"shapes": shapes, **({"failed": rc, "stderr": err} if rc else {})}


# Texts of one length: how many, how long; and how long with a tiny model.
LONG = {"long": (16, 2048, 300), "longest": (4, 8192, 400)}


def shape_samples(shape, long=None):
    _, vocabulary, *_, count, prompt, response = SHAPES[shape]
    r = random.Random(1)

    def sample(prompt_len, length):
        return {"ids": [r.randrange(vocabulary) for _ in range(length)], "prompt_len": prompt_len}

    if long:
        count, *lengths = LONG[long]
        length = lengths[shape.startswith("tiny")]
        return [sample(length // 4, length) for _ in range(count)]
    lengths = [(r.randint(*prompt), r.randint(*response)) for _ in range(count)]
    return [sample(p, p + n) for p, n in lengths]


def flops(shape, samples):
    """Operations of the products a loss needs: body, head on scored rows, causal attention."""
    _, vocabulary, hidden, inner, layers, heads, keys, *_ = SHAPES[shape]
    tokens = sum(len(s["ids"]) for s in samples)
    rows = sum(len(s["ids"]) - max(1, s["prompt_len"]) for s in samples)
    body = layers * hidden * (2 * hidden + 2 * hidden // heads * keys + 3 * inner)
    attention = sum(layers * 2 * hidden * len(s["ids"]) ** 2 for s in samples)
    return 2 * (body * tokens + vocabulary * hidden * rows) + attention, tokens


class Reference:
    """transformers with a model of its own making, which it also writes for us to read."""

    def __init__(self, folder, device):
        self.stderr = open(os.path.join(OUT, "reference.txt"), "a")
        command = [PYTHON, os.path.join(HERE, "reference.py"), folder, device]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, text=True
        )
        self.made = self.line(180)

    def line(self, seconds):
        timer = threading.Timer(limited(seconds), self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
            return json.loads(line) if line else {"failed": f"ended, {self.process.poll()}"}
        finally:
            timer.cancel()

    def ask(self, size, batches, seconds, repeat=1):
        try:
            self.process.stdin.write(json.dumps({"size": size, "batches": batches, "repeat": repeat}) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            return {"failed": repr(error)}
        return self.line(seconds)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.stderr.close()


class Comparison:
    """Ours and theirs, in turn, on the same weights and ids."""

    def __init__(self, shape, device=DEVICE, reference=REFERENCE):
        self.shape, self.device = shape, device
        folder = os.path.join(WORK, shape)
        os.makedirs(folder, exist_ok=True)
        write_json(os.path.join(folder, "shape.json"), SHAPES[shape][:8])
        samples = shape_samples(shape)
        self.short = write_json(os.path.join(folder, "batches.json"), samples)
        self.work, self.tokens = flops(shape, samples)
        self.found = {"tokens": self.tokens, "tflop": self.work / 1e12, "ours": [], "reference": []}
        results["stages"]["speed " + shape] = self.found
        self.reference = Reference(folder, reference)
        self.found["made"] = self.reference.made

    def ours(self, name, batches, *more, repeat=3):
        usage = Usage()
        one = bench(model_folder(self.shape), batches, dtype_of(self.shape), 150, "--repeat", str(repeat), *more,
                    device=self.device)
        return self.keep("ours", dict(one, name=name, **usage.close()))

    def theirs(self, name, size, batches, repeat=1):
        return self.keep("reference", dict(self.reference.ask(size, batches, 120, repeat), name=name))

    def of_length(self, name):
        """Compares on texts of one length."""
        samples = shape_samples(self.shape, name)
        batches = write_json(os.path.join(WORK, self.shape, name + ".json"), samples)
        theirs = self.theirs(name + ", batch 1", 1, batches, 2)
        self.ratio(name, theirs, self.ours(name + ", pack 8192", batches, repeat=2), flops(self.shape, samples)[0])

    def keep(self, side, one):
        self.found[side].append(brief(one))
        log("  ", side, json.dumps(brief(one))[:300])
        save()
        return one

    def ratio(self, name, theirs, ours, work=None):
        if "wall_s" not in theirs or "wall_s" not in ours:
            return
        self.found["ratio_" + name] = theirs["wall_s"] / ours["wall_s"]
        if work:
            self.found["tflops_" + name] = work / ours["wall_s"] / 1e12
            self.found["reference_tflops_" + name] = work / theirs["wall_s"] / 1e12
        save()


def speed(shape):
    """transformers one sample at a time, and eight at a time, beside ours."""
    both = Comparison(shape)
    found = both.found
    try:
        theirs, ours = both.theirs("batch 1", 1, both.short, 2), both.ours("pack 8192", both.short)
        both.ratio("batch1", theirs, ours, both.work)
        if "losses" in theirs and "losses" in ours:
            differences = [float(a) - b for a, b in zip(ours["losses"], theirs["losses"])]
            found["apart"] = {"worst": max(map(abs, differences)), "mean": sum(differences) / len(differences)}
        both.ratio("batch8", both.theirs("batch 8", 8, both.short, 2), ours)
        again = both.ours("pack 8192 again", both.short)
        if "losses" in again and "losses" in ours:
            found["bits_equal_twice"] = again["losses"] == ours["losses"]
        for pack in (2048, 4096, 16384):
            if left() < 60:
                break
            other = both.ours(f"pack {pack}", both.short, "--pack-tokens", str(pack), repeat=2)
            if "losses" in other and "losses" in ours:
                found[f"pack_{pack}_apart"] = apart(other["losses"], ours["losses"])
        if left() > 60:
            both.of_length("long")
        if left() > 90:
            both.of_length("longest")
    finally:
        both.reference.close()
    return found


def cpu():
    """bf16 on the CPU of this machine, which may have AMX, beside transformers."""
    both = Comparison("llama-86m", "cpu", "cpu")
    try:
        with open("/proc/cpuinfo") as file:
            has = {flag for flag in file.read().split() if flag.startswith(("amx", "avx512_bf16"))}
        both.found["instructions"] = sorted(has)
        both.ratio("cpu", both.theirs("batch 1", 1, both.short, 2), both.ours("pack 512", both.short, "--pack-tokens", "512"))
    finally:
        both.reference.close()
    return both.found


def resident():
    """The worker as the validator drives it: load, load ahead while computing, stay, go when room is needed."""
    models = {}
    for shape in filter(is_written, shapes()):
        with open(os.path.join(model_folder(shape), "config.json")) as file:
            architecture = json.load(file)["architectures"][0]
        models[shape] = [model_folder(shape), architecture, dtype_of(shape), None]
    if not models:
        return {"left_out": "no models were written"}
    names, first, found = list(models), {}, {}
    # One worker learns what each hashes to. A new one is told of the next model while it computes, so that it is
    # there when it is asked for; in its second turn all are there.
    for turns in (("alone",), ("next one told", "resident")):
        worker = start_worker([WORK])
        try:
            if "fault" in worker.device:
                return {"failed": worker.device}
            for turn in turns:
                for i, shape in enumerate(names):
                    samples, following = shape_samples(shape), models[names[(i + 1) % len(names)]]
                    following = None if turn == "alone" else source(*following)
                    begun = time.time()
                    request = evaluate(source(*models[shape]), samples, plan_of(samples), following)
                    answer = worker.ask(request, 120)
                    answer["visit_s"] = time.time() - begun
                    if "losses" in answer:
                        models[shape][3] = answer["content_hash"]
                        answer["bits_equal"] = first.setdefault(shape, answer["losses"]) == answer["losses"]
                    found[f"{shape}, {turn}"] = brief(answer)
                    log("  ", shape, turn, json.dumps(brief(answer))[:300])
        finally:
            worker.close()
    return found


def kernels():
    """Time of each kernel over a stretch of a pack, by Nsight Compute (each launched alone)."""
    ncu = tool("ncu", "/opt/nvidia/nsight-compute/*/ncu")
    found = {}
    for shape in filter(is_written, shapes()):
        if not ncu or left() < 60:
            continue
        stretch = ["--launch-skip", "1500", "--launch-count", "1500"]
        metrics = ["--metrics", "gpu__time_duration.sum", "--clock-control", "none", "--csv"]
        batches = os.path.join(WORK, shape, "batches.json")
        program = [os.path.join(PROGRAMS, "bench"), "--model", model_folder(shape), "--batches", batches]
        # The tool talks to its program through sockets, which the walls forbid.
        rc, out, err = run(
            [ncu, *metrics, *stretch, *program, "--device", DEVICE, "--dtype", dtype_of(shape),
             *without(["landlock", "seccomp"])], 100, f"ncu-{shape}.csv")
        total = {}
        for line in out.splitlines():
            cells = re.findall(r'"((?:[^"]|"")*)"', line)
            if len(cells) <= 5 or "gpu__time_duration.sum" not in cells:
                continue
            unit = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "nsecond": 1e-3, "usecond": 1.0}.get(cells[-2], 1.0)
            one = total.setdefault(cells[4][:60], [0, 0.0])
            one[0] += 1
            one[1] += float(cells[-1].replace(",", "")) * unit
        longest_first = dict(sorted(total.items(), key=lambda item: -item[1][1])[:25])
        found[shape] = {"us_by_kernel": longest_first, "rc": rc, "stderr": "" if total else err[-300:]}
    return found or {"left_out": "no ncu, no models or no time"}


def memcheck():
    """Does any kernel touch what it should not?"""
    sanitizer = tool("compute-sanitizer", "/opt/nvidia/nsight-compute/*/compute-sanitizer", "/usr/local/cuda*/bin/compute-sanitizer")
    if not sanitizer or DEVICE == "cpu":
        return {"left_out": "no compute-sanitizer"}
    batches, _ = golden_batches("llama3", {0, 1, 2, 3})
    program = [os.path.join(PROGRAMS, "bench"), "--model", os.path.join(GOLDEN, "models/llama_gqa"), "--batches", batches]
    # Not initcheck: on Hopper it does not see what cuBLAS stores, and PyTorch's `a @ b + 1` fails it, too.
    command = [sanitizer, "--tool", "memcheck", "--error-exitcode", "9", *program, "--device", DEVICE, "--dtype", "bf16"]
    rc, out, err = run([*command, *without(["landlock", "seccomp"])], 60, "memcheck.txt")
    return {"rc": rc, "end": (out + err)[-300:], "failed": rc}


def stages():
    """Name, what to do, seconds it wants at least."""
    speeds = [(f"speed {shape}", lambda shape=shape: speed(shape), 60) for shape in shapes()]
    every = [
        ("machine", machine, 5), ("walls", walls, 10), ("golden_f32", lambda: golden("f32", "float32/eager", 1e-4), 10),
        ("ceilings", ceilings, 15), ("attention", attention, 15), *speeds, ("resident", resident, 30), ("cpu", cpu, 30),
        ("golden_bf16", lambda: golden("bf16", "bfloat16/sdpa", 1.0), 10), ("kernels", kernels, 40), ("memcheck", memcheck, 20),
    ]
    names = os.environ.get("STAGES")
    by_name = {name: (name, *stage) for name, *stage in every}
    return [by_name[name] for name in names.split(",")] if names else every


def unpack(bundle):
    os.makedirs(OUT, exist_ok=True)
    os.makedirs(PROGRAMS, exist_ok=True)
    with tarfile.open(os.path.join(bundle, "bundle.tar.xz")) as tar:
        tar.extractall(PROGRAMS, filter="data")


def report():
    rate = results["stages"].get("ceilings", {}).get("8192x8192x8192 TFLOP/s")
    for shape in shapes():
        found = results["stages"].get("speed " + shape, {})
        if "ratio_batch1" not in found:
            continue
        share = f", {found['tflops_batch1'] / rate:.0%} of {rate:.0f} TFLOP/s" if rate else ""
        others = ", ".join(f"{name[6:]} {found[name]:.2f}" for name in ("ratio_batch8", "ratio_long", "ratio_longest") if name in found)
        log(f"{shape}: {found['ratio_batch1']:.2f} times batch 1 ({others}){share}, losses apart {found['apart']}")
    for name in ("golden_f32", "golden_bf16"):
        found = results["stages"].get(name, {})
        if "worst" in found:
            log(f"{name}: worst {found['worst']:.1e}, {len(found['models'])} models, failed: {found['failed'] or 'none'}")


def wrong(found):
    """Whether anything in it failed, was answered by a fault, or has other bits than it should have."""
    if isinstance(found, list):
        return any(map(wrong, found))
    if not isinstance(found, dict):
        return False
    return any(
        key in ("failed", "fault") and value or key.startswith("bits_equal") and value is False or wrong(value)
        for key, value in found.items())


def main():
    unpack(sys.argv[1])
    failed = []
    for name, work, wants in stages():
        if left() < wants:
            results["stages"][name] = {"left_out": f"{left():.0f} s are left of {BUDGET:.0f}"}
            log(name, "left out")
            save()
            continue
        log(name)
        begun = time.time()
        try:
            found = work()
        except Exception as error:  # the next stage may still go well
            found = dict(results["stages"].get(name, {}), failed=repr(error)[:800])
        found["took_s"] = time.time() - begun
        results["stages"][name] = found
        save()
        log(name, f"took {found['took_s']:.1f} s", f"FAILED: {found['failed']}" if found.get("failed") else "")
        # Of the walls, earlier tries may fail: which one is in the way is what they tell.
        failed += [name] * bool(found.get("failed") if name == "walls" else wrong(found))
    report()
    return 1 if failed else 0


sys.exit(main())
