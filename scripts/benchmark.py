# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Speed, as ratios of two sides that run by turns in one process. Run it on a machine that does nothing else.

python scripts/benchmark.py train-step|classes|normalization-step|inference|rois|data|exports [--json FILE]
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from monai.data import CacheDataset, DataLoader
from monai.inferers import SliceInferer
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from segan_monai.data.phantom import make_phantom
from segan_monai.engines import AdversarialNormalizationTrainer, SegANTrainer
from segan_monai.export import ExportedBundle
from segan_monai.inferers import VolumeSliceInferer
from segan_monai.losses import DomainAdversarialLoss, MultiScaleL1Loss, WeightedDiceLoss
from segan_monai.networks import (
    CoarseLocalizer,
    DomainDiscriminator,
    LocalizationNet,
    LSNet,
    NormalizerSegmentor,
    ResNetSegmentor,
    RoIs,
    SegANCritics,
    SegANSegmentor,
    SegANSegmentors,
)
from segan_monai.transforms import RandSlicesd, SlicesWithContentd, scale_foreground

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
JsonFile = Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")]
Rounds = Annotated[int, typer.Option(help="times that each side runs; the median counts")]


def by_turns(sides: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, float]:
    """Median seconds of each side; one unmeasured run first, then the sides take turns."""
    seconds: dict[Any, list[float]] = {name: [] for name in sides}
    for measured in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if measured:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def report(title: str, rows: list[dict[str, Any]], file: Path | None) -> None:
    """Print a table and write the JSON."""
    hardware = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    table = Table(title=f"{title}\n{hardware}")
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "side" else "right")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=120).print(table)
    if file is not None:
        file.write_text(json.dumps({"title": title, "hardware": hardware, "rows": rows}, indent=4) + "\n")


def convolution_peak(dtype: torch.dtype) -> float:
    """GFLOP/s of the fastest of the segmentor's larger convolutions, at its best memory format."""
    best = 0.0
    for in_channels, out_channels, size, kernel, stride in ((256, 128, 40, 3, 1), (128, 256, 40, 4, 2)):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            conv = torch.nn.Conv2d(in_channels, out_channels, kernel, stride, padding=1, dtype=dtype)
            conv = conv.to(memory_format=memory_format)
            x = torch.rand(8, in_channels, size, size).to(dtype).contiguous(memory_format=memory_format)
            with torch.no_grad(), FlopCounterMode(display=False) as flops:
                conv(x)
            with torch.no_grad():
                seconds = min(by_turns({"conv": lambda conv=conv, x=x: conv(x)}, 1)["conv"] for _ in range(20))
            best = max(best, flops.get_total_flops() / seconds / 1e9)
    return best


def players() -> tuple[SegANSegmentor, SegANCritics]:
    """Return the networks of the paper: base 64, three modalities, three classes."""
    torch.manual_seed(0)
    return SegANSegmentor(3, 3), SegANCritics(3, 3)


def literal_step(batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    """One iteration as the paper writes it: two segmentor passes, gradients into everything, default memory format."""
    segmentor, critic = players()
    loss = MultiScaleL1Loss()
    optimizer = torch.optim.RMSprop(segmentor.parameters(), lr=2e-5)
    critic_optimizer = torch.optim.RMSprop(critic.parameters(), lr=2e-5)

    def run() -> None:
        image, label = batch["image"], batch["label"]
        for sign, player in ((-1, critic_optimizer), (1, optimizer)):
            segmentor.zero_grad()
            critic.zero_grad()
            prediction = segmentor(image).sigmoid()
            (sign * loss(critic(image, prediction), critic(image, label))).backward()
            player.step()
            if sign < 0:
                for parameter in critic.parameters():
                    parameter.data.clamp_(-0.01, 0.01)

    return run


def our_step(batch: dict[str, torch.Tensor], amp: bool) -> tuple[SegANTrainer, Callable[[], None]]:
    """One iteration of the trainer."""
    segmentor, critic = players()
    trainer = SegANTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        network=segmentor,
        optimizer=torch.optim.RMSprop(segmentor.parameters(), lr=2e-5),
        critic=critic,
        critic_optimizer=torch.optim.RMSprop(critic.parameters(), lr=2e-5),
        loss_function=MultiScaleL1Loss(),
        amp=amp,
    )
    trainer.state.epoch = 1
    return trainer, lambda: trainer._iteration(trainer, batch)


