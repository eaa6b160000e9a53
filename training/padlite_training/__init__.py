"""padlite_training: from public text to a small base model, a reward head and the bundle that holds both."""
