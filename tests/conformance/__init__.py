"""Third-party suites against the package."""
