"""``tinker-local doctor``: facts about the installation, and diagnoses of what is wrong with it.

diagnosis.py  ``Diagnosis``: a problem and its remedy
software.py   versions, llama.cpp's build, our kernels, settings in the environment
machine.py    the CPU, its cores, memory and GPUs
store.py      the models directory, and a model that is tried

Each of the last three offers facts (for ``DoctorReport.sections``) and ``diagnoses``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tinker_local.doctor import machine, software, store
from tinker_local.doctor.diagnosis import Diagnosis
from tinker_local.llama.build import build, found_devices
from tinker_local.store.model_store import ModelStore


@dataclass(frozen=True)
class DoctorReport:
    """Facts and diagnoses.

    Attributes:
        sections: facts by subject, in values that JSON has.
        diagnoses: what is wrong, and what could be better.
    """

    sections: dict[str, dict[str, Any]]
    diagnoses: list[Diagnosis]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong; something may still be better."""
        return not any(diagnosis.is_wrong for diagnosis in self.diagnoses)


def examine(models: ModelStore, model: str | None = None) -> DoctorReport:
    """Examine the installation, the machine and the models.

    Args:
        models: the store.
        model: name or path of a model to try in a separate process; None for the default model.
    """
    cpu, made = machine.detect(), build()
    devices = found_devices()
    sections = {
        "versions": software.versions(made),
        "machine": cpu.facts,
        "llama.cpp": software.llama_facts(made),
        "devices": {device.name: machine.device_facts(device) for device in devices},
        "kernels": software.kernel_facts(),
        "settings": software.settings(),
    }
    contents = store.StoreContents.of(models)
    trial = store.TriedModel.of(models, model)
    sections |= {"store": contents.facts, "model tried": trial.facts}

    def diagnoses() -> Iterator[Diagnosis]:
        yield from software.diagnoses()
        yield from machine.diagnoses(cpu, made, devices)
        yield from contents.diagnoses()
        yield from trial.diagnoses(contents)

    return DoctorReport(sections, list(diagnoses()))


__all__ = ["Diagnosis", "DoctorReport", "examine"]
