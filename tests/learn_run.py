"""A small training, run by tests in processes of their own: `python -m tests.learn_run FOLDER DEVICES [CHIP TO DIE AT]`."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from aftermap.augment import Augment
from aftermap.batches import Batches
from aftermap.chips import Chip
from aftermap.losses import Sum
from aftermap.model import Model, Spec, build
from aftermap.normalise import fit
from aftermap.objectives.segment import Segment
from aftermap.torchdoor import torch
from aftermap.train import Plan, Result, fabric_for, train

STEPS = 12


class Ponds:
    """Dark discs on bright ground, in dB; the last column was not observed, and one corner's truth is not known."""

    def __init__(self, die_at: int = 0):
        self.left = die_at

    def ids(self, split: str) -> list[str]:
        return [f"{split}{i}" for i in range(10 if split == "train" else 5)]

    def read(self, id: str) -> Chip:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        rng = np.random.default_rng([int(id[-1]), id.startswith("train")])
        y, x = np.mgrid[:64, :64] - rng.uniform(20, 44, 2)[:, None, None]
        wet = np.hypot(y, x) < rng.uniform(8, 18)
        mean = np.stack([np.where(wet, -19.0, -9.0), np.where(wet, -26.0, -15.0)])
        pixels = np.asarray(mean + rng.normal(0, 2, mean.shape), np.float32)
        pixels[:, :, -1] = np.nan
        valid = np.asarray(np.isfinite(pixels).all(axis=0))
        truth = wet.astype(np.uint8)
        truth[:4, :4] = 255
        return Chip(pixels, valid, truth, ("VV", "VH"), "dB", id, domain=f"d{int(id[-1]) % 2}")


def network() -> Model:
    return build(Spec("mobilenetv3_small_050", "unet_plain", (2,), widths=(8, 8, 8, 16, 16)), seed=1)


def batches(split: str, *, size: int = 4, workers: int = 0, die_at: int = 0) -> Batches:
    ponds = Ponds()
    augment = Augment() if split == "train" else None
    stats = fit(ponds.read(i) for i in ponds.ids("train"))
    return Batches(Ponds(die_at), ponds.ids(split), stats, size, seed=3, augment=augment, workers=workers)


def run(folder: Path, devices: int = 1, die_at: int = 0) -> Result:
    torch.set_num_threads(1)

    def said(step: int, steps: int, numbers: dict[str, float]) -> None:
        if numbers:
            print(step, flush=True)

    plan = Plan(STEPS, lr=3e-3, encoder_lr=2e-3, schedule="cosine", every=4, metric="iou", smallest=False, keep=2, seed=7)
    fabric = fabric_for(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto")
    fabric.launch()
    model = network()
    sums = Sum({"dice": 1, "focal": 10})
    return train(
        model, Segment(sums), batches("train", die_at=die_at), batches("val", size=2), plan, folder, fabric=fabric, said=said
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    began = time.monotonic()
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    print(f"{time.monotonic() - began:.1f} s")
