"""From trained checkpoints to files that padlite runs: reward LMs to ONNX, with proof that they score the same.

Needs the extra `padlite[export]`; the runtime imports none of it but through `padlite export`.
"""
