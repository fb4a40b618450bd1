"""imagecodecs: the fastest codecs there are, in NumPy's reach."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs

LARGEST_BLOCK = 1 << 20


def inflate(inputs, threads):
    """Floor of tile and statistics: decompress every DEFLATE block once, into memory that stays in cache."""
    data = memoryview(Path(inputs["path"]).read_bytes())
    blocks = [data[at : at + size] for at, size in zip(inputs["offsets"].tolist(), inputs["sizes"].tolist())]
    workers = threads or os.cpu_count()
    buffers = [bytearray(LARGEST_BLOCK) for _ in range(workers)]

    def decompress(worker):
        for block in blocks[worker::workers]:
            imagecodecs.deflate_decode(block, out=buffers[worker])

    def run():
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(decompress, range(workers)))

    return run
