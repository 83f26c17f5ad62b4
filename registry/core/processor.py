"""What the engine needs of an x86 processor: without it, it dies of an illegal instruction.

Source: spec inference-and-gguf 1.1; proc(5).
"""

_NEEDED = ("avx2", "bmi2", "f16c", "fma")


def missing_features(cpuinfo: str) -> list[str]:
    """What the processor lacks, by the text of `/proc/cpuinfo`; nothing if that says nothing."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            has = value.split()
            return [flag for flag in _NEEDED if flag not in has]
    return []
