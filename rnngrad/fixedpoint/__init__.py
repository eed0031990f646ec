"""Fixed-point networks h* = f(x, h*): solving for h*, its gradient by the implicit function, and finding them all."""
