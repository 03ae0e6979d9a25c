"""What needs networks or optimisers to score."""