def make_batch(size: int) -> dict[str, torch.Tensor]:
    """Return a batch of 160x160 slices."""
    torch.manual_seed(0)
    return {"image": torch.rand(size, 3, 160, 160), "label": (torch.rand(size, 3, 160, 160) > 0.5).float()}


@app.command()
def train_step(rounds: Rounds = 7, batch_size: int = 8, json_file: JsonFile = None) -> None:
    """One SegAN iteration at the paper's size (base 64, 160x160, K = 3, three critics), literal and ours."""
    batch = make_batch(batch_size)
    trainer, float32 = our_step(batch, amp=False)
    _, bfloat16 = our_step(batch, amp=True)
    with FlopCounterMode(display=False) as flops:
        trainer._iteration(trainer, batch)
    gflop = flops.get_total_flops() / 1e9
    seconds = by_turns({"literal": literal_step(batch), "float32": float32, "bfloat16": bfloat16}, rounds)
    peaks = {"float32": convolution_peak(torch.float32), "bfloat16": convolution_peak(torch.bfloat16)}
    peaks["literal"] = peaks["float32"]
    rows = [
        {
            "side": name,
            "seconds": s,
            "ratio": seconds["literal"] / s,
            "GFLOP": gflop if name != "literal" else float("nan"),
            "GFLOP/s": gflop / s,
            "peak GFLOP/s": peaks[name],
            "fraction of peak": gflop / s / peaks[name],
        }
        for name, s in seconds.items()
    ]
    title = f"train-step: batch {batch_size}, base 64, 160x160, K = 3; unavoidable arithmetic of an iteration"
    report(title, rows, json_file)


def normalization_players(base_channels: int) -> tuple[NormalizerSegmentor, DomainDiscriminator]:
    """Return the bundle's networks: 3-D U-Nets, three tissues, two domains."""
    torch.manual_seed(0)
    channels = [base_channels * 2**level for level in range(4)]
    segmentor = UNet(3, 1, 4, channels=channels, strides=(2, 2, 2), norm="batch")
    normalizer = UNet(3, 1, 2, channels=channels, strides=(1, 2, 2), norm="batch")
    return NormalizerSegmentor(segmentor, normalizer, gain_and_offset=True), DomainDiscriminator(2)


def literal_normalization_step(batch: dict[str, torch.Tensor], base_channels: int) -> Callable[[], None]:
    """One iteration as eq. 1 is written: the whole formula in both steps, every network where it is named."""
    network, discriminator = normalization_players(base_channels)
    dice, domains = WeightedDiceLoss(), DomainAdversarialLoss()
    optimizers = [torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9) for net in (network, discriminator)]

    def run() -> None:
        image, label, domain = batch["image"], batch["label"], batch["domain"]
        for sign, optimizer in zip((1, -1), optimizers, strict=True):
            network.zero_grad()
            discriminator.zero_grad()
            segmentation = dice(network.segmentor(network.normalize(image)), label)
            game = domains(discriminator(image), discriminator(network.normalize(image)), domain)
            (sign * (segmentation - game)).backward()
            optimizer.step()

    return run


def our_normalization_step(batch: dict[str, torch.Tensor], base_channels: int, amp: bool) -> Callable[[], None]:
    """One iteration of the trainer, after the warm-up."""
    network, discriminator = normalization_players(base_channels)
    trainer = AdversarialNormalizationTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=torch.optim.SGD(network.parameter_groups(1e-5), lr=1e-4, momentum=0.9),
        discriminator=discriminator,
        discriminator_optimizer=torch.optim.SGD(discriminator.parameters(), lr=1e-4, momentum=0.9),
        loss_function=WeightedDiceLoss(),
        domain_loss=DomainAdversarialLoss(),
        domains=["a", "b"],
        warm_up_epochs=0,
        amp=amp,
    )
    trainer.state.epoch = 1
    return lambda: trainer._iteration(trainer, batch)


