"""From trained checkpoints to files that padlite runs: reward LMs to ONNX, bases to GGUF, each with its proof.

Needs the extra `padlite[export]`; the runtime imports none of it but through `padlite export`.
"""
