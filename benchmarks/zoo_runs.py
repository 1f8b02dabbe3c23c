"""Runs of zoos that the programs beside this one train, and what a step of them computes.

Reads   nothing; run by itself it does nothing
Writes  nothing
"""

import time

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from pipeline.distributions import Choice, Distribution
from pipeline.families import FamilySpec
from pipeline.images import Images, ImageSpec
from pipeline.loop_trainer import start
from pipeline.zoo import Hyperparameters, ModelSpec, ZooSpec

MATMUL = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices whose product is the rate of a device."""
PRODUCTS = 5


def one(value: object) -> Choice:
    """A choice of one."""
    return Choice(choice=(value,))


FAMILIES = {
    "small_cnn": FamilySpec(family="small_cnn", activation=one("relu")),
    "varying_cnn": FamilySpec(
        family="varying_cnn",
        activation=one("relu"),
        width=one(16),
        depth=one(3),
        kernel_size=one(3),
        stride=one(2),
        norm=one("batch"),
        pooling=one("mean"),
        num_linear=one(1),
    ),
    "mlp": FamilySpec(family="mlp", activation=one("relu"), width=one(32), depth=one(2), pool=one(2)),
}


def spec(family: str, *, epochs: int = 4, num_runs: int = 16, runs_per_chunk: int = 16) -> ZooSpec:
    """Runs of one architecture that differ in learning rates and seeds, on digits of 28x28 pixels."""
    return ZooSpec(
        name="benchmark",
        images=ImageSpec(name="digits", size=28, num_train=1024, num_test=64),
        architecture=FAMILIES[family],
        hyperparameters=Hyperparameters(
            optimizer=one("sgd"),
            learning_rate=Distribution(log_uniform=(1e-3, 1e-2)),
            momentum=Distribution(choice=(0.9,)),
            l2=Distribution(choice=(1e-4,)),
            dropout=Distribution(choice=(0.0,)),
            initialisation=one("he"),
            init_std=Distribution(choice=(0.1,)),
            train_fraction=Distribution(choice=(1.0,)),
        ),
        num_runs=num_runs,
        seed=0,
        epochs=epochs,
        batch_size=128,
        checkpoint_epochs=(epochs,),
        runs_per_chunk=runs_per_chunk,
    )


def step_flops(run: ModelSpec, images: Images) -> int:
    """Floating-point operations of a step of one run, forward and backward: products and sums of its layers."""
    batch = torch.tensor(images.train_images[: run.config.batch_size])
    labels = torch.tensor(images.train_labels[: run.config.batch_size])
    network = start(run)
    with FlopCounterMode(display=False) as counter:
        cross_entropy(network(batch), labels).backward()
    return counter.get_total_flops()


def matmul_rate(device: str) -> float:
    """Floating-point operations a second of a product of large float32 matrices: the best of a few."""
    size = MATMUL[device]
    matrix = torch.randn(size, size, device=device)
    seconds: list[float] = []
    for _ in range(PRODUCTS):
        started = time.perf_counter()
        product = matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        del product
    return 2 * size**3 / min(seconds)
