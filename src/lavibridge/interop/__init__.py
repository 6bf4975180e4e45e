"""Other people's formats: released weights in, common formats out, and Diffusers pipelines of a bridge."""
