"""Preference pairs: reading them, running them through the base model once, and fitting a reward head to them (PAD)."""
