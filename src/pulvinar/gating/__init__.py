"""Which channels? Self-supervised networks with gates, distillation, their evaluation and pages."""
