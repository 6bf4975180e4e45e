"""What the bridge learns besides predicting the noise of images: from the vision model's own text encoder.

`alignment` trains the connector on captions before the first step, `teacher` replaces the target of each step
by a prediction, and `native_encoder` gives both of them the vision model's own text encoder.
"""
