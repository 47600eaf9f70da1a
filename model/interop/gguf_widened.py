"""A GGUF file whose weights are widened to fp32: the same model with nothing left to round to."""

from __future__ import annotations

from pathlib import Path


def write_widened(source: Path, target: Path) -> None:
    """Copies a GGUF file of one piece, its metadata as they are, every tensor in fp32.

    Raises ValueError for one shard of several.
    """
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize

    reader = GGUFReader(source)
    count = reader.get_field("split.count")
    if count is not None and count.contents() > 1:
        raise ValueError(f"{source}: one of several shards; join them by llama-gguf-split --merge")
    architecture = reader.get_field("general.architecture")
    if architecture is None:
        raise ValueError(f"{source}: general.architecture is missing")
    writer = GGUFWriter(target, architecture.contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        items = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=items)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype("<f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
