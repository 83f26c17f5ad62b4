"""What runners say on standard error, and what becomes of it."""

import pytest

from registry.workers.processes import Log

MIB = 1 << 20


def log(*lines: str) -> Log:
    made = Log()
    text = "".join(f"{line}\n" for line in lines).encode()
    for at in range(0, len(text), 7):
        made.take(text[at : at + 7])
    return made


def test_buffers_are_summed_up_and_those_of_a_gpu_told_apart() -> None:
    found = log(
        "0.00.016 I load_tensors:   CPU_Mapped model buffer size =   100.00 MiB",
        "0.00.016 I load_tensors:        CUDA0 model buffer size =   400.50 MiB",
        "0.00.017 I llama_kv_cache:      CUDA0 KV buffer size =    10.00 MiB",
        "0.00.017 I sched_reserve:   CUDA_Host compute buffer size =     2.00 MiB",
        "0.00.017 I llama_context:         CPU  output buffer size =     0.50 MiB",
        "0.00.017 I something else of size = 7.00 MiB",
    )
    assert found.size == 513 * MIB
    assert found.size_vram == int(410.5 * MIB)


@pytest.mark.parametrize(
    ("lines", "reason", "no_memory"),
    [
        ([], "", False),
        (["0.01 I all is well"], "", False),
        (
            [
                "0.00.003.712 E llama_model_load: error loading model: tensor 'x' is cut off",
                "0.00.003.747 E llama_model_load_from_file_impl: failed to load model",
                "0.00.003.773 E srv    load_model: failed to load model, '/data/blobs/sha256-1'",
            ],
            "tensor 'x' is cut off",
            False,
        ),
        (["E srv    load_model: failed to load, '/data/x/y'"], "failed to load, the file", False),
        (
            [
                "0.1 E ggml_backend_cpu: failed to allocate buffer of size 99",
                "0.2 E llama_model_load: error loading model: unable to allocate CPU buffer",
            ],
            "failed to allocate buffer of size 99",
            True,
        ),
        (["/src/ggml.c:12: GGML_ASSERT(x > 0) failed"], "GGML_ASSERT(x > 0) failed", False),
    ],
)
def test_the_line_that_tells_is_found(lines: list[str], reason: str, no_memory: bool) -> None:
    found = log(*lines)
    assert reason in found.reason
    assert "/data" not in found.reason
    assert "/src" not in found.reason
    assert found.no_memory is no_memory


def test_no_more_than_the_last_lines_are_kept_also_of_requests() -> None:
    found = log(*[f"line {number}" for number in range(1000)])
    assert found.lines[0] == "line 800"
    found.take(b"0.1 I sched_reserve: CPU compute buffer size = 7.00 MiB\n")
    found.loaded = True
    for number in range(10_000):
        found.take(b"request %d\n" % number)
    assert len(found.lines) == 200
    assert found.lines[-1] == "request 9999"
    found.take(b"0.1 E it is broken")
    assert found.reason == "it is broken"


def test_buffers_told_after_it_said_that_it_is_ready_count() -> None:
    found = log("0.1 I load_tensors: CPU model buffer size = 1.00 MiB")
    found.loaded = True
    found.take(b"0.1 I sched_reserve: CPU compute buffer size = 2.00 MiB\n")
    assert found.size == 3 * MIB
