"""The demonstration that ``trt-rt demo`` runs: handwritten digits through an engine, in every mode."""
