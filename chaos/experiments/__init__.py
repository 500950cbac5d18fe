"""The experiments, in the order in which they are done."""

from chaos.experiment import Experiment
from chaos.experiments import (
    callbacks,
    damaged_files,
    doubled_messages,
    failed_over_redis,
    full_disk,
    full_redis,
    killed_processes,
    killed_redis,
    mutated_input,
    paused_redis,
    rolling_restart,
    slow_clients,
)

ALL: tuple[Experiment, ...] = (
    killed_processes.EXPERIMENT,
    killed_redis.KEPT,
    killed_redis.EMPTIED,
    paused_redis.EXPERIMENT,
    full_redis.EXPERIMENT,
    rolling_restart.EXPERIMENT,
    slow_clients.EXPERIMENT,
    callbacks.EXPERIMENT,
    damaged_files.EXPERIMENT,
    full_disk.EXPERIMENT,
    mutated_input.EXPERIMENT,
    doubled_messages.EXPERIMENT,
    failed_over_redis.HANDED_OVER,
    failed_over_redis.TAKEN_OVER,
)
