"""What is asked of models and traces: is a checkpoint what it should be, and what changes what."""
