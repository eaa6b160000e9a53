"""`padlite eval`: how far a reward bends the answers, what that costs, and how simpler ways to ask for it do."""
