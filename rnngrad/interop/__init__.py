"""Networks from elsewhere: PyTorch modules, ``.safetensors`` and ``.npz`` files. No pickle is ever loaded."""
