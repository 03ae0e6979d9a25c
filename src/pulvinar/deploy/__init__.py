"""Making the saving real: compaction, exact fallback, files and exports."""
