"""What gradients do along a trajectory: bounds, spectra, saturation, memory, and a verdict. One file per quantity."""
