"""Fewer GPU layers are tried only when memory was what lacked."""

import pytest

from padlite.backends.llama import _is_short_of_memory


@pytest.mark.parametrize(
    "line",
    [
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 40 MiB on device 0: cudaMalloc failed: out of memory",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "ggml_vulkan: Device memory allocation of size 1073 failed. ErrorOutOfDeviceMemory: out of device memory",
        "llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers",
    ],
)
def test_a_load_that_lacked_memory_is_tried_with_fewer_layers(line: str) -> None:
    assert _is_short_of_memory(["load_tensors: CPU_Mapped model buffer size = 5.2 MiB", line])


@pytest.mark.parametrize(
    "line",
    [
        "llama_model_load: error loading model: unknown model architecture: 'nonsense'",
        "gguf_init_from_file_impl: tensor data is not within the file bounds, model is corrupted or incomplete",
        "load_tensors: CPU_Mapped model buffer size = 5.2 MiB",
    ],
)
def test_a_load_that_failed_for_another_reason_is_not(line: str) -> None:
    assert not _is_short_of_memory([line])
