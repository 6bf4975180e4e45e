"""Other tools' formats: imports released weights, exports bridges, and makes Diffusers pipelines of them."""
