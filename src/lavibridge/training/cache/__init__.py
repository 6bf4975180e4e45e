"""What is made of pictures and captions once and then kept: latents, language features."""
