"""Peak memory of ``extract`` over 100 and over 2,000 images, each in a process of its own.

python benchmarks/extract_memory.py

A four-block ViT with 8-pixel patches and random weights on images of four sizes around 160 pixels. Keeping the decoded
pixels of 1,900 images would take 0.14 GB more, keeping their keys 0.6 GB.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((160, 160), (152, 168), (168, 152), (144, 160))


def write_images(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for i in range(count):
        height, width = SIZES[i % len(SIZES)]
        coarse = Image.fromarray(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg")


def child(folder: Path, count: int) -> None:
    """Extract and drop the features of ``count`` images; print how many there were and the peak in MiB."""
    import torch

    from foundling.backbones import extract, load_backbone

    torch.set_num_threads(1)
    backbone = load_backbone("scenes_odin", weights="random", device="cpu")
    done = sum(len(features) for features in extract(backbone, sorted(folder.iterdir())[:count]))
    print(done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peak(folder: Path, count: int) -> float:
    command = [sys.executable, __file__, str(folder), str(count)]
    done, mebibytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(done) == count
    return float(mebibytes)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_images(folder, 2000)
        peaks = {count: peak(folder, count) for count in (100, 2000)}
    for count, mebibytes in peaks.items():
        print(f"{count:>5} images: peak {mebibytes:.0f} MiB")
    print(f"ratio {peaks[2000] / peaks[100]:.3f}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
