"""Do time limit and memory cap hold? `qverify verify` on networks of 1,000 to 100,000 Relus, watched from outside.

    python tests/benchmarks/limits.py [--timeout 6] [--memory 2G] [--bits 12] [--samples 2] [--only NAME]

For each network a line: Relus, what became of the samples, the longest time that a sample took by its row, how much the
memory of the command and of all processes it started exceeded `--memory` at most (MiB; below 0 it stayed inside).
Weights are random, which is the worst case for bounds: nothing is decided early.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
from onnx import TensorProto, helper, numpy_helper

from qverify.budget import parse_memory

ENTRY = (3, 32, 32)


class Drawing:
    """Nodes of a graph from `x`, with He-scaled weights; `shape` is that of the last tensor, `tensor` its name."""

    def __init__(self, seed: int) -> None:
        self.rng, self.relus = np.random.default_rng(seed), 0
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.tensor = "x"
        self.shape: tuple[int, ...] = ENTRY

    def _weights(self, shape: tuple[int, ...]) -> list[str]:
        name = f"w{len(self.constants)}"
        scale = np.sqrt(2.0 / np.prod(shape[1:]))
        for suffix, values in (("", self.rng.normal(size=shape) * scale), ("b", np.zeros(shape[0]))):
            self.constants.append(numpy_helper.from_array(values.astype(np.float32), name + suffix))
        return [name, name + "b"]

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> Drawing:
        self.tensor = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [self.tensor], **attributes))
        return self

    def relu(self) -> Drawing:
        self.relus += int(np.prod(self.shape))
        return self.node("Relu", [self.tensor])

    def conv(self, channels: int, stride: int = 1) -> Drawing:
        weights = self._weights((channels, self.shape[0], 3, 3))
        self.shape = (channels, self.shape[1] // stride, self.shape[2] // stride)
        return self.node("Conv", [self.tensor, *weights], pads=[1] * 4, strides=[stride] * 2)

    def block(self) -> Drawing:
        """x + conv(relu(conv(x))), and a Relu behind the sum."""
        source, channels = self.tensor, self.shape[0]
        inside = self.conv(channels).relu().conv(channels).tensor
        return self.node("Add", [inside, source]).relu()

    def dense(self, width: int) -> Drawing:
        if len(self.shape) > 1:
            self.node("Flatten", [self.tensor])
        weights = self._weights((width, int(np.prod(self.shape))))
        self.shape = (width,)
        return self.node("Gemm", [self.tensor, *weights], transB=1)

    def model(self) -> onnx.ModelProto:
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
            for name, shape in (("x", ENTRY), (self.tensor, self.shape))
        ]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def drawn(name: str) -> Drawing:
    """The network of that name, its output included."""
    d = Drawing(len(name))
    if name.startswith("dense"):
        for _ in range({"dense-1k": 1, "dense-10k": 10}[name]):
            d.dense(1024).relu()
    elif name.startswith("residual"):
        channels, blocks = {"residual-12k": (8, 2), "residual-45k": (32, 2)}[name]
        d.conv(channels, stride=2 if channels == 8 else 1).relu()
        d = d if channels == 8 else d.conv(channels, stride=2).relu()
        for _ in range(2 * blocks if channels == 8 else blocks):
            d.block()
    else:
        plan = {
            "conv-1k": [(12, 4), (24, 2)],
            "conv-6k": [(16, 2), (32, 2)],
            "conv-12k": [(8, 1), (16, 2)],
            "conv-45k": [(16, 1), (32, 2), (64, 1), (64, 2)],
            "conv-100k": [(32, 1), (48, 1), (64, 2)],
        }[name]
        for channels, stride in plan:
            d.conv(channels, stride).relu()
    return d.dense(10)


NAMES = (
    *("dense-1k", "dense-10k", "conv-1k", "conv-6k", "conv-12k"),
    *("residual-12k", "residual-45k", "conv-45k", "conv-100k"),
)


class Watch(threading.Thread):
    """The largest memory of a process with its children, looked at 20 times a second: of each what is its own (uss)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak, self.over = psutil.Process(pid), 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            total = 0
            try:
                for process in [self.root, *self.root.children(recursive=True)]:
                    total += process.memory_full_info().uss
            except psutil.Error:
                continue
            self.peak = max(self.peak, total)


def measured(name: str, folder: Path, given: argparse.Namespace) -> str:
    """The line of one network."""
    drawing = drawn(name)
    model, data, out = folder / f"{name}.onnx", folder / "data.npz", folder / name
    onnx.save(drawing.model(), model)
    x = np.random.default_rng(0).random((given.samples, *ENTRY)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    np.savez(data, x=x, y=session.run(None, {"x": x})[0].argmax(1))
    options = {
        "data": data,
        "bits": given.bits,
        "timeout": given.timeout,
        "memory": given.memory,
        "method": given.method,
        "jobs": 1,
        "out": out,
    }
    command = [sys.executable, "-c", "from qverify.cli import main; main()", "verify", str(model)]
    command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    watch.start()
    _, said = process.communicate()
    wall = time.perf_counter() - began
    watch.over.set()
    if process.returncode:
        return f"{name:14s} exit status {process.returncode}: {said.strip().splitlines()[-1]}"
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    ends = ", ".join(sorted({f"{row['status']} by {row['method']}" for row in rows}))
    longest, peak = max(row["seconds"] for row in rows), watch.peak / 2**20
    beyond = peak - parse_memory(given.memory) / 2**20
    return f"{name:14s}{drawing.relus:8,d}{longest:10.2f} s{wall:8.1f} s{peak:8.0f} MiB{beyond:+8.0f}  {ends}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--timeout", type=float, default=6.0)
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--bits", type=int, default=12)
    parser.add_argument("--method", default="exact", help="exact: through every stage, to the margin itself")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--only", action="append", choices=NAMES)
    given = parser.parse_args()
    print(f"{'network':14s}{'Relus':>8s}{'longest':>12s}{'in all':>10s}{'peak':>12s}{'over':>8s}")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only or NAMES:
            print(measured(name, Path(folder), given), flush=True)


if __name__ == "__main__":
    main()
