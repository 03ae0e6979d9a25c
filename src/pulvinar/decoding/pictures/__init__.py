"""Images reconstructed from responses, and how close they are."""
