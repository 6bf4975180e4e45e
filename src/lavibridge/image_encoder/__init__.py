"""Image encoders: pictures in, features of their patches out; one file is one family."""
