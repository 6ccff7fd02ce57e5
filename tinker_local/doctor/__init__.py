"""What this installation is made of, and what is wrong with it.

finding.py   something that is wrong, or could be better, and what to do
software.py  versions, llama.cpp's build, our kernels, settings in the environment
machine.py   the CPU, its cores, memory and GPUs
store.py     the models directory
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tinker_local.doctor import machine, software, store
from tinker_local.doctor.finding import Finding
from tinker_local.llama.build import build, found_devices
from tinker_local.store.model_store import ModelStore


@dataclass(frozen=True)
class Report:
    """All that was found.

    Attributes:
        sections: facts by subject, in values that JSON has.
        findings: what is wrong, and what could be better.
    """

    sections: dict[str, dict[str, Any]]
    findings: list[Finding]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.is_wrong for finding in self.findings)


def examine(models: ModelStore, model: str | None = None) -> Report:
    """Look at this installation, this machine and the models.

    Args:
        models: the store.
        model: the name or path of a model to try in a process of its own; None for the default one, if
            it is there.
    """
    cpu, made = machine.look(), build()
    devices = found_devices()
    sections = {
        "versions": software.versions(made),
        "machine": cpu.facts,
        "llama.cpp": software.llama_facts(made),
        "devices": {device.name: machine.device_facts(device) for device in devices},
        "kernels": software.kernel_facts(),
        "settings": software.settings(),
    }
    holdings = store.Holdings.of(models)
    trial = store.Trial.of(models, model)
    sections |= {"store": holdings.facts, "model tried": trial.facts}

    def findings() -> Iterator[Finding]:
        yield from software.findings()
        yield from machine.findings(cpu, made, devices)
        yield from holdings.findings()
        yield from trial.findings(holdings)

    return Report(sections, list(findings()))


__all__ = ["Finding", "Report", "examine"]
