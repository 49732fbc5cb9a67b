"""The machine and the run: settings, time left, programs started, results kept."""
import glob
import json
import os
import shutil
import subprocess
import sys
import threading
import time

BEGUN = time.time()
HERE = os.path.dirname(os.path.abspath(__file__))
DEVICE = os.environ.get("DEVICE", "cuda")
REFERENCE = os.environ.get("REFERENCE", DEVICE)
OUT = os.environ.get("OUT", "gpu-out")
WORK = os.environ.get("WORK", "/tmp/gpu-work")
BUDGET = float(os.environ.get("BUDGET", 570))
PYTHON = os.environ.get("PYTHON", sys.executable)
PROGRAMS = os.path.join(WORK, "programs")
GOLDEN = os.path.join(HERE, "../../validator/engine/tests/fixtures")
results = {"stages": {}}
# Walls a worker has to do without on this machine, if any: the stage `walls` finds out.
missing_walls = []


def left():
    return BUDGET - (time.time() - BEGUN)


def limited(seconds):
    """At most so many seconds, and no more than are left."""
    return max(5, min(seconds, left() - 2))


def save():
    results["seconds"] = time.time() - BEGUN
    path = os.path.join(OUT, "results.json")
    with open(path + ".new", "w") as file:
        json.dump(results, file, indent=1)
    os.replace(path + ".new", path)


def log(*words):
    line = f"[{time.time() - BEGUN:6.1f}] " + " ".join(map(str, words))
    print(line, flush=True)
    with open(os.path.join(OUT, "log.txt"), "a") as file:
        file.write(line + "\n")


def libraries():
    """Folders where this machine keeps libcuda, libcublas and libcurand."""
    if "LIBRARIES" in os.environ:
        return os.environ["LIBRARIES"].split(":")
    found = []
    code = "import nvidia; print('\\n'.join(nvidia.__path__))"
    try:
        packages = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=30).stdout
        for base in packages.split():
            found += glob.glob(os.path.join(base, "cu13/lib")) + glob.glob(os.path.join(base, "*/lib"))
    except (OSError, subprocess.SubprocessError):
        pass
    found += ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu"]
    wanted = ("libcublas.so.13", "libcurand.so.10", "libcuda.so.1")
    return [d for d in dict.fromkeys(found) if any(os.path.exists(os.path.join(d, name)) for name in wanted)]


def without(walls=None):
    """The arguments of our programs that leave out walls: those that a driver can't be had behind, or these."""
    walls = missing_walls if walls is None else walls
    return ["--without", ",".join(walls)] if walls else []


def environment():
    """The environment of our programs."""
    found = dict(os.environ, LD_LIBRARY_PATH=":".join(libraries()), RUST_BACKTRACE="0")
    found.setdefault("CUDA_CACHE_PATH", os.path.join(WORK, "kernels"))
    # As the validator starts its worker (validator/eval/src/worker.rs).
    found["CANDLE_BARRIER_POOL_SPIN_LIMIT"] = "1"
    return found


def run(command, seconds, keep=None, env=None):
    """Runs a program; returns its exit status, output and the end of what it says besides."""
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=limited(seconds), env=env or environment()
        )
        rc, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        rc, out, err = 124, error.stdout or b"", error.stderr or b""
    out, err = out.decode(errors="replace"), err.decode(errors="replace")
    if keep:
        with open(os.path.join(OUT, keep), "w") as file:
            file.write(out + err)
    return rc, out, err[-1500:]


def tool(name, *places):
    """Where a program is, or None."""
    return shutil.which(name) or next((path for place in places for path in glob.glob(place)), None)


class Usage:
    """The most memory and power the GPU had in use, read from outside."""

    def __init__(self):
        self.peak, self.power, self.process = 0, 0.0, None
        if DEVICE != "cpu" and shutil.which("nvidia-smi"):
            query = ["--query-gpu=memory.used,power.draw", "--format=csv,noheader,nounits", "-lms", "250"]
            self.process = subprocess.Popen(
                ["nvidia-smi", *query], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        for line in self.process.stdout:
            try:
                used, power = map(float, line.split(","))
            except ValueError:
                continue
            self.peak, self.power = max(self.peak, used), max(self.power, power)

    def close(self):
        if not self.process:
            return {}
        self.process.kill()
        self.process.wait()
        return {"gpu_mib": self.peak, "watts": self.power}
