"""Templates, their linter, and the doctor."""
