"""What the commands do: each takes plain arguments, does the work, and returns a JSON-able result."""
