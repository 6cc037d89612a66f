"""A gpt-oss checkpoint as a GGUF file for llama.cpp, every weight as it is: MXFP4 experts, the rest bfloat16.

    block of 32 weights    safetensors: 16 bytes, neighbours 2j and 2j+1 in a byte; scales apart
                           GGUF: the scale, then 16 bytes, j and j+16 in a byte

Gates (even rows) and ups (odd rows) are matrices of their own there. Vectors, biases and the router are
widened to float32, as llama.cpp's own converter does. No vocabulary is written: ids go in and come out.
Names: the tables of the package `gguf`; shapes: llama.cpp's `openai-moe`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from tqdm import tqdm

from ..config import Config
from ..cost import human
from ..files import whole
from ..weights.checkpoint import Checkpoint, open_checkpoint
from ..weights.mxfp4 import BLOCK
from ..weights.places import find

MARK = "gptoss_lab.written_from"  # fingerprint of the safetensors, so that a file is known again
HALF = BLOCK // 2
LOW = 0x0F0F0F0F0F0F0F0F  # the low nibbles of eight bytes


@dataclass(frozen=True)
class Written:
    """A tensor of the file: its name, its shape, its type, and how its values are made."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    make: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes."""
        block, held = gguf.GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.shape)) // block * held


def blocks_of(blocks: Tensor, scales: Tensor) -> np.ndarray:
    """Blocks E O n 16 and scales E O n → rows of bytes E O 17n. Nibbles move eight bytes at a time."""
    first, second = blocks.contiguous().view(torch.int64).unbind(-1)  # weights 0 to 15, and 16 to 31
    out = torch.empty(*scales.shape, 1 + HALF, dtype=torch.uint8)
    out[..., 0] = scales
    out[..., 1::2] = as_bytes(first & LOW | (second & LOW) << 4)  # low nibbles: even neighbours
    out[..., 2::2] = as_bytes(first >> 4 & LOW | second & ~LOW)
    return out.flatten(-2).numpy()


def as_bytes(words: Tensor) -> Tensor:
    """… int64 → … 8 uint8."""
    return words[..., None].view(torch.uint8)


def widened(tensor: Tensor) -> np.ndarray:
    """As float32."""
    return tensor.float().contiguous().numpy()


def bits(tensor: Tensor) -> np.ndarray:
    """bfloat16 as it lies, as bytes."""
    return tensor.bfloat16().contiguous().view(torch.uint8).numpy()


def tensors(opened: Checkpoint) -> Iterator[Written]:
    """All tensors of the file, in order, made when they are asked for."""
    config, read = opened.config, opened.shards.tensor

    def plain(name: str, theirs: str, wide: bool = False) -> Written:
        shape = tuple(opened.shards[theirs].shape)
        make = (lambda: widened(read(theirs))) if wide else (lambda: bits(read(theirs)))
        return Written(name, shape, Kind.F32 if wide else Kind.BF16, make)

    def experts(name: str, theirs: str, rows: slice) -> Iterator[Written]:
        E, O, n, _ = opened.shards[f"{theirs}_blocks"].shape
        O = len(range(*rows.indices(O)))
        yield Written(f"{name}.weight", (E, O, n * BLOCK), Kind.MXFP4, lambda: blocks_of(
            read(f"{theirs}_blocks")[:, rows], read(f"{theirs}_scales")[:, rows]))  # fmt: skip
        yield Written(f"{name}.bias", (E, O), Kind.F32, lambda: widened(read(f"{theirs}_bias")[:, rows]))

    yield plain("token_embd.weight", "model.embed_tokens.weight")
    yield plain("output_norm.weight", "model.norm.weight", wide=True)
    yield plain("output.weight", "lm_head.weight")
    for layer in range(config.n_layers):
        here, there = f"blk.{layer}.", f"model.layers.{layer}."
        yield plain(f"{here}attn_norm.weight", f"{there}input_layernorm.weight", wide=True)
        yield plain(f"{here}post_attention_norm.weight", f"{there}post_attention_layernorm.weight", wide=True)
        for name, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("output", "o")):
            yield plain(f"{here}attn_{name}.weight", f"{there}self_attn.{theirs}_proj.weight")
            yield plain(f"{here}attn_{name}.bias", f"{there}self_attn.{theirs}_proj.bias", wide=True)
        yield plain(f"{here}attn_sinks.weight", f"{there}self_attn.sinks", wide=True)
        yield plain(f"{here}ffn_gate_inp.weight", f"{there}mlp.router.weight", wide=True)
        yield plain(f"{here}ffn_gate_inp.bias", f"{there}mlp.router.bias", wide=True)
        gate_up, down = f"{there}mlp.experts.gate_up_proj", f"{there}mlp.experts.down_proj"
        yield from experts(f"{here}ffn_gate_exps", gate_up, slice(0, None, 2))
        yield from experts(f"{here}ffn_up_exps", gate_up, slice(1, None, 2))
        yield from experts(f"{here}ffn_down_exps", down, slice(None))


