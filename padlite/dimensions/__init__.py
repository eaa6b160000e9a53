"""From a sentence to a dimension of the reward head: `padlite dimension`.

The base model with the sentence in its prompt teaches (`teacher`), its answers to ordinary requests are collected
(`harvest`), a low-rank head is fitted to them (`fit`) and judged on requests it wasn't fitted to (`trial`), and the
dimension joins the head of the base model (`stacking`, `shelf`). Needs numpy only.
"""
