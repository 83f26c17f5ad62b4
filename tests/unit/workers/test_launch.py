"""What runners are started with."""

from dataclasses import replace
from typing import Any

import pytest

from registry.ports.workers import RunnerOptions
from registry.workers.launch import (
    Files,
    Place,
    runner_environment,
    runner_settings,
    server_arguments,
)

FILES = Files("/m", ("/a", "/b"), "/p")
PLACE = Place("/s.sock", "key", 3, "q8_0", "on")


def settings(**options: Any) -> dict[str, Any]:
    return runner_settings(FILES, RunnerOptions(**options), PLACE)


def arguments(**options: Any) -> str:
    return " ".join(server_arguments(FILES, RunnerOptions(**options), PLACE))


def test_the_context_is_for_each_slot() -> None:
    found = settings(num_ctx=1000, parallel=3)
    assert (found["n_ctx"], found["n_parallel"]) == (3000, 3)
    assert "-c 3000 -np 3" in arguments(num_ctx=1000, parallel=3)


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        ({"num_ctx": 4096, "num_batch": 512}, 512),
        ({"num_ctx": 100, "num_batch": 512}, 100),
        ({"num_ctx": 100, "num_batch": 512, "parallel": 4}, 400),
        ({"num_ctx": 100, "num_batch": 0}, 1),
        ({"num_ctx": 2048, "num_batch": 512, "embedding": True}, 2048),
        ({"num_ctx": 128, "num_batch": 512, "embedding": True}, 512),
    ],
)
def test_a_step_takes_a_batch_and_for_vectors_a_whole_text(
    options: dict[str, Any], batch: int
) -> None:
    found = settings(**options)
    assert (found["n_batch"], found["n_ubatch"]) == (batch, batch)
    assert f"-b {batch} -ub {batch}" in arguments(**options)


@pytest.mark.parametrize(("num_ctx", "slots"), [(128, 8), (2048, 4), (8192, 1), (32_768, 1)])
def test_vectors_are_made_of_several_texts_at_once_as_far_as_contexts_are_short(
    num_ctx: int, slots: int
) -> None:
    found = settings(num_ctx=num_ctx, embedding=True)
    assert (found["n_parallel"], found["n_ctx"]) == (slots, slots * num_ctx)


@pytest.mark.parametrize(("size", "threads"), [(1, 1), (32 << 20, 2), (64 << 20, 3), (1 << 40, 3)])
def test_small_models_make_tokens_with_fewer_threads(size: int, threads: int) -> None:
    found = runner_settings(replace(FILES, size=size), RunnerOptions(), PLACE)
    assert (found["threads"], found["batch_threads"]) == (threads, 3)
    line = " ".join(server_arguments(replace(FILES, size=size), RunnerOptions(), PLACE))
    assert f"-t {threads} -tb 3" in line


@pytest.mark.parametrize(("wished", "threads"), [(1, 1), (2, 2), (3, 3), (7, 3), (1024, 3)])
def test_a_number_of_threads_that_was_asked_for_counts_up_to_that_of_cores(
    wished: int, threads: int
) -> None:
    small, options = replace(FILES, size=1), RunnerOptions(num_thread=wished)
    found = runner_settings(small, options, PLACE)
    assert (found["threads"], found["batch_threads"]) == (threads, threads)
    assert f"-t {threads} -tb {threads}" in " ".join(server_arguments(small, options, PLACE))


def test_a_template_of_its_own_is_replaced_by_a_placeholder_where_prompts_come_rendered() -> None:
    assert settings(jinja=False, chat_template="{{")["chat_template"] == "chatml"
    assert settings(chat_template="{{")["chat_template"] == "{{"
    assert settings()["chat_template"] == ""
    assert arguments(jinja=False).endswith("--chat-template chatml --no-jinja")
    assert arguments(shift=False).endswith("--metrics --lora /a --lora /b --mmproj /p --jinja")


def test_a_server_program_is_told_what_differs_from_its_defaults() -> None:
    line = arguments(num_gpu=4, main_gpu=1, use_mmap=False, embedding=True)
    for part in ("--embedding", "-ngl 4", "--split-mode none --main-gpu 1", "--no-mmap"):
        assert part in line
    plain = server_arguments(Files("/m"), RunnerOptions(), PLACE)
    assert not {"--lora", "--mmproj", "-ngl", "--no-mmap", "--embedding"} & set(plain)
    assert "--cache-type-k q8_0" in " ".join(plain)
    assert "--flash-attn on" in " ".join(plain)


def test_a_runner_gets_what_the_engine_needs_of_the_environment_and_no_secret() -> None:
    environ = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "REGISTRY_DATABASE_URL": "postgresql://u:secret@h/d",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "OMP_NUM_THREADS": "3",
    }
    shared = runner_environment(environ, "/src", dedicated=False)
    assert shared == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "OMP_NUM_THREADS": "3",
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "5000",
        "PYTHONPATH": "/src",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    assert "OMP_WAIT_POLICY" not in runner_environment(environ, "/src", dedicated=True)


def test_contexts_shift_unless_told_otherwise_or_for_vectors() -> None:
    assert settings()["shift"] is True
    assert settings(shift=False)["shift"] is False
    assert settings(embedding=True)["shift"] is False
    assert "--context-shift" in arguments()
    assert "--context-shift" not in arguments(shift=False) + arguments(embedding=True)


def test_no_key_stands_among_a_programs_arguments() -> None:
    assert PLACE.api_key not in server_arguments(FILES, RunnerOptions(), replace(PLACE))
