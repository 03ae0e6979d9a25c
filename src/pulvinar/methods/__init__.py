"""One file is one method: Config, NEEDS, fit, evaluate, PUBLISHED."""