def describe(writer: gguf.GGUFWriter, config: Config) -> None:
    """The figures of the config."""
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_expert_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.d_head)
    writer.add_value_length(config.d_head)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_expert_count(config.n_experts)
    writer.add_expert_used_count(config.experts_per_token)
    writer.add_sliding_window(config.window)
    writer.add_rope_dimension_count(config.d_head)
    writer.add_rope_freq_base(config.rope_theta)
    if config.yarn:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(config.yarn.factor)
        writer.add_rope_scaling_orig_ctx_len(config.yarn.original_context)
        writer.add_rope_scaling_yarn_beta_fast(config.yarn.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(config.yarn.beta_slow)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")


def write(source: str, path: Path, say: Callable[[str], object] = print) -> Path:
    """Write the file, unless it is there and from these very weights; its path.

    ValueError for a model that is no packed gpt-oss in the Hugging Face layout, for a file of other weights,
    and where the disk is too small.
    """
    name, folder = find(source)
    opened = open_checkpoint(folder, name)
    config = opened.config
    mark = opened.shards.fingerprint()
    if config.stored_experts != "mxfp4" or "model.embed_tokens.weight" not in opened.shards:
        raise ValueError(f"{config.name} is not a gpt-oss with experts in MXFP4, in the Hugging Face layout: "
                         "it is not written as GGUF here")  # fmt: skip
    if path.exists():
        if mark_of(path) != mark:
            raise ValueError(f"{path} was not written from {config.name} ({mark}): name another --gguf")
        return path
    planned = list(tensors(opened))
    size = sum(one.size for one in planned)
    if (free := shutil.disk_usage(path.absolute().parent).free) < size + 10_000_000:
        raise ValueError(f"the GGUF takes {human(size)}, but {path.absolute().parent} has {human(free)} free")
    say(f"writing {path.name} ({human(size)}) from {config.name}, every weight as it is")
    with whole(path) as beside, tqdm(total=size, unit="B", unit_scale=True, desc=path.name) as bar:
        writer = gguf.GGUFWriter(beside, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GPT_OSS])
        describe(writer, config)
        writer.add_string(MARK, mark)
        for one in planned:
            held = one.shape if one.kind == Kind.F32 else gguf.quant_shape_to_byte_shape(one.shape, one.kind)
            as_is = np.dtype(np.float32 if one.kind == Kind.F32 else np.uint8)
            writer.add_tensor_info(
                one.name, held, as_is, one.size, None if one.kind == Kind.F32 else one.kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for one in planned:
            writer.write_tensor_data(one.make())
            bar.update(one.size)
        writer.close()
    return path


def mark_of(path: Path) -> str | None:
    """What a file says of the weights that it was written from."""
    field = gguf.GGUFReader(path).get_field(MARK)
    return None if field is None else str(field.contents())