@app.command()
def normalization_step(
    rounds: Rounds = 7, batch_size: int = 16, base_channels: int = 16, json_file: JsonFile = None
) -> None:
    """One iteration of adversarial normalization on 32^3 patches, literal and ours."""
    torch.manual_seed(0)
    size = (batch_size, 1, 32, 32, 32)
    batch = {"image": torch.rand(size), "label": torch.randint(0, 4, size), "domain": torch.arange(batch_size) % 2}
    sides = {
        "literal": literal_normalization_step(batch, base_channels),
        "float32": our_normalization_step(batch, base_channels, amp=False),
        "bfloat16": our_normalization_step(batch, base_channels, amp=True),
    }
    seconds = by_turns(sides, rounds)
    rows = [{"side": name, "seconds": s, "ratio": seconds["literal"] / s} for name, s in seconds.items()]
    report(f"normalization-step: batch {batch_size} of 32^3, base {base_channels}, K = 2", rows, json_file)


def iteration_of(variant: str, classes: int, light: bool, size: int, batch_size: int) -> tuple[Callable[[], Any], int]:
    """One iteration of a variant of SegAN for K classes, or of the U-Net, at base 32; and the number of parameters."""
    torch.manual_seed(0)
    label = (torch.rand(batch_size, classes, size, size) > 0.5).float()
    batch = {"image": torch.rand(batch_size, 3, size, size), "label": label}
    segmentor = (SegANSegmentors if variant == "S1-1C" else SegANSegmentor)(3, classes, base_channels=32)
    critic = SegANCritics(3, classes, 16 if light else 32, norm=not light, joint=variant == "S3-1C")
    layers = {"S3-3C-s0": [0], "S3-3C-s3": [3]}.get(variant)
    unet = variant == "U-Net"
    trainer = SegANTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        network=segmentor,
        optimizer=torch.optim.Adam(segmentor.parameters()),
        critic=critic,
        critic_optimizer=torch.optim.Adam(critic.parameters()),
        loss_function=MultiScaleL1Loss(layers),
        adversarial_weight=0.0 if unet else 1.0,
        supervised_loss=DiceLoss(sigmoid=True, squared_pred=True, batch=True),
        supervised_weight=1.0 if unet or light else 0.0,
    )

    trainer.state.epoch = 1
    networks = [segmentor] if unet else [segmentor, critic]
    return lambda: trainer._iteration(trainer, batch), sum(
        p.numel() for network in networks for p in network.parameters()
    )


@app.command()
def classes(rounds: Rounds = 5, size: int = 96, batch_size: int = 8, json_file: JsonFile = None) -> None:
    """What K = 1, 2, 3, 8 classes cost in each variant, with the paper's critics and with the bundles' light ones."""
    variants = ["S1-1C", "S3-1C", "S3-3C", "S3-3C-s0", "S3-3C-s3", "U-Net"]
    sides, parameters = {}, {}
    for name in variants:
        for light in (False, True) if name != "U-Net" else (True,):
            for k in (1, 2, 3, 8):
                side = name, "bundles'" if light else "paper's", k
                sides[side], parameters[side] = iteration_of(name, k, light, size, batch_size)
    seconds = by_turns(sides, rounds)
    rows: list[dict[str, Any]] = []
    for name, critics, k in sides:
        if k == 1:
            rows.append({"side": name, "critics": critics if name != "U-Net" else "none"})
        rows[-1][f"s, K={k}"] = seconds[name, critics, k]
        rows[-1][f"M, K={k}"] = parameters[name, critics, k] / 1e6
    report(f"classes: s an iteration and M parameters; base 32, batch {batch_size}, {size}x{size}", rows, json_file)


