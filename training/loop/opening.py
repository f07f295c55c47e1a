"""What a session opens before it trains: the task on its device, the corpus, and what checkpoints tell of both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from training.data.audio_identity import audio_identity
from training.data.batches import TrainingBatches, ValidationBatches
from training.data.database import corpus_place, demo_to_make
from training.planning.agreement import refuse_differences
from training.planning.announcements import data_text
from training.planning.plan import Plan
from training.runs.survey import place_of
from training.runs.trained_names import TrainedNames
from training.settings.options import Options
from training.state.snapshot import RunFacts
from training.tasks.registry import make_task
from training.tasks.task import Built, Task
from utils.console import say
from utils.corpora import Corpus, CorpusPart, find_corpus, limit_examples
from utils.machine import choose_device, describe_environment, make_deterministic, own_threads
from utils.ranks import Ranks


@dataclass(frozen=True)
class OpenedData:
    """The batches of a run, what tells its data from others, and the names that it trains on."""

    training: TrainingBatches
    validation: ValidationBatches
    validation_part: CorpusPart
    identity: dict[str, str]
    names: TrainedNames


def task_of(plan: Plan, ranks: Ranks) -> Task:
    """Return what the plan trains, on its device, which is told to give the same bits each time.

    All processes compute with as many threads: those of the checkpoint, or of the first.
    """
    device = choose_device(plan.options.device)
    refuse_differences(ranks, {"the type of device": device.type, "the version of torch": str(torch.__version__)})
    make_deterministic(ranks.broadcast(lambda: plan.checkpoint.num_threads if plan.checkpoint else own_threads()))
    return make_task(plan.options, device)


def facts_of(plan: Plan, task: Task, built: Built, data: OpenedData) -> RunFacts:
    """Return what every checkpoint of this session tells beside the state."""
    return RunFacts(
        options=plan.options,
        data=data.identity,
        builds=built.builds,
        environment=describe_environment(task.device),
        frozen=task.frozen(built.networks),
        reused=built.reused,
        recorded=task.recorded,
        place=place_of(plan.run.folder),
    )


def open_data(options: Options, task: Task, ranks: Ranks) -> OpenedData:
    """Open the corpus as the task hears it; raises UserError where that is impossible."""
    corpus = open_corpus(options, ranks)
    identity = corpus.identity | audio_identity((corpus.train, corpus.dev), options.seed)
    corpus = replace(corpus, train=task.heard(corpus.train), dev=task.heard(corpus.dev))
    train = corpus.train
    if options.num_examples:
        train = limit_examples(train, options.num_examples, options.seed, with_sources=options.pair_batches)
    training, validation = task.batches(corpus, train)
    names = TrainedNames.of(trial.utterance for trial in train.protocol.trials)
    say(
        data_text(
            len(train),
            len(corpus.dev),
            corpus.folder,
            corpus.layout,
            corpus.division,
            notes=(*corpus.notes, *training.notes),
        )
    )
    return OpenedData(training, validation, corpus.dev, identity, names)


def open_corpus(options: Options, ranks: Ranks) -> Corpus:
    """Find the corpus, every file of it, or make the demo corpus on its first use; the first process, then all."""
    found: list[Corpus] = []

    def find() -> None:
        if location := demo_to_make(options.database_path):
            say(f"Making the demo corpus in {location} (once, some seconds)")
        found.append(find_corpus(*corpus_place(options), needs_spoofs=options.task.needs_spoofs))

    ranks.broadcast(find)
    if not found:
        find()
    return found[0]
