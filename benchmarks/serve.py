"""Load on `tiercel serve`: batches of all callers against one request at a time, in turns, on the same machine.

    python benchmarks/serve.py INDEX [--pipeline bm25+dense] [--seconds 20] [--connections 64] [--rounds 2]

INDEX is any index; its queries are the first words of its own documents. Client and servers share the machine's
cores, so the figures are ratios and no throughput of the server alone. `processor` is the server's own, per request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tiercel.app import open_index


@dataclass
class Load:
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    took: float = 0.0


def queries_of(path: Path, count: int = 500) -> list[str]:
    index = open_index(path)
    ids = [doc_id for view in index.views for doc_id in view.some_ids(count)]
    return [" ".join(document.full_text.split()[:8]) for document in index.get(ids[:count])]


def started(arguments: list[str]) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "tiercel.cli", "serve", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    port = int(process.stderr.readline().rpartition(":")[2])  # type: ignore[union-attr]
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready")
            return process, port
        except urllib.error.HTTPError:
            time.sleep(0.1)


async def ask(port: int, queries: list[str], until: float, load: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = id(writer)
    while time.perf_counter() < until:
        number += 1
        body = json.dumps({"query": queries[number % len(queries)], "k": 10}).encode()
        head = (
            f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        begun = time.perf_counter()
        writer.write(head.encode() + b"\r\n\r\n" + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if line)
        await reader.readexactly(int(lines[b"content-length"]))
        load.seconds.append(time.perf_counter() - begun)
        load.statuses[int(answer.split(b" ")[1])] += 1
    writer.close()


async def loaded(port: int, queries: list[str], connections: int, seconds: float) -> Load:
    load = Load()
    begun = time.perf_counter()
    await asyncio.gather(*(ask(port, queries, begun + seconds, load) for _ in range(connections)))
    load.took = time.perf_counter() - begun
    return load


def resident_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def processor_seconds(pid: int) -> float:
    """Of all threads, which a busy machine stretches less than the time on the clock."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=Path)
    parser.add_argument("--pipeline", default="")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    queries = queries_of(options.index)
    common = [str(options.index), *(["--pipeline", options.pipeline] if options.pipeline else [])]
    servers = {"one at a time": started([*common, "--batch", "1"]), "batches": started(common)}
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for _, port in servers.values():
        asyncio.run(loaded(port, queries, options.connections, 3))
    for _ in range(options.rounds):
        for name, (process, port) in servers.items():
            before, spent = resident_mb(process.pid), processor_seconds(process.pid)
            load = asyncio.run(loaded(port, queries, options.connections, options.seconds))
            rates[name].append(len(load.seconds) / load.took)
            each = (processor_seconds(process.pid) - spent) / len(load.seconds)
            spread = statistics.quantiles(load.seconds, n=100)
            print(
                f"{name:<14} {rates[name][-1]:7.0f} requests/s"
                f"  p50 {spread[49] * 1000:6.1f} ms  p99 {spread[98] * 1000:6.1f} ms"
                f"  processor {each * 1000:4.1f} ms each"
                f"  {dict(load.statuses)}  memory {before:.0f} to {resident_mb(process.pid):.0f} MB"
            )
    ratio = statistics.mean(rates["batches"]) / statistics.mean(rates["one at a time"])
    print(f"batches answer {ratio:.2f} times as many, {options.connections} connections")
    for process, _ in servers.values():
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