def trained_on_phantom(iterations: int) -> tuple[SegANSegmentor, torch.Tensor]:
    """Return a base 64 segmentor that has seen a simulated case, and the case (1, 3, 240, 240, 155)."""
    phantom = make_phantom(seed=1, spacing_mm=1.0)
    image = torch.stack([torch.as_tensor(phantom.images[name]).float() for name in ("t1c", "t2", "flair")])
    image = scale_foreground(image)
    label = torch.as_tensor(phantom.label)
    tumour = torch.nonzero((label > 0).flatten(0, 1).any(0)).flatten()
    segmentor = players()[0].to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(segmentor.parameters(), lr=1e-3)
    loss = DiceLoss(sigmoid=True, squared_pred=True, batch=True)
    for _ in range(iterations):
        index = tumour[torch.randint(len(tumour), (4,))]
        x = image[..., index].movedim(-1, 0)[:, :, 20:-20, 20:-20].contiguous(memory_format=torch.channels_last)
        y = label[..., index].movedim(-1, 0)[:, None, 20:-20, 20:-20]
        target = torch.cat([y > 0, (y > 0) & (y != 2), y == y.max()], dim=1).float()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = segmentor(x)
        loss(logits.float(), target).backward()
        optimizer.step()
    return segmentor.eval(), image[None]


@app.command()
def inference(rounds: Rounds = 3, training_iterations: int = 60, json_file: JsonFile = None) -> None:
    """A 240x240x155x3 volume, base 64: MONAI's SliceInferer (160x160 windows, overlap 0.25) and ours."""
    segmentor, volume = trained_on_phantom(training_iterations)
    plain = players()[0].eval()
    plain.load_state_dict(segmentor.state_dict())
    plain = plain.to(memory_format=torch.contiguous_format)
    theirs = SliceInferer(roi_size=(160, 160), sw_batch_size=16, spatial_dim=2, overlap=0.25)
    results: dict[str, torch.Tensor] = {}
    peak: dict[str, float] = {}

    def side(name: str, inferer: Callable[..., torch.Tensor], network: torch.nn.Module) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                results[name] = inferer(volume, network)
            peak.setdefault(name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)

        return run

    sides = {
        "float32": side("float32", VolumeSliceInferer(), segmentor),
        "bfloat16": side("bfloat16", VolumeSliceInferer(amp=True), segmentor),
        "float32, empty voxels too": side("float32, empty voxels too", VolumeSliceInferer(skip_empty=False), segmentor),
        "MONAI SliceInferer": side("MONAI SliceInferer", theirs, plain),
    }
    seconds = by_turns(sides, rounds)
    brain = (volume[0] != 0).any(0)
    reference = results["MONAI SliceInferer"][0] > 0
    rows = [
        {
            "side": name,
            "seconds": s,
            "ratio": seconds["MONAI SliceInferer"] / s,
            "same label, brain voxels": f"{((results[name][0] > 0) == reference).all(0)[brain].double().mean():.4%}",
            "peak memory GiB": peak[name],
        }
        for name, s in seconds.items()
    ]
    share = f"tumour voxels predicted {reference.any(0).sum():,}, {brain.sum():,} brain voxels"
    report(f"inference: 240x240x155x3, base 64, weights trained on a simulated case; {share}", rows, json_file)


@app.command()
def rois(
    rounds: Rounds = 3,
    size: int = 512,
    slices: int = 200,
    with_organ: float = 0.4,
    base_channels: int = 64,
    json_file: JsonFile = None,
) -> None:
    """Inference of a CT volume by L-SNet and by the coarse-to-fine baseline on the same backbones (ResNet-18 and 34).

    The first stages are untrained, so what they find is replaced by the same RoIs for both: one in each slice that
    has the organ.
    """
    volume = torch.rand(slices, 1, size, size)
    organ = range(round(with_organ * slices))
    segmentor = ResNetSegmentor(1, 1, 34, base_channels)
    first_stages = {
        "coarse-to-fine U-Net": CoarseLocalizer(ResNetSegmentor(1, 1, 18, base_channels)),
        "L-SNet (U-Net)": LocalizationNet(1, 1, 18, base_channels),
    }
    segmented = dict.fromkeys(first_stages, 0)

    def side(name: str, localizer: torch.nn.Module) -> Callable[[], None]:
        network = LSNet(localizer, segmentor, 1, hard_crop=name.startswith("coarse")).eval()

        @torch.inference_mode()
        def run() -> None:
            segmented[name] = 0
            for start in range(0, slices, 16):
                chunk = volume[start : start + 16]
                network.locate(chunk)
                index = torch.tensor([i for i in range(len(chunk)) if start + i in organ], dtype=torch.long)
                centre, half = torch.full((len(index), 2), size / 2), torch.full((len(index), 4), size / 12)
                network(chunk, RoIs(index, torch.zeros_like(index), centre, half, torch.ones(len(index))))
                segmented[name] += len(index)

        return run

    seconds = by_turns({name: side(name, localizer) for name, localizer in first_stages.items()}, rounds)
    rows = [
        {
            "side": name,
            "seconds": seconds[name],
            "ratio": seconds["coarse-to-fine U-Net"] / seconds[name],
            "first stage M": sum(p.numel() for p in first_stages[name].parameters()) / 1e6,
            "RoIs": segmented[name],
        }
        for name in first_stages
    ]
    report(f"Inference of {size}x{size}x{slices}, base {base_channels}, organ in {len(organ)} slices", rows, json_file)


