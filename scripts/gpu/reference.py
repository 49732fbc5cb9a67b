"""transformers with a model of its own making, driven by lines of JSON.

usage: reference.py FOLDER DEVICE

FOLDER/shape.json says what to make; the weights are written to FOLDER/model. Each line of standard input,
{"batches": FILE, "size": N, "repeat": N}, is answered by times and losses.
"""
import json
import os
import sys
import time

import torch
import transformers

folder, device = sys.argv[1], sys.argv[2]
name, vocabulary, hidden, inner, layers, heads, keys, dtype = json.load(open(os.path.join(folder, "shape.json")))
if device == "cpu":
    torch.set_num_threads(2)


def make():
    config = getattr(transformers, name + "Config")(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=keys, max_position_embeddings=4096)
    config._attn_implementation = "sdpa"
    torch.manual_seed(1)
    torch.set_default_dtype(getattr(torch, dtype))
    with torch.device(device):
        model = getattr(transformers, name + "ForCausalLM")(config).eval()
    model.save_pretrained(os.path.join(folder, "model"), max_shard_size="5GB")
    return model


def one(batch):
    ids = torch.tensor([batch["ids"]], device=device)
    labels = ids.clone()
    labels[:, : batch["prompt_len"]] = -100
    return [model(ids, labels=labels).loss.item()]


def many(batch):
    longest = max(len(sample["ids"]) for sample in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, sample in enumerate(batch):
        count, prompt = len(sample["ids"]), sample["prompt_len"]
        ids[i, :count] = torch.tensor(sample["ids"])
        mask[i, :count] = 1
        labels[i, prompt:count] = ids[i, prompt:count]
    ids, mask, labels = ids.to(device), mask.to(device), labels.to(device)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float().transpose(1, 2)
    loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:], ignore_index=-100, reduction="none")
    return (loss.sum(1) / (labels[:, 1:] != -100).sum(1)).tolist()


def evaluate(batches, size):
    if size == 1:
        return [loss for batch in batches for loss in one(batch)]
    order = sorted(range(len(batches)), key=lambda i: -len(batches[i]["ids"]))
    losses = [0.0] * len(batches)
    for at in range(0, len(order), size):
        part = order[at : at + size]
        for i, loss in zip(part, many([batches[i] for i in part])):
            losses[i] = loss
    return losses


def answer(ask):
    batches = json.load(open(ask["batches"]))
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(ask.get("repeat", 1)):
        synchronize()
        begun = time.time()
        losses = evaluate(batches, ask["size"])
        synchronize()
        wall = time.time() - begun
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0
    return {"wall_s": wall, "losses": losses, "peak_gib": peak}


begun = time.time()
model = make()
print(json.dumps({"made_s": time.time() - begun, "dtype": str(model.dtype)}), flush=True)
for line in sys.stdin:
    try:
        with torch.inference_mode():
            print(json.dumps(answer(json.loads(line))), flush=True)
    except Exception as error:  # the next question may still be answered
        print(json.dumps({"failed": repr(error)[:500]}), flush=True)
