# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What each of two processes does for `test_distributed`; results go to the folder that is the first argument."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.losses import DiceLoss, FocalLoss
from torch import nn

from segan_monai import init_process_group_for, shard
from segan_monai.engines import (
    AdversarialNormalizationTrainer,
    DomainAdaptationTrainer,
    LSNetTrainer,
    SegANTrainer,
    SegmentationTrainer,
    SemiSupervisedLSNetTrainer,
    SemiSupervisedTrainer,
)
from segan_monai.engines.gradient_exchange import GradientExchange
from segan_monai.errors import DataError
from segan_monai.handlers import EpochLog, EvaluationReport, RunCheckpoint
from segan_monai.losses import DomainAdversarialLoss, LocalizationLoss, MultiScaleL1Loss, WeightedDiceLoss
from segan_monai.networks import (
    LocalizationNet,
    LSNet,
    NormalizerSegmentor,
    ResNetSegmentor,
    SegANCritics,
    SegANSegmentor,
)
from tests.handlers.evaluations import CASES, REGIONS, evaluator

NAMES = (
    "segan",
    "segmentation",
    "normalization",
    "lsnet",
    "semi_supervised",
    "domain_adaptation",
    "semi_supervised_lsnet",
)


def without_batch_norm(network):
    """The network with batch norm layers that do nothing."""
    for name, child in network.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(network, name, nn.Identity())
        else:
            without_batch_norm(child)
    return network


def make_batches(name):
    """Three batches of four; samples differ, also between halves of a batch."""
    generator = torch.Generator().manual_seed(5)
    shape = (12, 1, 8, 8, 8) if name in ("normalization", "domain_adaptation") else (12, 1, 64, 64)
    label = torch.zeros(shape)
    label[..., 2:6] = 1
    if "lsnet" in name:  # as many positions for the box in each image
        label[...] = 0
        label[:, :, 16:32, 20:44] = 1
    data = {"image": label + torch.rand(shape, generator=generator), "label": label, "domain": torch.arange(12) % 2}
    return [{key: value[start : start + 4] for key, value in data.items()} for start in (0, 4, 8)]


def halves_of(name, rank):
    """The batches of one process."""
    return [{key: value[2 * rank : 2 * rank + 2] for key, value in batch.items()} for batch in make_batches(name)]