@app.command()
def data(volumes: int = 4, workers: int = 0, batch_size: int = 8, json_file: JsonFile = None) -> None:
    """Slices per second of the training loader against what a training step consumes."""
    phantom = make_phantom(seed=1, spacing_mm=1.0)
    image = torch.stack([torch.as_tensor(phantom.images[name]).float() for name in ("t1c", "t2", "flair")])
    label = torch.stack([torch.as_tensor(phantom.label > 0)] * 3).to(torch.uint8)
    cases = [{"image": scale_foreground(image), "label": label} for _ in range(volumes)]
    keys = ["image", "label"]
    transforms = [SlicesWithContentd(keys), RandSlicesd(keys, "label", num_samples=8, roi_size=(160, 160))]
    dataset = CacheDataset(cases, transforms, progress=False)
    loader = DataLoader(dataset, batch_size=max(1, batch_size // 8), shuffle=True, num_workers=workers)

    def epochs() -> int:
        return sum(len(batch["image"]) for _ in range(10) for batch in loader)

    step_seconds = by_turns({"step": our_step(make_batch(batch_size), amp=True)[1]}, 3)["step"]
    start = time.perf_counter()
    slices = epochs()
    rate, need = slices / (time.perf_counter() - start), batch_size / step_seconds
    rows = [
        {"side": f"loader, {workers} workers", "slices/s": rate, "ratio": rate / need},
        {"side": "training step, bfloat16", "slices/s": need, "ratio": 1.0},
    ]
    report(f"data: 160x160 slices of cached 240x240x155x3 volumes, 8 a volume, batch {batch_size}", rows, json_file)


@app.command()
def exports(
    rounds: Rounds = 5,
    bundle: Annotated[
        list[str] | None, typer.Option(help="folder of bundles/; may be given again; by default all")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Bundles' networks as configured, onnxruntime against PyTorch in float32 on equal threads.

    Weights are random; the threshold of L-SNet's heatmap is so low that something is found. Its exported network looks
    at all RoIs that there may be, PyTorch at those that it finds.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    folders = [Path("bundles") / name for name in bundle or sorted(p.name for p in Path("bundles").iterdir())]
    rows = []
    for folder in folders:
        with tempfile.TemporaryDirectory() as place:
            made = ExportedBundle(folder, Path(place) / "model.pt", overrides={"heatmap_threshold": 0.04})
            torch.manual_seed(0)
            torch.save(made.parser.get_parsed_content("network_def").state_dict(), made.weights)
            file = made.export("onnx", Path(place) / "model.onnx")
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        image = made.example()[: 1 if made.fixed_size else 2]
        with torch.inference_mode():
            sides = {
                "torch": lambda network=made.network, image=image: network(image),
                "onnxruntime": lambda session=session, image=image: session.run(None, {"image": image.numpy()})[0],
            }
            difference = float((sides["torch"]() - torch.from_numpy(sides["onnxruntime"]())).abs().max())
            seconds = by_turns(sides, rounds)
        row = {"bundle": folder.name, "input": "x".join(map(str, image.shape))}
        row |= {f"{name} ms": round(1000 * value, 1) for name, value in seconds.items()}
        row |= {"ratio": round(seconds["torch"] / seconds["onnxruntime"], 2), "logits differ by": f"{difference:.1g}"}
        rows.append(row)
    report("onnxruntime against PyTorch", rows, json_file)


if __name__ == "__main__":
    app()
