"""Files of requests on a Ray cluster: the option ``--ray`` of ``sample`` and ``logprobs``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from tinker_local.batch import OutputFile, SampleTask, ScoreTask, Shard
from tinker_local.batch.progress import BatchProgress
from tinker_local.cli.batch import PANEL, report, run_settings, say_failed, say_interrupted
from tinker_local.cli.parameters import ChosenModel
from tinker_local.distributed import ClusterJob, run_job
from tinker_local.distributed.cluster import import_ray
from tinker_local.distributed.input import open_input
from tinker_local.distributed.parquet import write_parquet
from tinker_local.options import Options

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        rich_help_panel=PANEL,
        help="Answer --input on a Ray cluster: auto (the one of this machine), local (start one here), or "
        "HOST:PORT. Files may be .parquet, and --input a URI such as s3://bucket/in.jsonl. Needs the extra "
        "ray.",
    ),
]
RayCpus = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=PANEL,
        help="CPUs and threads of each of the cluster's actors. Unset: all of the smallest node.",
        show_default=False,
    ),
]
RayGpus = Annotated[
    float,
    typer.Option(min=0, metavar="N", rich_help_panel=PANEL, help="GPUs of each of the cluster's actors."),
]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, as given on the command line.

    Attributes:
        address: where it is.
        num_cpus: CPUs of an actor.
        num_gpus: GPUs of an actor.
    """

    address: str
    num_cpus: int | None
    num_gpus: float

    @classmethod
    def given(
        cls,
        address: str | None,
        num_cpus: int | None,
        num_gpus: float,
        input: str | None,
        shard: str | None,
    ) -> Cluster | None:
        """Return the cluster of ``--ray``, if it was given.

        Raises:
            BadParameter: the options contradict each other.
        """
        if address is None and (num_cpus is not None or num_gpus):
            raise typer.BadParameter("--ray-cpus and --ray-gpus need --ray")
        if address is None:
            return None
        if input is None or shard is not None:
            raise typer.BadParameter(
                "--ray needs --input, and shares the lines out itself: leave out --shard"
            )
        return cls(address, num_cpus, num_gpus)


def run_on_cluster(
    cluster: Cluster,
    model: ChosenModel,
    task: SampleTask | ScoreTask,
    input: str,
    output: str | None,
    *,
    seed: int | None = None,
    force: bool = False,
    as_json: bool = False,
) -> None:
    """Answer each line of a file on a cluster, then print a summary, as ``run_batch`` does here."""
    if output in (None, "-"):
        raise typer.BadParameter(
            "--ray needs --output FILE: the answers are kept there while others are made"
        )
    import_ray()
    target = Path(output or "").expanduser()
    is_parquet = target.suffix == ".parquet"
    lines = target.with_name(f"{target.name}.jsonl") if is_parquet else target
    source, weights, options = open_input(input), model.find(), Options.resolve(model.options)
    if lines.exists() and Path(input).expanduser().exists() and lines.samefile(Path(input).expanduser()):
        raise typer.BadParameter(f"--input and --output are both {input}")
    with ExitStack() as stack:
        settings = run_settings(weights, options, task, Shard())
        sink = OutputFile(lines, settings, seed, force=force)
        stack.callback(sink.close)
        if isinstance(task, SampleTask):
            task = replace(task, seed=sink.seed)
        progress = BatchProgress("Sampling" if isinstance(task, SampleTask) else "Scoring", source.size)
        job = ClusterJob(
            source, task, weights, model.options, cluster.address, cluster.num_cpus, cluster.num_gpus
        )
        try:
            summary = run_job(job, sink, progress)
        except KeyboardInterrupt:
            say_interrupted(sink, progress)
            raise
    if is_parquet:
        write_parquet(lines, target)
    report(summary, target if as_json else None)
    say_failed(summary.n_failed)
