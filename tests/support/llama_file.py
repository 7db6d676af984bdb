"""A Llama with random weights, written as a GGUF file: a real model for a real engine, a few hundred kilobytes small.

The format is that of ggml, docs/gguf.md; the names are those that llama.cpp reads for the architecture `llama`.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

LAYERS, WIDTH, HEADS, FEED, CONTEXT = 2, 64, 4, 128, 4096
ALIGNMENT = 32

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
SYLLABLES = tuple(f"{first}{second}" for first in "bdfgklmnprstvw" for second in "aeiou")

CHAT = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_F32 = 0
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6

Value = int | float | str | Sequence[int] | Sequence[float] | Sequence[str]


@dataclass(frozen=True)
class Tensor:
    """`shape` begins with the fastest running dimension, as GGUF has it."""

    name: str
    shape: tuple[int, ...]
    values: array[float]


def write_llama(path: Path, seed: int = 1) -> None:
    """Write a model that answers with gibberish; the same seed writes the same bytes."""
    pieces, kinds = _vocabulary()
    metadata: dict[str, Value] = {
        "general.architecture": "llama",
        "general.alignment": ALIGNMENT,
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": FEED,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": len(pieces),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": [-float(at) for at in range(len(pieces))],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHAT,
    }
    tensors = list(_tensors(len(pieces), random.Random(seed)))
    with path.open("wb") as file:
        file.write(_header(metadata, tensors))
        for tensor in tensors:
            file.write(bytes(-file.tell() % ALIGNMENT))
            file.write(tensor.values.tobytes())


def _vocabulary() -> tuple[list[str], list[int]]:
    """Every byte is a token, so that any text can be read, and syllables make the answers look like words."""
    spoken = [*(chr(code) for code in range(33, 127)), "\u2581", *SYLLABLES, *(f"\u2581{part}" for part in SYLLABLES)]
    pieces = [UNKNOWN, BEGIN, END, *(f"<0x{byte:02X}>" for byte in range(256)), *spoken]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * len(spoken)]
    return pieces, kinds


def _tensors(words: int, draw: random.Random) -> Iterator[Tensor]:
    def drawn(name: str, *shape: int) -> Tensor:
        count = shape[0] * shape[1]
        return Tensor(name, shape, array("f", (draw.gauss(0, 0.3) for _ in range(count))))

    def ones(name: str) -> Tensor:
        return Tensor(name, (WIDTH,), array("f", [1.0] * WIDTH))

    yield drawn("token_embd.weight", WIDTH, words)
    yield ones("output_norm.weight")
    yield drawn("output.weight", WIDTH, words)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        yield ones(f"{block}.attn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield drawn(f"{block}.{part}.weight", WIDTH, WIDTH)
        yield ones(f"{block}.ffn_norm.weight")
        yield drawn(f"{block}.ffn_gate.weight", WIDTH, FEED)
        yield drawn(f"{block}.ffn_up.weight", WIDTH, FEED)
        yield drawn(f"{block}.ffn_down.weight", FEED, WIDTH)


def _header(metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> bytes:
    """Magic, version 3, what is known of the model, and where each tensor begins behind the header."""
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))]
    parts += [_text(key) + _value(value) for key, value in metadata.items()]
    sizes = [len(tensor.values) * 4 for tensor in tensors]
    starts = accumulate((size + -size % ALIGNMENT for size in sizes), initial=0)
    for tensor, start in zip(tensors, starts, strict=False):
        shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        parts.append(_text(tensor.name) + shape + struct.pack("<IQ", _F32, start))
    header = b"".join(parts)
    return header + bytes(-len(header) % ALIGNMENT)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    kind = {str: _STRING, int: _INT32, float: _FLOAT32}[type(value[0])]
    head = struct.pack("<IIQ", _ARRAY, kind, len(value))
    return head + b"".join(_text(item) if isinstance(item, str) else _number(item) for item in value)


def _number(item: float) -> bytes:
    return struct.pack("<i" if isinstance(item, int) else "<f", item)
