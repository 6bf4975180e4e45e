"""The mathematics of diffusion as pure functions: objectives and guidance."""
