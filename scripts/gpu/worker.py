"""An eval-worker behind its walls, asked as the validator asks it: postcard in frames with a length before them
(validator/model/src/protocol.rs)."""
import struct
import subprocess
import threading
import time

ARCHITECTURES = ["LlamaForCausalLM", "MistralForCausalLM", "StableLmForCausalLM", "GemmaForCausalLM", "Qwen2ForCausalLM"]
DTYPES = ["f32", "bf16", "f16"]
SELF_TEST, EVALUATE = 0, 2
SDPA = 1
DONE = 1


class Reader:
    """Reads postcard."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def int(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def text(self):
        return self.take(self.int()).decode()

    def f64(self):
        return struct.unpack("<d", self.take(8))[0]

    def option(self, read):
        return read() if self.take(1)[0] else None

    def list(self, read):
        return [read() for _ in range(self.int())]

    def fault(self):
        return {"fault": ["model", "machine"][self.int()], "kind": self.int(), "text": self.text()}


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def text(value):
    return varint(len(value.encode())) + value.encode()


def numbers(values):
    return varint(len(values)) + b"".join(map(varint, values))


def source(directory, architecture, dtype, content_hash=None):
    """A `ModelSource`: sdpa by the rules of transformers 4.40, without limits."""
    known = b"\1" + content_hash if content_hash else b"\0"
    kinds = varint(ARCHITECTURES.index(architecture)) + varint(DTYPES.index(dtype)) + varint(SDPA) + varint(0)
    return text(directory) + known + kinds + b"\0" + struct.pack("<ddd", 1e30, 1.0, 1e30)


def evaluate(model, samples, packs, following=None):
    rows = b"".join(numbers(sample["ids"]) + varint(sample["prompt_len"]) for sample in samples)
    plan = varint(len(packs)) + b"".join(map(numbers, packs))
    return varint(EVALUATE) + model + varint(len(samples)) + rows + plan + (b"\1" + following if following else b"\0")


def plan_of(samples, room=8192):
    """Packs by first fit, as `PackingPlan::new`."""
    packs = []
    for i in sorted(range(len(samples)), key=lambda i: -len(samples[i]["ids"])):
        size = len(samples[i]["ids"])
        fitting = next((pack for pack in packs if pack[0] >= size), None)
        if fitting:
            fitting[0] -= size
            fitting[1].append(i)
        else:
            packs.append([max(0, room - size), [i]])
    return [pack for _, pack in packs]


class Worker:
    """A running worker. `limit` is asked for the most seconds a wait may take."""

    def __init__(self, program, device, readable, environment, stderr, limit, options=()):
        command = [program, "--device", device, *options] + [word for folder in readable for word in ("--readable", folder)]
        self.stderr, self.limit = open(stderr, "a"), limit
        begun = time.time()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, env=environment
        )
        hello = Reader(self.frame(60))
        if hello.take(4) != b"EVAL":
            raise EOFError("this is not an eval-worker")
        self.version, self.release = hello.int(), hello.text()
        if hello.int() == 0:
            self.device = {"id": hello.text(), "name": hello.text(), "memory": hello.option(hello.int)}
        else:
            self.device = hello.fault()
        self.walls = hello.list(lambda: (hello.text(), "stands" if hello.int() == 0 else "absent", hello.text()))
        self.unused_gpu = hello.option(hello.text)
        self.hello_s = time.time() - begun

    def frame(self, seconds):
        timer = threading.Timer(self.limit(seconds), self.process.kill)
        timer.start()
        try:
            prefix = self.process.stdout.read(4)
            if len(prefix) < 4:
                raise EOFError(f"the worker ended, {self.process.wait()}")
            return self.process.stdout.read(struct.unpack("<I", prefix)[0])
        finally:
            timer.cancel()

    def ask(self, message, seconds):
        self.process.stdin.write(struct.pack("<I", len(message)) + message)
        self.process.stdin.flush()
        while True:
            reply = Reader(self.frame(seconds))
            # Progress, and how full the device is, come before.
            if reply.int() != DONE:
                continue
            if reply.int() == 1:
                return reply.fault()
            kind = reply.int()
            if kind == SELF_TEST:
                return {"worst": reply.f64(), "seconds": reply.f64()}
            if kind == EVALUATE:
                return {
                    "losses": reply.list(reply.f64),
                    "content_hash": reply.take(32),
                    "parameters": reply.int(),
                    "norms_refused": reply.option(reply.text),
                    "warnings": reply.list(reply.text),
                    "counters": [reply.int() for _ in range(5)],
                    "load_s": reply.f64(),
                    "compute_s": reply.f64(),
                }
            return {"kind": kind}

    def self_test(self, seconds):
        return self.ask(varint(SELF_TEST), seconds)

    def close(self):
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
        self.stderr.close()