def make_trainer(name, batches, seed=0, convert=without_batch_norm, **more):
    """A trainer whose losses are means over samples, on networks with the weights of a seed."""
    torch.manual_seed(seed)
    common = {"device": "cpu", "train_data_loader": batches, "max_epochs": 1, **more}
    unlabeled = [{"image": batch["image"].flip(-1), "domain": 1 - batch["domain"]} for batch in batches]
    if name in ("normalization", "domain_adaptation"):
        unets = nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(1, 1, 3, padding=1)
        network = NormalizerSegmentor(*unets, gain_and_offset=False)
        judge = nn.Sequential(nn.Conv3d(1, 3, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        trainer = AdversarialNormalizationTrainer
        if name == "domain_adaptation":
            critic = nn.Sequential(nn.Conv3d(2, 3, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
            critic.append(nn.Linear(3, 2))
            common |= {"identity_weight": 0.5, "output_weight": 0.5, "output_critic": critic}
            common |= {"output_critic_optimizer": torch.optim.SGD(critic.parameters(), lr=0.1)}
            common |= {"unlabeled_data_loader": unlabeled}
            trainer = DomainAdaptationTrainer
        return trainer(
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            loss_function=WeightedDiceLoss(batch=False),
            discriminator=judge,
            discriminator_optimizer=torch.optim.SGD(judge.parameters(), lr=0.1),
            domain_loss=DomainAdversarialLoss(),
            domains=["a", "b"],
            **{"warm_up_epochs": 0, **common},
        )
    if "lsnet" in name:
        trainer = LSNetTrainer
        if name == "semi_supervised_lsnet":
            common |= {"consistency_weight": 0.5, "ema_decay": 0.9, "unlabeled_data_loader": unlabeled}
            trainer = SemiSupervisedLSNetTrainer
        localizer = LocalizationNet(1, 1, base_channels=4, candidates=1)
        network = convert(LSNet(localizer, ResNetSegmentor(1, 1, 18, 4), 1, margin=2))
        return trainer(
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.01),
            loss_function=FocalLoss(),
            localization_loss=LocalizationLoss(FocalLoss(), sigma=4.0),
            **common,
        )
    segmentor = convert(SegANSegmentor(1, 1, base_channels=4))
    common |= {"network": segmentor, "optimizer": torch.optim.SGD(segmentor.parameters(), lr=0.1)}
    if name == "segmentation":
        return SegmentationTrainer(loss_function=nn.BCEWithLogitsLoss(), **common)
    critic = convert(SegANCritics(1, 1, base_channels=4, patch_score=name == "semi_supervised"))
    common |= {
        "critic": critic,
        "critic_optimizer": torch.optim.SGD(critic.parameters(), lr=0.1),
        "loss_function": MultiScaleL1Loss(),
        "supervised_loss": DiceLoss(sigmoid=True, squared_pred=True),
        "supervised_weight": 1.0,
        "clamp": 0.05,
    }
    if name == "segan":
        return SegANTrainer(**common)
    # terms that are means over samples; the unpaired one is not
    terms = {"consistency_weight": 0.5, "patch_weight": 0.5, "patch_loss": "least_squares", "ema_decay": 0.9}
    return SemiSupervisedTrainer(unlabeled_data_loader=unlabeled, **{"balance_gradients": False, **terms, **common})


def state_of(trainer):
    """Weights and buffers of all players."""
    players = {"network": trainer.network, **trainer.adversaries}
    if trainer.averaged is not None:
        players["averaged"] = trainer.averaged
    return {
        f"{player}.{name}": tensor.clone()
        for player, net in players.items()
        for name, tensor in net.state_dict().items()
    }


def train_on_halves(folder, rank):
    """Each trainer, each process with half of every batch; only the first one has the right weights at the start."""
    for name in NAMES:
        trainer = make_trainer(name, halves_of(name, rank), seed=rank, train_handlers=[EpochLog(str(folder / name))])
        trainer.run()
        torch.save([state_of(trainer), trainer.state.metrics], folder / f"{name}_{rank}.pt")


def train_with_batch_norm(folder, rank):
    """Running averages before and after the end of an epoch."""
    trainer = make_trainer("segan", halves_of("segan", rank), convert=lambda network: network, ema_decay=0.9)
    states = []
    for event in (IterationEvents.MODEL_COMPLETED, Events.EPOCH_COMPLETED):
        trainer.add_event_handler(event, lambda: states.append(state_of(trainer)))
    trainer.run()
    torch.save(states[-2:], folder / f"batch_norm_{rank}.pt")


def train_with_unpaired_means(folder, rank):
    """Running means and balanced weights, which each process measures on its own half."""
    settings = {"unpaired_weight": 0.5, "balance_gradients": True, "ema_decay": 0.9, "mask_noise": 0.1}
    trainer = make_trainer("semi_supervised", halves_of("segan", rank), **settings)
    trainer.run()
    torch.save([state_of(trainer), trainer.unpaired.labelled_means], folder / f"unpaired_{rank}.pt")


def train_without_uniform_samples(folder, rank):
    """Terms of the critic on unlabelled images, for which the second process has no labelled sample."""
    batches = [{**batch, "uniform": torch.full((2,), rank == 0)} for batch in halves_of("semi_supervised", rank)]
    trainer = make_trainer("semi_supervised", batches)
    trainer.run()
    torch.save([state_of(trainer), [*trainer.state.output["terms"]]], folder / f"lacking_{rank}.pt")


@contextmanager
def counted_messages():
    """Sizes of the messages that are sent in the block, and the number of passes backward that had ended before."""
    counted = []
    ended = [0]
    all_reduce, backward = torch.distributed.all_reduce, torch.Tensor.backward

    def count(tensor, *args, **kwargs):
        counted.append((tensor.numel(), ended[0]))
        return all_reduce(tensor, *args, **kwargs)

    def end(*args, **kwargs):
        backward(*args, **kwargs)
        ended[0] += 1

    torch.distributed.all_reduce, torch.Tensor.backward = count, end
    try:
        yield counted
    finally:
        torch.distributed.all_reduce, torch.Tensor.backward = all_reduce, backward


def send_in_parts(folder, rank):
    """SegAN with one message per phase and with many, and what was sent when."""
    found = {}
    for name, size, steps in (("whole", 2**30, 1), ("parts", 1000, 1), ("accumulated", 1000, 2)):
        trainer = make_trainer("segan", halves_of("segan", rank), accumulation_steps=steps)
        optimizers = {"critic": trainer.critic_optimizer, "segmentor": trainer.optimizer}
        trainer.exchanges = {phase: GradientExchange(optimizer, size) for phase, optimizer in optimizers.items()}
        with counted_messages() as messages:
            trainer.run()
        found[name] = {"state": state_of(trainer), "messages": messages}
    torch.save(found, folder / f"sent_{rank}.pt")


STOPPED = {
    "segan": {"convert": lambda network: network, "ema_decay": 0.9},
    "normalization": {"warm_up_epochs": 2, "warm_up_error": 1e-9},
}
"""Trainings in which the processes have running statistics or errors of a warm-up of their own within an epoch."""


def train_with_stop(name, where, rank, part):
    """A training that is stopped in its second iteration, resumes, or is whole: how it ended."""
    trainer = make_trainer(name, halves_of(name, rank), max_epochs=2, **STOPPED[name])
    if part != "whole":
        objects = {"network": trainer.network, "optimizer": trainer.optimizer, **trainer.adversaries}
        RunCheckpoint(where, where, trainer.network, objects, resume=part == "resumed").attach(trainer)
    if rank == 1 and part == "stopped":
        trainer.add_event_handler(Events.ITERATION_STARTED(once=2), lambda: os.kill(os.getpid(), signal.SIGTERM))
    errors = []
    if name == "normalization":
        third = Events.ITERATION_STARTED(once=3)
        trainer.add_event_handler(third, lambda: errors.extend(float(error) for error in trainer.warm_up.errors))
    status = 0
    try:
        trainer.run()
    except SystemExit as stop:
        status = stop.code
    torch.distributed.barrier()
    return {"iteration": trainer.state.iteration, "status": status, "state": state_of(trainer), "errors": errors}


def be_asked_to_stop(folder, rank):
    """SIGTERM reaches the second process alone, in the second iteration; later, a run resumes."""
    for name in STOPPED:
        where = folder / f"stopped_{name}"
        where.mkdir(exist_ok=True)
        found = {part: train_with_stop(name, str(where), rank, part) for part in ("stopped", "resumed", "whole")}
        torch.save(found, folder / f"asked_{name}_{rank}.pt")


def read_later(folder, rank):
    """Losses read later, as on GPUs: of good batches, and of one that is bad in the second process alone."""
    states = {}
    for case, taken in (("good", 3), ("first", 1), ("bad", 3)):
        halves = halves_of("segan", rank)
        if case == "bad" and rank == 1:
            halves[1]["image"][0, 0, 3, 3] = torch.nan
        trainer = make_trainer("segan", halves)
        trainer.look_every, trainer.state.epoch = 100, 1
        for trainer.state.iteration, batch in enumerate(halves[:taken], start=1):
            trainer._iteration(trainer, batch)
        states[case] = state_of(trainer)
    torch.save(states, folder / f"later_{rank}.pt")


def resume(folder, rank):
    """What is drawn in the second epoch, with and without a stop before it."""
    drawn = {}
    for name, parts in (("whole", (2,)), ("parts", (1, 2))):
        for epochs in parts:
            trainer = make_trainer("segmentation", make_batches("segmentation"), max_epochs=epochs)
            objects = {"network": trainer.network}
            where = str(folder / name)
            RunCheckpoint(where, where, trainer.network, objects, resume=epochs > parts[0]).attach(trainer)
            trainer.add_event_handler(
                Events.EPOCH_STARTED, lambda engine, name=name: drawn.update({name: torch.rand(3)})
            )
            Path(where).mkdir(exist_ok=True)
            torch.manual_seed(100 + rank + (epochs > parts[0]))
            torch.distributed.barrier()
            trainer.run()
    torch.save(drawn, folder / f"drawn_{rank}.pt")


def evaluate(folder, rank):
    """Three cases, two of them in the first process; then one that is in both."""
    engine = evaluator(shard(CASES))
    EvaluationReport(folder / "evaluation", REGIONS).attach(engine)
    engine.run()
    engine = evaluator(CASES[:1])
    EvaluationReport(folder / "twice", REGIONS).attach(engine)
    try:
        engine.run()
    except DataError as error:
        (folder / f"twice_{rank}").write_text(str(error), encoding="utf-8")
    try:
        shard(CASES[:1])
    except DataError as error:
        (folder / f"few_{rank}").write_text(str(error), encoding="utf-8")
    shares = [shard(range(5)), shard(range(5), repeat=True)]
    torch.save(shares, folder / f"shares_{rank}.pt")


def train_without_end(folder, rank, end):
    """Train until the second process ends."""
    trainer = make_trainer("segmentation", make_batches("segmentation"), max_epochs=10**9)
    (folder / f"pid_{rank}").write_text(str(os.getpid()), encoding="utf-8")
    if rank == 1:
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), end)
    trainer.run()


def be_killed(folder, rank):
    """The second process is killed."""
    train_without_end(folder, rank, lambda: os.kill(os.getpid(), signal.SIGKILL))


def leave(folder, rank):
    """The second process ends in good order, so that torchrun sees nothing wrong."""
    train_without_end(folder, rank, lambda: os._exit(0))


if __name__ == "__main__":
    init_process_group_for("cpu")
    for job in sys.argv[2:]:
        globals()[job](Path(sys.argv[1]), torch.distributed.get_rank())
    torch.distributed.destroy_process_group()
