"""A process that writes to a store and may be killed. `python writing.py race|objects|stream URI NAME`."""

from __future__ import annotations

import sys

from lowtide.connectors.stores import open_store

ROUNDS = 20
SIZE = 1024 * 1024


def race(uri: str, name: str) -> None:
    store = open_store(uri)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(ROUNDS):
        print(int(store.put_if_absent(f"race/{number:03d}", name.encode() * 10_000)), flush=True)


def objects(uri: str, name: str) -> None:
    store = open_store(uri)
    for number in range(100_000):
        store.put_if_absent(f"{name}/{number:06d}", bytes([number % 256]) * SIZE)
        print(number, flush=True)


def stream(uri: str, name: str) -> None:
    with open_store(uri).writer(name) as out:
        while True:
            out.write(b"x" * SIZE)
            print("wrote", flush=True)


if __name__ == "__main__":
    {"race": race, "objects": objects, "stream": stream}[sys.argv[1]](*sys.argv[2:])
