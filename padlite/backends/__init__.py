"""The two libraries that run models, each behind a seam: llama.cpp (`llama`) and ONNX Runtime (`onnx`)."""
