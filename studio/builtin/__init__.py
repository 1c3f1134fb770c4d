"""How the built-in models were made: the emoji world, the three trainings, and the measurement of the result."""
